"""boot: from fixture start to ready, against the bare ``qemu`` command line that boots the same guest.

Compared: entering a ``virtio_factory(Net(), Blk(), Rng(), guest="linux")`` block, which returns when the guest's agent
has spoken and the devices are at DRIVER_OK; and the very command line of such a VM, with descriptors and directory of
our own, from spawn to the agent's ``@pv ready`` on the second serial port. Aim: at most 1.05 times as long.

A second figure, which other users of the machine disturb less, is the CPU time that this process itself took meanwhile:
in both ways it reads the same serial ports. The plugin's first VM of a process is not counted: it pays once for imports
and janitor.
"""

from __future__ import annotations

import itertools
import os
import re
import selectors
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from os import killpg
from pathlib import Path

from figures import Figure, difference, ratio
from harness import BenchmarkError, Taken, in_pytest, interleaved, stopwatch

from pytest_virtio import Blk, Net, Rng, Virtio, VirtioFactory
from pytest_virtio.vm import janitor, workdir

__all__ = ("measure",)

PAIRS = 5
AIM = 1.05
BOOT_SECONDS = 120.0
REAP_SECONDS = 10.0
QEMU_RANK = 1

READY = b"@pv ready"
WIRE = re.compile(r"((?:socket|file),id=(?P<id>\w+),(?:fd=|append=on,path=/proc/self/fd/))\d+")
OURS = re.compile(
    r"memory-backend(-file)?[,=](id=)?pytest-virtio|qtest,|socket,id=qtest,|-D$|/proc/self/fd/|timestamp=on$|enable="
)
SPEAKER, AGENT = "console0", "console1"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A VM's command line, to be run again with other descriptors and another directory."""

    argv: tuple[str, ...]
    directory: str
    images: tuple[tuple[str, int], ...]
    """The private images: name and size."""

    @classmethod
    def of(cls, virtio: Virtio) -> CommandLine:
        """Of a running VM.

        :raises BenchmarkError: when its private directory isn't to be seen in the command line.
        """
        argv = tuple(_without_ours(shlex.split(virtio.vm.command_line)))
        found = re.search(r"file=(/[^,]+)/blk0\.img", " ".join(argv))
        if found is None:
            raise BenchmarkError(f"no private image of blk0 in: {virtio.vm.command_line}")
        directory = Path(found[1])
        images = tuple((path.name, path.stat().st_size) for path in directory.glob("*.img"))
        return cls(argv, str(directory), images)

    @property
    def wires(self) -> tuple[str, ...]:
        """The ids of the descriptors that QEMU inherits: sockets, and a pipe for the console that only speaks."""
        return tuple(match["id"] for word in self.argv if (match := WIRE.fullmatch(word)))

    def rewired(self, directory: Path, descriptors: Mapping[str, int]) -> list[str]:
        """The same arguments for other descriptors and another directory."""
        words = [word.replace(self.directory, str(directory)) for word in self.argv]
        return [WIRE.sub(lambda match: f"{match[1]}{descriptors[match['id']]}", word) for word in words]


def _without_ours(words: list[str]) -> Iterator[str]:
    """Less what only the plugin has a use for: RAM that it has mapped too, the wire to the registers, and the log."""
    for option, value in itertools.pairwise([*words, ""]):
        if not OURS.match(option) and not OURS.match(value):
            yield option


def measure(pairs: int = PAIRS) -> list[Figure]:
    """Boot the guest both ways, in turn."""
    ours, bare = in_pytest(partial(_boots, pairs=pairs))
    return [
        ratio("boot", [taken.wall for taken in ours], [taken.wall for taken in bare], "s", AIM),
        difference(
            "boot, CPU of pytest", [taken.cpu * 1e3 for taken in ours], [taken.cpu * 1e3 for taken in bare], "ms"
        ),
    ]


def _boots(factory: VirtioFactory, pairs: int) -> list[list[Taken]]:
    with _block(factory) as virtio:
        line = CommandLine.of(virtio)
    return interleaved("boot", pairs, partial(_with_plugin, factory), partial(_bare, line))


@contextmanager
def _block(factory: VirtioFactory) -> Iterator[Virtio]:
    with factory(Net(), Blk(), Rng(), guest="linux", timeout=BOOT_SECONDS) as virtio:
        yield virtio


def _with_plugin(factory: VirtioFactory) -> Taken:
    taken = stopwatch()
    with _block(factory):
        return taken()


def _bare(line: CommandLine) -> Taken:
    """Start the command line, and read its serial ports until the agent has spoken."""
    with ExitStack() as stack:
        directory = workdir.make()
        stack.callback(workdir.remove, directory)
        for name, size in line.images:
            with (directory / name).open("xb") as image:
                image.truncate(size)
        inherited = stack.enter_context(ExitStack())
        ends = {id: _ends(id, stack, inherited) for id in line.wires}
        theirs = {id: end for id, (_, end) in ends.items()}
        taken = stopwatch()
        stack.enter_context(_running(line.rewired(directory, theirs), list(theirs.values()), directory / "stderr"))
        inherited.close()
        _await_agent({id: ours for id, (ours, _) in ends.items()}, directory / "stderr")
        return taken()


def _ends(id: str, ours: ExitStack, inherited: ExitStack) -> tuple[int, int]:
    """Our end and QEMU's, as the plugin makes them: the console that only speaks is a pipe, the others are sockets."""
    if id == SPEAKER:
        reading, writing = os.pipe()
    else:
        reading, writing = (end.detach() for end in socket.socketpair())
    ours.callback(os.close, reading)
    inherited.callback(os.close, writing)
    return reading, writing


@contextmanager
def _running(argv: Sequence[str], descriptors: Sequence[int], log: Path) -> Iterator[None]:
    """Run QEMU in a group of its own, which the janitor knows; kill and reap it in the end."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=descriptors, process_group=0
        )
    try:
        janitor.adopt_group(process.pid, QEMU_RANK)
        yield
    finally:
        with suppress(ProcessLookupError):
            killpg(process.pid, signal.SIGKILL)
        process.wait(REAP_SECONDS)
        janitor.release_group(process.pid)


def _await_agent(wires: Mapping[str, int], log: Path) -> None:
    """Empty all wires until the agent says that it is ready.

    :raises BenchmarkError: when it doesn't in time, or QEMU ends.
    """
    deadline = time.monotonic() + BOOT_SECONDS
    heard: dict[str, bytearray] = {id: bytearray() for id in wires}
    with selectors.DefaultSelector() as selector:
        for id, wire in wires.items():
            selector.register(wire, selectors.EVENT_READ, (wire, heard[id]))
        while READY not in heard[AGENT]:
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                wire, buffer = key.data
                data = os.read(wire, 65536)
                if not data:
                    raise BenchmarkError(f"the bare QEMU ended: {log.read_text(errors='replace')}")
                buffer += data
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the bare guest was not ready within {BOOT_SECONDS:g} s: {heard}")
