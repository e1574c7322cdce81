"""What a ring needs of guest memory."""

from __future__ import annotations

from typing import Protocol

__all__ = ("Memory",)


class Memory(Protocol):
    """Guest RAM by guest-physical address; every method raises a VirtioError for what is not all in RAM."""

    def read(self, address: int, length: int) -> bytes:
        """Copy ``length`` bytes."""

    def write(self, address: int, data: bytes) -> None:
        """Write bytes; the other side may see them in any order and half done."""

    def load16(self, address: int) -> int:
        """Read a little-endian number of 16 bits in one access."""

    def store16(self, address: int, value: int) -> None:
        """Write a little-endian number of 16 bits in one access."""
