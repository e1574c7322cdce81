"""Guest RAM: in bounds, sealed, whole halfwords, and the same bytes that QEMU sees."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from typing import cast

import pytest

from pytest_virtio import Rng, UsageError, VirtioFactory
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.model.memory import RamPiece
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.memory import LOW_MEMORY, GuestMemory
from pytest_virtio.vm.qemu import Qemu

SIZE = 1 << 20
PLACE = 0x1234
ROUNDS = 200_000


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(SIZE) as memory:
        yield memory


def test_it_starts_as_zeros_and_keeps_what_is_written(memory: GuestMemory) -> None:
    assert memory.read(0, SIZE) == bytes(SIZE)
    memory.write(PLACE, b"\x11\x22\x33")
    assert memory.read(PLACE - 1, 5) == b"\x00\x11\x22\x33\x00"
    assert os.pread(memory.fd, 3, PLACE) == b"\x11\x22\x33"


def test_halfwords_are_little_endian(memory: GuestMemory) -> None:
    memory.store16(PLACE, 0xABCD)
    assert memory.read(PLACE, 2) == b"\xcd\xab"
    memory.write(PLACE, b"\x01\x80")
    assert memory.load16(PLACE) == 0x8001


@pytest.mark.parametrize("address", [0, SIZE - 2])
def test_the_ends_are_inside(memory: GuestMemory, address: int) -> None:
    memory.store16(address, 0x0102)
    assert memory.load16(address) == 0x0102
    memory.write(address, b"ab")
    assert memory.read(address, 2) == b"ab"


@pytest.mark.parametrize("address", [-2, SIZE - 1, SIZE, SIZE + 2, 1 << 64])
def test_what_is_not_all_inside_is_refused(memory: GuestMemory, address: int) -> None:
    for access in (
        lambda: memory.read(address, 2),
        lambda: memory.write(address, b"ab"),
        lambda: memory.load16(address),
        lambda: memory.store16(address, 0),
    ):
        with pytest.raises(UsageError, match=rf"2 bytes at {address:#x} can't be accessed: it is 0x0 to 0x100000"):
            access()
    assert memory.read(0, SIZE) == bytes(SIZE)


def test_a_negative_length_is_refused(memory: GuestMemory) -> None:
    with pytest.raises(UsageError):
        memory.read(PLACE, -1)


def test_halfwords_at_odd_addresses_are_refused(memory: GuestMemory) -> None:
    with pytest.raises(UsageError, match="16 bits need an even address"):
        memory.load16(PLACE + 1)
    with pytest.raises(UsageError, match="16 bits need an even address"):
        memory.store16(PLACE + 1, 0)


def test_what_lies_high_is_reached_where_its_pieces_are_known() -> None:
    size = LOW_MEMORY + SIZE
    with GuestMemory(size) as memory:
        before = memory.complete
        with pytest.raises(UsageError):
            memory.read(4 << 30, 2)
        memory.place(
            [
                RamPiece(*piece, "ram")
                for piece in ((0, LOW_MEMORY, 0), (4 << 30, SIZE, LOW_MEMORY), (8 << 30, SIZE, size))
            ]
        )
        assert (before, memory.complete) == (False, True)
        memory.write(4 << 30, b"\x01\x02")
        assert memory.load16(4 << 30) == 0x0201
        assert os.pread(memory.fd, 2, LOW_MEMORY) == b"\x01\x02"
        memory.store16((4 << 30) + SIZE - 2, 0x0403)
        assert memory.read((4 << 30) + SIZE - 2, 2) == b"\x03\x04"
        for address in (LOW_MEMORY - 2, LOW_MEMORY, (4 << 30) - 2, (4 << 30) + SIZE - 2, 8 << 30):
            with pytest.raises(UsageError, match=r"4 bytes at .* it is 0x0 to 0x80000000, 0x100000000 to 0x100100000"):
                memory.read(address, 4)
        with pytest.raises(UsageError, match="even address"):
            memory.load16((4 << 30) + 1)


def test_nobody_can_pull_it_away_under_us(memory: GuestMemory) -> None:
    for size in (0, SIZE - 4096, SIZE + 4096):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, size)
    assert memory.read(SIZE - 1, 1) == b"\0"


def test_it_takes_no_room_until_it_is_written() -> None:
    with GuestMemory(8 << 30) as large:
        assert large.size == LOW_MEMORY
        assert os.fstat(large.fd).st_size == 8 << 30
        assert os.fstat(large.fd).st_blocks == 0


def test_after_the_end_every_access_says_so() -> None:
    with GuestMemory(SIZE) as memory:
        memory.close()
    for access in (
        lambda: memory.read(0, 1),
        lambda: memory.write(0, b"a"),
        lambda: memory.load16(0),
        lambda: memory.store16(0, 0),
    ):
        with pytest.raises(UsageError, match="the VM has ended"):
            access()


def test_no_half_of_a_halfword_is_ever_seen(memory: GuestMemory) -> None:
    """Two processes, one writing: of 0x0000 and 0xffff no mixture is seen. It would be, were bytes copied singly."""
    deadline = Deadline.after(10)
    writer = multiprocessing.get_context("fork").Process(target=_write_both, args=(memory,))
    writer.start()
    try:
        seen = {memory.load16(PLACE) for _ in range(ROUNDS)}
        while len(seen) < 2 and not deadline.passed():
            seen |= {memory.load16(PLACE) for _ in range(ROUNDS)}
    finally:
        writer.kill()
        writer.join()
        writer.close()
    assert seen == {0, 0xFFFF}


def _write_both(memory: GuestMemory) -> None:
    while True:
        memory.store16(PLACE, 0xFFFF)
        memory.store16(PLACE, 0)


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("machine", "size"), [("q35", "256M"), ("pc", "256M"), ("q35", "2816M"), ("q35", "3G"), ("pc", "3G"), ("pc", "4G")]
)
def test_qemu_sees_the_same_bytes(virtio_factory: VirtioFactory, machine: str, size: str) -> None:
    """At both ends of what is mapped here, by the wire and by the monitor; also where RAM goes on above 4 GiB."""
    with virtio_factory(Rng(), machine=machine, memory=size) as virtio:
        qemu = cast(ScriptedGuest, virtio.guest)._qemu
        for address in (0x1000, 0x100000, qemu.memory.size - 8):
            data = os.urandom(8)
            qemu.memory.write(address, data)
            assert qemu.qtest.read("memory", address, 8) == int.from_bytes(data, "little")
            assert _xp(qemu, address) == data
            qemu.qtest.write("memory", address, 8, 0x0102030405060708)
            qemu.qtest.flush()
            assert qemu.memory.read(address, 8) == bytes(range(8, 0, -1))
        assert len(virtio.guest.driver("rng0").read(8))


def _xp(qemu: Qemu, address: int) -> bytes:
    """``0000000000100000: 0x01 0x02 …``"""
    text = str(qemu.execute("human-monitor-command", {"command-line": f"xp /8xb {address:#x}"}))
    return bytes(int(byte, 16) for byte in text.partition(":")[2].split())


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("memory", "args"),
    [
        ("256M", ["-object", "memory-backend-ram,id=m,size=256M", "-machine", "memory-backend=m"]),
        ("3G", ["-machine", "max-ram-below-4g=1G"]),
    ],
)
def test_other_ram_in_its_place_is_noticed(virtio_factory: VirtioFactory, memory: str, args: list[str]) -> None:
    with (
        pytest.raises(UsageError, match=r"is not the RAM that the scripted guest has mapped: .* size by memory="),
        virtio_factory(Rng(), memory=memory, args=args),
    ):
        pass
