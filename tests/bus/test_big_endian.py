"""A big-endian guest: rings, configuration and requests in its byte order (virtio 1.3 sections 2.4.3 and 2.7.3).

The guest is real: QEMU's m68k ``virt`` machine. Its virtio-mmio devices have the registers of version 2 whatever one
says, but a device whose driver leaves VERSION_1 out goes by the guest's byte order all the same. The registers of
version 1 in that order are played by a fake.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pytest_virtio.bus.virtio_mmio import MmioDevice
from pytest_virtio.errors import RequestFailedError
from pytest_virtio.guest.scripted.access import Attachment
from pytest_virtio.guest.scripted.arena import Arena
from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
from pytest_virtio.guest.scripted.drivers.rng import RngDriver
from pytest_virtio.guest.scripted.interrupts import Signal
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.qapi import parse_status
from pytest_virtio.vm.cmdline import Wires
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.qemu import Qemu

pytestmark = pytest.mark.qemu

PROGRAM = "qemu-system-m68k"
PACKAGE = "qemu-system-misc"
MIB = 1 << 20
RAM = 32 * MIB
BASE, STRIDE = 0xFF010000, 0x200
"""Where the machine has its 128 virtio-mmio places; -device fills them from the first."""
SECTOR = 512
STOP = bytes.fromhex("4e722700 60fa")
"""``stop #0x2700``; again."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"".join(bytes([n]) * SECTOR for n in range(16)))
    return path


@pytest.fixture
def m68k(image: Path) -> Iterator[Qemu]:
    """It runs, for else some devices do nothing; but its CPU sleeps."""
    program = shutil.which(PROGRAM)
    if program is None:
        pytest.skip(f"no {PROGRAM}: it is in Debian's {PACKAGE}")
    with Qemu.start(_line(program, image), Deadline.after(30), label="m68k", memory=RAM, qtest=True) as qemu:
        # Without a kernel it begins at 0.
        qemu.memory.write(0, STOP)
        qemu.execute("cont")
        yield qemu


def _line(program: str, image: Path) -> Callable[[Wires], Sequence[str]]:
    return lambda wires: (
        *(program, "-nodefaults", "-no-user-config", "-display", "none", "-S"),
        *("-machine", "virt,memory-backend=ram", "-m", str(RAM // MIB)),
        *("-object", f"memory-backend-file,id=ram,size={RAM},mem-path=/proc/self/fd/{wires.memory},share=on"),
        *("-chardev", f"socket,id=monitor,fd={wires.monitor}", "-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"socket,id=qtest,fd={wires.qtest}", "-object", "qtest,id=qtest0,chardev=qtest,log=/dev/null"),
        *("-drive", f"if=none,id=disk,format=raw,file={image}"),
        *("-device", "virtio-rng-device,id=rng0,bus=virtio-mmio-bus.0"),
        *("-device", "virtio-blk-device,id=blk0,drive=disk,serial=BIG-END,bus=virtio-mmio-bus.1"),
    )


def attachment(qemu: Qemu, id: str, number: int, *more: str) -> Attachment:
    """What a driver needs of a device that it is going to drive as a legacy one."""
    transport = MmioDevice(qemu.qtest, BASE + number * STRIDE, None, native="big")
    assert (transport.legacy, transport.order) == (False, "little")
    transport.order = "big"
    return Attachment(id, transport, qemu.memory, Arena(RAM), Signal(), qemu.qtest, without={"VERSION_1", *more})


def status(qemu: Qemu, id: str) -> VirtioStatus:
    return parse_status(qemu.execute("x-query-virtio-status", {"path": f"/machine/peripheral/{id}"}))


def test_random_bytes(m68k: Qemu) -> None:
    driver = RngDriver(attachment(m68k, "rng0", 0)).initialise()
    assert len({driver.read(64) for _ in range(3)}) == 3
    assert status(m68k, "rng0").device_endian == "big"
    assert status(m68k, "rng0").driver_ok


def test_a_disk(m68k: Qemu, image: Path) -> None:
    driver = BlkDriver(attachment(m68k, "blk0", 1)).initialise()
    # 16 sectors: the other byte order would have 0x1000000000000000 of them.
    assert driver.config().capacity == 16
    assert driver.read(5 * SECTOR, 2 * SECTOR) == bytes([5]) * SECTOR + bytes([6]) * SECTOR
    driver.write(3 * SECTOR, b"big" + bytes(SECTOR - 3))
    driver.flush()
    assert image.read_bytes()[3 * SECTOR :][:4] == b"big\0"
    assert driver.get_id() == "BIG-END"
    with pytest.raises(RequestFailedError):
        driver.read(16 * SECTOR, SECTOR)
    assert status(m68k, "blk0").driver_ok


@pytest.mark.parametrize("without", [{"INDIRECT_DESC", "EVENT_IDX"}, {"INDIRECT_DESC"}, set()])
def test_many_requests_go_round_the_ring(m68k: Qemu, without: set[str]) -> None:
    driver = BlkDriver(attachment(m68k, "blk0", 1, *without)).initialise(sizes=16)
    for number in range(100):
        assert driver.read(number % 16 * SECTOR, SECTOR)[:1] == bytes([number % 16])


def test_a_modern_device_is_little_endian_all_the_same(m68k: Qemu) -> None:
    transport = MmioDevice(m68k.qtest, BASE + STRIDE, None, native="big")
    driver = BlkDriver(Attachment("blk0", transport, m68k.memory, Arena(RAM), Signal(), m68k.qtest)).initialise()
    assert driver.config().capacity == 16
    assert driver.read(5 * SECTOR, SECTOR) == bytes([5]) * SECTOR
    assert status(m68k, "blk0").guest_features >= {"VIRTIO_F_VERSION_1"}
