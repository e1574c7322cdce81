"""scripted: the default guest, against QEMU's own launch, and against the same test on a Linux guest.

Fixture start to DRIVER_OK is held against the same command line started by hand up to QEMU's greeting (aim: at most
twice as long); a further device, QEMU's part of it included, against a VM without it; a whole test (set-up, an
assertion, teardown) against the same test on the Linux guest, of which it should take a fiftieth at the most. Requests
are kicked one by one, each waited for.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from figures import Figure, ratio, single
from harness import BenchmarkError, in_pytest, interleaved

from pytest_virtio import Declaration, Net, Rng, VirtioFactory
from pytest_virtio.vm import janitor, workdir

__all__ = ("measure",)

PAIRS = 20
LINUX_PAIRS = 3
REQUESTS = 2000
MORE = 8
SECONDS = 30.0

LAUNCH_AIM = 2.0
DEVICE_AIM_MS = 3.0
TEST_AIM = 1 / 50
REQUEST_AIM_US = 1e6 / 5000
TEARDOWN_AIM_MS = 30.0
QEMU_RANK = 1


def measure(pairs: int = PAIRS) -> list[Figure]:
    """Measure all of it with one factory."""
    return in_pytest(partial(_measured, pairs=pairs))


def _measured(factory: VirtioFactory, pairs: int) -> list[Figure]:
    with _bare(factory) as bare_launch:
        launched, bare = interleaved("scripted: launch", pairs, partial(_ready, factory), bare_launch)
    many, few = interleaved(
        "scripted: devices", pairs, partial(_ready, factory, *(Net() for _ in range(MORE))), partial(_ready, factory)
    )
    tests = (partial(_test, factory, guest) for guest in ("scripted", "linux"))
    scripted, linux = interleaved("scripted: test", min(pairs, LINUX_PAIRS), *tests)
    requests = _requests(factory, pairs)
    (ended,) = interleaved("scripted: teardown", pairs, partial(_teardown, factory))
    rate = f"{1e6 / statistics.median(requests):.0f} requests/s"
    return [
        ratio("scripted: to DRIVER_OK / bare launch", launched, bare, "ms", LAUNCH_AIM),
        single(
            "scripted: a further net device",
            [(a - b) / MORE for a, b in zip(many, few, strict=True)],
            "ms",
            DEVICE_AIM_MS,
            [],
        ),
        ratio("scripted: whole test / on Linux", scripted, linux, "ms", TEST_AIM),
        single("scripted: a kicked request", requests, "us", REQUEST_AIM_US, [rate]),
        single("scripted: teardown", ended, "ms", TEARDOWN_AIM_MS, []),
    ]


def _ready(factory: VirtioFactory, *further: Declaration) -> float:
    """Milliseconds from entering the fixture's block to DRIVER_OK of an entropy device and the further ones."""
    start = time.perf_counter()
    with factory(Rng(), *further):
        return (time.perf_counter() - start) * 1e3


def _test(factory: VirtioFactory, guest: str) -> float:
    """Milliseconds of a whole test: set-up, an assertion, teardown."""
    start = time.perf_counter()
    with factory(Rng(), guest=guest) as virtio:
        virtio["rng0"].assert_driver_ok()
    return (time.perf_counter() - start) * 1e3


def _requests(factory: VirtioFactory, pairs: int) -> list[float]:
    """Microseconds of a request of the entropy device, by batches."""
    with factory(Rng()) as virtio:
        driver = virtio.guest.driver("rng0")
        return interleaved("scripted: requests", pairs, lambda: _batch(lambda: driver.read(16)))[0]


def _batch(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(REQUESTS):
        call()
    return (time.perf_counter() - start) / REQUESTS * 1e6


def _teardown(factory: VirtioFactory) -> float:
    with factory(Rng()):
        start = time.perf_counter()
    return (time.perf_counter() - start) * 1e3


@contextmanager
def _bare(factory: VirtioFactory) -> Iterator[Callable[[], float]]:
    """Starts the command line of a VM with one device again and again, with descriptors of our own."""
    directory = workdir.make()
    try:
        with factory(Rng()) as virtio:
            words = shlex.split(virtio.vm.command_line)
            rom = Path(words[words.index("-bios") + 1])
            words[words.index("-bios") + 1] = str(shutil.copy(rom, directory))
        yield partial(_greeting, words)
    finally:
        workdir.remove(directory)


def _greeting(words: Sequence[str]) -> float:
    """Milliseconds from spawn to QEMU's greeting."""
    with ExitStack() as stack:
        ends = {name: [stack.enter_context(end) for end in socket.socketpair()] for name in ("monitor", "qtest")}
        memory = os.memfd_create("ram")
        stack.callback(os.close, memory)
        os.ftruncate(memory, 256 << 20)
        fds = {name: end[1].fileno() for name, end in ends.items()}
        argv = [_rewired(word, fds, memory) for word in words]
        ours = ends["monitor"][0]
        ours.settimeout(SECONDS)
        start = time.perf_counter()
        child = subprocess.Popen(
            argv, pass_fds=[*fds.values(), memory], stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            janitor.adopt_group(child.pid, QEMU_RANK)
            if not ours.recv(4096):
                raise BenchmarkError(f"QEMU ended instead of greeting: {shlex.join(argv)}")
            return (time.perf_counter() - start) * 1e3
        finally:
            child.kill()
            child.wait(SECONDS)
            janitor.release_group(child.pid)


def _rewired(word: str, fds: Mapping[str, int], memory: int) -> str:
    word = re.sub(r"^(socket,id=(\w+),fd=)\d+", lambda match: f"{match[1]}{fds[match[2]]}", word)
    return re.sub(r"/proc/self/fd/\d+", f"/proc/self/fd/{memory}", word)
