"""A window of registers: named places from some base address on, in memory or I/O space.

Responsible for turning a register into operations of the wire and for its name in messages; must not know any one
register.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_virtio.spec.transport.register import Register
from pytest_virtio.vm.qtest import Qtest, Read, Space, Write

__all__ = ("Window",)

MOST_QUEUES = 1024
QUEUES_AT_ONCE = 8


class Window:
    """Registers from ``base`` on.

    :param title: what the window is called in messages: ``"common configuration"``.
    """

    def __init__(self, wire: Qtest, space: Space, base: int, title: str) -> None:
        self.wire, self.space, self.base, self.title = wire, space, base, title

    def name(self, register: Register) -> str:
        """``device_status (common configuration + 0x14, at 0xe0000014)``"""
        return f"{register.name} ({self.title} + {register.offset:#x}, at {self.base + register.offset:#x})"

    def get(self, register: Register) -> int:
        """Read a register, after all posted writes."""
        return self.wire.read(self.space, self.base + register.offset, register.size)

    def put(self, register: Register, value: int) -> None:
        """Post a write of a register."""
        self.wire.write(self.space, self.base + register.offset, register.size, value)

    def put_wide(self, halves: tuple[Register, Register], value: int) -> None:
        """Post a write of 64 bits as two of 32."""
        self.put(halves[0], value & 0xFFFFFFFF)
        self.put(halves[1], value >> 32)

    def reading(self, register: Register) -> Read:
        """The operation that reads a register."""
        return Read(self.space, self.base + register.offset, register.size)

    def writing(self, register: Register, value: int) -> Write:
        """The operation that writes a register."""
        return Write(self.space, self.base + register.offset, register.size, value)

    def exchange(self, operations: Sequence[Read | Write]) -> list[int]:
        """Do several operations in one conversation; what was read."""
        return self.wire.exchange(operations)

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
        """Read a stretch by the widest aligned accesses that fit, 4 bytes at the most."""
        pieces = list(_pieces(offset, length))
        values = self.exchange([Read(self.space, self.base + place, size) for place, size in pieces])
        return b"".join(value.to_bytes(size, "little") for (_, size), value in zip(pieces, values, strict=True))

    def write_bytes(self, offset: int, data: bytes) -> None:
        """Post a write of a stretch, likewise."""
        for place, size in _pieces(offset, len(data)):
            value = int.from_bytes(data[place - offset : place - offset + size], "little")
            self.wire.write(self.space, self.base + place, size, value)


def _pieces(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Aligned pieces of 4, 2 or 1 bytes that cover a stretch."""
    end = offset + length
    while offset < end:
        size = next(size for size in (4, 2, 1) if offset % size == 0 and offset + size <= end)
        yield offset, size
        offset += size
