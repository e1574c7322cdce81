"""A VM is dumped again and again while its disks are at work: nothing breaks, stands still or gets lost."""

from __future__ import annotations

import hashlib
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

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

from .conftest import SOAK_SECONDS, STOP, Work, rounds, work

pytestmark = [pytest.mark.soak, pytest.mark.guest, pytest.mark.timeout(SOAK_SECONDS)]

MIB = 1 << 20
DISKS = {"vublk0": 4 * MIB, "blk0": 6 * MIB}
"""By size, which is how the guest tells them apart."""

WRITE_AND_COMPARE = f"""
disk=$(grep -lx $sectors /sys/block/vd*/size | cut -d/ -f4)
cd /tmp; round=0
while :; do
    [ -e {STOP} ] && last=yes
    at=$((round % 64 * 16))
    dd status=none if=/dev/urandom of=$disk.want bs=4k count=16 || exit
    dd status=none if=$disk.want of=/dev/$disk oflag=direct bs=4k seek=$at || exit
    dd status=none if=/dev/$disk of=$disk.got iflag=direct bs=4k skip=$at count=16 || exit
    cmp $disk.want $disk.got || exit
    round=$((round + 1))
    [ "$last" ] && break
done
md5=$(dd status=none if=/dev/$disk iflag=direct bs=64k | md5sum)
echo $round ${{md5%% *}} $(cat /sys/block/$disk/stat)
"""
"""Writes blocks past the cache, reads them back and compares, 32 requests a round; says how many rounds, what is on the
disk then, and what the kernel has counted."""

TROUBLE = re.compile(r"error|blocked for|is not a head|out of range|broken|call trace|timed out", re.IGNORECASE)


@dataclass(frozen=True)
class Done:
    """What the guest says of a disk, with the kernel's counts of requests (its Documentation/block/stat.rst)."""

    rounds: int
    md5: str
    requests: int
    under_way: int

    @classmethod
    def said(cls, text: str) -> Done:
        rounds, md5, *counts = text.split()
        reads, writes, under_way, discards, flushes = (int(counts[place]) for place in (0, 4, 8, 11, 15))
        return cls(int(rounds), md5, reads + writes + discards + flushes, under_way)


def ten_devices() -> Iterator[Declaration]:
    yield VhostUserBlk(size=DISKS["vublk0"])
    yield Blk(size=DISKS["blk0"])
    yield from (Net(), Rng(), Balloon(), Serial(), Scsi(), Keyboard(), Tablet(), Crypto())


def test_dumps_under_io(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(*ten_devices(), guest="linux", timeout=120) as virtio:
        before = kernel_log(virtio)
        scripts = [f"sectors={size // 512}{WRITE_AND_COMPARE}" for size in DISKS.values()]
        with work(virtio, *scripts) as at_work:
            taken = dumped(virtio, at_work)
            done = {id: Done.said(text) for id, text in zip(DISKS, at_work.finish(), strict=True)}
        assert_unharmed(virtio)
        for id, disk in done.items():
            assert_nothing_lost(virtio, id, disk)
        assert [line for line in kernel_log(virtio)[len(before) :] if TROUBLE.search(line)] == []
        tell(virtio, taken, done)


def dumped(virtio: Virtio, at_work: Work) -> list[float]:
    """Dump the VM while it works; what each dump took, in seconds."""
    taken = []
    for _ in range(rounds(1000)):
        start = time.perf_counter()
        dump = virtio.dump()
        taken.append(time.perf_counter() - start)
        assert "no answer" not in dump
        assert "source: guest RAM" in dump, "the ring that the backend serves is looked at, too"
        assert all(f"\n{device.id}: DRIVER_OK: " in dump for device in virtio)
        if not at_work.goes_on:
            # It was not told to end; finish() says what became of it.
            break
    return taken


def assert_unharmed(virtio: Virtio) -> None:
    for device in virtio:
        status = device.status()
        assert status.driver_ok, "neither FAILED nor NEEDS_RESET"
        assert status.broken is not True


def assert_nothing_lost(virtio: Virtio, id: str, disk: Done) -> None:
    """Workload, kernel, ring and image say the same."""
    assert disk.rounds > 1
    assert disk.under_way == 0
    assert disk.requests >= disk.rounds * 32
    image = virtio._running.qemu.directory / f"{id}.img"
    assert disk.md5 == hashlib.md5(image.read_bytes()).hexdigest()
    (queue,) = virtio[id].queues
    ring = queue.status()
    assert ring.used_idx == disk.requests % (1 << 16)
    assert ring.shadow_avail_idx == ring.used_idx
    assert not ring.inuse


def kernel_log(virtio: Virtio) -> list[str]:
    text: str = virtio.guest.run("dmesg", timeout=60).text
    return text.splitlines()


def tell(virtio: Virtio, taken: list[float], done: dict[str, Done]) -> None:
    print(
        f"QEMU {virtio.vm.qemu_version}: {len(taken)} dumps of {len(virtio)} devices, "
        f"{statistics.median(taken) * 1e3:.1f} ms each ({sum(taken):.1f} s); meanwhile "
        + ", ".join(f"{disk.requests} requests on {id}" for id, disk in done.items())
    )
