"""Guest RAM: one memory file that we create, pass to QEMU and map ourselves.

Responsible for its life and for bounded access by guest-physical address; must not know what lies in it. QEMU may
change every byte at any time, and the mapping can't be pulled away under us: the file is sealed against shrinking.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterable
from types import TracebackType

from pytest_virtio.errors import UsageError
from pytest_virtio.model.memory import RamPiece, offset_of

__all__ = ("LOW_MEMORY", "GuestMemory")

LOW_MEMORY = 2 << 30
"""RAM below this has the same address in the file and in the guest, on every x86 machine of QEMU's: above some limit
the rest is moved beyond 4 GiB, and the lowest such limit is q35's, 2 GiB."""


class GuestMemory:
    """The RAM of one VM: a sealed memory file and our mapping of it."""

    source = "guest RAM"
    """By which way it is read: no other than itself."""

    def __init__(self, size: int) -> None:
        """Create ``size`` bytes of RAM, some number of pages; nothing is allocated until it is written."""
        self.size = min(size, LOW_MEMORY)
        """How much of it can be accessed from address 0 on, as long as nobody knows where the rest lies."""
        self._pieces: tuple[RamPiece, ...] = ()
        self._complete = size <= LOW_MEMORY
        self.fd = os.memfd_create("pytest-virtio-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            # A mapped page that is no more would be a SIGBUS for us.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._map = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise
        # An item of a memoryview is copied by a memcpy of 2 constant bytes, which compilers make one instruction; at
        # an even address the processor does that at once, so neither side ever sees half an index. (A slice of mmap
        # is a memcpy of any length, which may well go byte by byte.)
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("H")

    @property
    def complete(self) -> bool:
        """Whether it is known where all of it lies: what is beyond 2 GiB has other addresses in the guest."""
        return self._complete

    def place(self, pieces: Iterable[RamPiece]) -> None:
        """Say where it lies, once for all, by offsets in the file; what does not lie in the file is left out."""
        length = len(self._map)
        self._pieces = tuple(p for p in pieces if p.address >= 0 <= p.offset and p.offset + p.size <= length)
        self._complete = True

    def has(self, address: int, length: int) -> bool:
        """Whether ``length`` bytes from guest-physical ``address`` are all in one piece of it."""
        return self._find(address, length) is not None

    def read(self, address: int, length: int) -> bytes:
        """Copy ``length`` bytes from guest-physical ``address``.

        :raises UsageError: when they are not all in one piece of RAM.
        """
        start = self._offset(address, length)
        return self._map[start : start + length]

    def write(self, address: int, data: bytes) -> None:
        """Copy ``data`` to guest-physical ``address``.

        :raises UsageError: when it does not all fit into one piece of RAM.
        """
        start = self._offset(address, len(data))
        self._map[start : start + len(data)] = data

    def load16(self, address: int) -> int:
        """Read 16 bits at once, little-endian as guest and host are.

        :raises UsageError: outside of RAM, or at an odd address.
        """
        # The fast way first: a driver that polls comes here all the time.
        if address & 1 or not 0 <= address < self.size:
            return self._words[self._even_offset(address)]
        return self._words[address >> 1]

    def store16(self, address: int, value: int) -> None:
        """Write 16 bits at once, little-endian.

        :raises UsageError: outside of RAM, or at an odd address.
        """
        if address & 1 or not 0 <= address < self.size:
            self._words[self._even_offset(address)] = value
            return
        self._words[address >> 1] = value

    def close(self) -> None:
        """Unmap and forget it; QEMU keeps its own. May be called again. From now on every access is a UsageError."""
        if self._map.closed:
            return
        self.size, self._pieces = 0, ()
        self._words.release()
        self._bytes.release()
        self._map.close()
        os.close(self.fd)

    def __enter__(self) -> GuestMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _offset(self, address: int, length: int) -> int:
        """Where these bytes stand in the file.

        :raises UsageError: when they are not all in one piece.
        """
        offset = self._find(address, length)
        if offset is None:
            raise self._outside(address, length)
        return offset

    def _find(self, address: int, length: int) -> int | None:
        if address >= 0 and 0 <= length <= self.size - address:
            return address
        return offset_of(self._pieces, address, length)

    def _even_offset(self, address: int) -> int:
        """Likewise of 16 bits, in halfwords."""
        offset = self._offset(address, 2)
        if (address | offset) & 1:
            raise self._outside(address, 2)
        return offset >> 1

    def _outside(self, address: int, length: int) -> UsageError:
        what = f"guest RAM: {length} bytes at {address:#x} can't be accessed"
        if self._map.closed:
            return UsageError(f"{what}: the VM has ended")
        odd = " (16 bits need an even address)" if address & 1 and length == 2 else ""
        above = (f", {p.address:#x} to {p.address + p.size:#x}" for p in self._pieces if p.address >= self.size)
        return UsageError(f"{what}: it is 0x0 to {self.size:#x}{''.join(above)} here{odd}")
