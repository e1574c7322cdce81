"""A window of registers: named places from some base address on, in memory or I/O space.

Responsible for turning a register into operations of the wire and for its name in messages; must not know any one
register.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_virtio.errors import UsageError
from pytest_virtio.spec.layout import ByteOrder
from pytest_virtio.spec.transport.register import Register
from pytest_virtio.vm.qtest import Qtest, Read, Space, Write

__all__ = ("Window",)

MOST_QUEUES = 1024
QUEUES_AT_ONCE = 8


class Window:
    """``length`` bytes of registers from ``base`` on.

    :param title: what the window is called in messages: ``"common configuration"``.
    :param native: the guest's byte order: it says which bytes in a row a number on the wire stands for.
    :param order: the registers' own.
    """

    def __init__(
        self,
        wire: Qtest,
        space: Space,
        base: int,
        length: int,
        title: str,
        native: ByteOrder = "little",
        order: ByteOrder = "little",
    ) -> None:
        self.wire, self.space, self.base, self.length, self.title = wire, space, base, length, title
        self._native: ByteOrder = native
        self._order: ByteOrder = order

    def name(self, register: Register) -> str:
        """``device_status (common configuration + 0x14, at 0xe0000014)``"""
        return f"{register.name} ({self.title} + {register.offset:#x}, at {self.base + register.offset:#x})"

    def get(self, register: Register) -> int:
        """Read a register, after all posted writes."""
        return self.exchange((self.reading(register),))[0]

    def put(self, register: Register, value: int) -> None:
        """Post a write of a register."""
        write = self.writing(register, value)
        self.wire.write(write.space, write.address, write.size, write.value)

    def put_wide(self, halves: tuple[Register, Register], value: int) -> None:
        """Post a write of 64 bits as two of 32."""
        self.put(halves[0], value & 0xFFFFFFFF)
        self.put(halves[1], value >> 32)

    def reading(self, register: Register) -> Read:
        """The operation that reads a register, for :meth:`exchange`."""
        return Read(self.space, self.base + register.offset, register.size)

    def writing(self, register: Register, value: int) -> Write:
        """The operation that writes a register."""
        return Write(self.space, self.base + register.offset, register.size, self._turned(value, register.size))

    def exchange(self, operations: Sequence[Read | Write]) -> list[int]:
        """Do several operations in one conversation; what was read."""
        values = self.wire.exchange(operations)
        sizes = [operation.size for operation in operations if isinstance(operation, Read)]
        return [self._turned(value, size) for value, size in zip(values, sizes, strict=True)]

    def count_queues(self, select: Register, size: Register) -> list[int]:
        """The sizes of the virtqueues up to the first that isn't there, where nothing else tells how many they are."""
        sizes: list[int] = []
        while len(sizes) < MOST_QUEUES:
            operations: list[Read | Write] = []
            for index in range(len(sizes), len(sizes) + QUEUES_AT_ONCE):
                operations += [self.writing(select, index), self.reading(size)]
            found = self.exchange(operations)
            if 0 in found:
                return sizes + found[: found.index(0)]
            sizes += found
        return sizes

    def read_bytes(self, offset: int, length: int) -> bytes:
        """Read a stretch by the widest aligned accesses that fit, 4 bytes at the most. What lies beyond the window's
        end is not there, so it may be shorter."""
        end = min(offset + length, self.length)
        data = self._read(list(_pieces(offset, end)))
        # QEMU answers all ones where an access goes beyond what the device has, also if it begins within (seen on 7.2,
        # 10.0 and 11.1): blk's write_zeroes_may_unmap is the last byte that it has.
        return self._read([(place, 1) for place in range(offset, end)]) if b"\xff\xff" in data else data

    def _read(self, pieces: Sequence[tuple[int, int]]) -> bytes:
        values = self.wire.exchange([Read(self.space, self.base + place, size) for place, size in pieces])
        return b"".join(value.to_bytes(size, self._native) for (_, size), value in zip(pieces, values, strict=True))

    def write_block(self, data: bytes) -> None:
        """Post a write of the window's beginning, in memory space and where accesses may be of any width."""
        self.wire.write_block(self.base, data)

    def write_bytes(self, offset: int, data: bytes) -> None:
        """Post a write of a stretch, likewise.

        :raises UsageError: when it goes beyond the window's end: something else is there.
        """
        end = offset + len(data)
        if end > self.length:
            raise UsageError(
                f"{len(data)} bytes can't be written at {offset:#x}: the {self.title} is {self.length:#x} bytes long"
            )
        for place, size in _pieces(offset, end):
            value = int.from_bytes(data[place - offset : place - offset + size], self._native)
            self.wire.write(self.space, self.base + place, size, value)

    def _turned(self, value: int, size: int) -> int:
        """A register's value for a number on the wire, and the other way."""
        if self._native == self._order:
            return value
        return int.from_bytes(value.to_bytes(size, self._native), self._order)


def _pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Aligned pieces of 4, 2 or 1 bytes that cover a stretch."""
    while start < end:
        size = next(size for size in (4, 2, 1) if start % size == 0 and start + size <= end)
        yield start, size
        start += size
