"""Guest RAM as a driver's heap: where rings, requests and messages lie.

Responsible for giving out addresses and taking them back; must not know what is put there.
"""

from __future__ import annotations

from collections import defaultdict

from pytest_virtio.errors import UsageError

__all__ = ("Arena",)

FIRST = 1 << 20
"""Below 1 MiB a PC has holes."""
SMALLEST = 64


class Arena:
    """Blocks of guest RAM, each as large as a power of two and aligned to its size."""

    def __init__(self, end: int) -> None:
        self._next, self._end = FIRST, end
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self._sizes: dict[int, int] = {}

    def allocate(self, size: int, align: int = 1) -> int:
        """A block of at least ``size`` bytes; its contents are what was there before.

        :param align: a power of two.
        :raises UsageError: when guest RAM is used up, or for an impossible number.
        """
        if size < 0 or align < 1 or align & (align - 1):
            raise UsageError(
                f"{size} bytes of guest RAM, aligned to {align}: sizes are 0 or more, alignments powers of 2"
            )
        block = max(SMALLEST, 1 << (max(size, align) - 1).bit_length())
        free = self._free[block]
        address = free.pop() if free else self._fresh(block)
        self._sizes[address] = block
        return address

    def free(self, address: int) -> None:
        """Take a block back; the topmost one serves any size again, so several are best freed from the top down."""
        block = self._sizes.pop(address)
        if address + block == self._next:
            self._next = address
        else:
            self._free[block].append(address)

    def _fresh(self, block: int) -> int:
        address = -(-self._next // block) * block
        if address + block > self._end:
            raise UsageError(
                f"guest RAM is used up: {block:#x} bytes more are wanted of {self._end:#x}; give the VM more by memory="
            )
        self._next = address + block
        return address
