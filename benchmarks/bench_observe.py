"""observe: what looking at a VM of ten devices takes while its disks are at work, on QEMU 7.2, 10.0 and 11.1.

One ``dev.status()`` is held against the plain command by qemu.qmp's own client on the same VM (aim: at most 1.3 times)
where QEMU survives that, and is a cost in itself where it doesn't (aim: 10 ms). A dump tells the status of all devices
and of all their queues that a driver has set up (aim: 100 ms). The releases have to be built before:
``pytest-virtio image build qemu-7.2 qemu-10.0 qemu-11.1``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

from bench_status import QUERY, batch, library_batches, monitor
from figures import Figure, ratio, single
from harness import BenchmarkError, in_pytest, interleaved

from pytest_virtio import (
    Balloon,
    Blk,
    Crypto,
    Declaration,
    Keyboard,
    Net,
    Rng,
    Scsi,
    Serial,
    Tablet,
    VhostUserBlk,
    Virtio,
    VirtioFactory,
)
from pytest_virtio.guest.linux import CommandResult
from pytest_virtio.vm import workdir

__all__ = ("measure",)

RELEASES = ("qemu-7.2", "qemu-10.0", "qemu-11.1")
PAIRS = 20
BOOT_SECONDS = 120.0
WORK_SECONDS = 1800.0
END_SECONDS = 60.0

STATUS_AIM = 1.3
STATUS_AIM_MS = 10.0
DUMP_AIM_MS = 100.0

STOP = "/tmp/stop"
WORK = f"""
requests=0; read -r start _ </proc/uptime
while [ ! -e {STOP} ]; do
    for disk in vda vdb; do
        dd status=none if=/dev/$disk of=/dev/null iflag=direct bs=4k count=64 || exit
        requests=$((requests + 64))
    done
done
read -r end _ </proc/uptime
echo $requests $(echo "$end - $start" | bc)
"""


def measure(pairs: int = PAIRS) -> list[Figure]:
    """Look at a VM of each release."""
    return [figure for release in RELEASES for figure in in_pytest(partial(_observed, pairs=pairs), release)]


def _observed(factory: VirtioFactory, pairs: int) -> list[Figure]:
    with ExitStack() as stack:
        directory = workdir.make()
        stack.callback(workdir.remove, directory)
        path = directory / "library"
        options = {"guest": "linux", "timeout": BOOT_SECONDS, "args": monitor("library", path)}
        virtio = stack.enter_context(factory(*_devices(), **options))
        device, version = virtio["net0"], virtio.vm.qemu_version
        with _at_work(virtio) as work:
            ways: list[Callable[[], float]] = [partial(batch, device.status)]
            if device.status().source == QUERY:
                ways.append(stack.enter_context(library_batches(path, device.path)))
            statuses = interleaved(f"observe: status, {version}", pairs, *ways)
            (dumps,) = interleaved(f"observe: dump, {version}", pairs, partial(_dump, virtio))
        requests, seconds = work.result(END_SECONDS).text.split()
    notes = [f"meanwhile the guest has done {int(requests) / float(seconds):.0f} requests/s"]
    return [_status(version, *statuses), single(f"observe: dump, {version}", dumps, "ms", DUMP_AIM_MS, notes)]


def _devices() -> tuple[Declaration, ...]:
    disks = (VhostUserBlk(), Blk())
    return (*disks, Net(), Rng(), Balloon(), Serial(), Scsi(), Keyboard(), Tablet(), Crypto())


@contextmanager
def _at_work(virtio: Virtio) -> Iterator[Future[CommandResult]]:
    """Have the guest read its disks until the block ends."""
    with ThreadPoolExecutor(1) as threads:
        work = threads.submit(virtio.guest.run, WORK, WORK_SECONDS)
        try:
            yield work
        finally:
            virtio.guest.run(f"touch {STOP}", END_SECONDS)


def _dump(virtio: Virtio) -> float:
    """Milliseconds of a dump.

    :raises BenchmarkError: when something is missing in it.
    """
    start = time.perf_counter()
    dump = virtio.dump()
    taken = (time.perf_counter() - start) * 1e3
    if "no answer" in dump:
        raise BenchmarkError(f"not all was answered:\n{dump}")
    return taken


def _status(version: str, ours: list[float], plain: Sequence[float] = ()) -> Figure:
    if plain:
        return ratio(f"observe: status / qemu.qmp, {version}", ours, plain, "us", STATUS_AIM)
    return single(f"observe: status, {version}", [micro / 1e3 for micro in ours], "ms", STATUS_AIM_MS, [])
