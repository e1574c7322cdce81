"""Guest RAM that is not our mapping, read from the memory of its QEMU.

Responsible for bounded reads by guest-physical address; must not know who told where the pieces are, nor what lies in
them. RAM that is unplugged or moved after that was told is read as whatever QEMU has in its place, or not at all; a
read of RAM that a post-copy migration has not brought yet waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from pytest_virtio.errors import UsageError
from pytest_virtio.model.memory import RamPiece, offset_of
from pytest_virtio.vm.process_memory import ProcessMemory

__all__ = ("ForeignMemory",)

LOOKS = 8
"""At a value that changes all the time; the last one is taken."""


class ForeignMemory:
    """The RAM of one VM, for reading only. Every method raises what :meth:`ProcessMemory.read` does.

    :param pieces: of RAM; the offset of each is its address in QEMU's process.
    """

    source = "guest RAM by /proc/PID/mem"
    """By which way it is read."""

    def __init__(self, process: ProcessMemory, pieces: Iterable[RamPiece]) -> None:
        self._process, self._pieces = process, tuple(pieces)

    @property
    def size(self) -> int:
        """Where the highest piece ends: from here on there is no RAM."""
        return max((piece.address + piece.size for piece in self._pieces), default=0)

    def read(self, address: int, length: int) -> bytes:
        """Copy ``length`` bytes from guest-physical ``address``; while the guest writes they may be of several moments.

        :raises UsageError: when they are not all in one piece of RAM.
        """
        offset = offset_of(self._pieces, address, length)
        if offset is None:
            raise UsageError(f"guest RAM: {length} bytes at {address:#x} can't be accessed: it is {self._said()} here")
        return self._process.read(offset, length)

    def load16(self, address: int) -> int:
        """Read 16 bits, little-endian.

        The kernel may copy them byte by byte (Linux has such a memcpy on x86), so one look can meet the halves of two
        values. The next begins when the guest's store is over, so of two that agree both are whole; they could agree on
        a mixture only if by then the index had gone on to just that.

        :raises UsageError: outside of RAM, or at an odd address.
        """
        if address & 1:
            raise UsageError(f"guest RAM: 16 bits at {address:#x} can't be read: they need an even address")
        looked = self.read(address, 2)
        for _ in range(LOOKS):
            before, looked = looked, self.read(address, 2)
            if before == looked:
                break
        return int.from_bytes(looked, "little")

    def _said(self) -> str:
        return ", ".join(f"{p.address:#x} to {p.address + p.size:#x}" for p in self._pieces) or "none is known"
