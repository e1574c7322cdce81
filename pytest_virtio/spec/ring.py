"""Virtqueues as they lie in guest memory: split (virtio 1.3 section 2.7) and packed (2.8).

Responsible for structures, flags, sizes, alignments and the rules of notification; must not know how a driver keeps
account of a ring, nor reach any memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from types import MappingProxyType
from typing import Final

from pytest_virtio.errors import UsageError

__all__ = (
    # Where a ring lies
    "Areas",
    "split_sizes",
    "packed_sizes",
    "legacy_areas",
    "legacy_size",
    "avail_event_offset",
    "used_event_offset",
    # What stands in it
    "AvailFlag",
    "DescriptorFlag",
    "RingEvent",
    "UsedFlag",
    "available_flags",
    "used_flags",
    # Structures
    "PACKED_DESCRIPTOR",
    "SPLIT_DESCRIPTOR",
    "USED_ELEMENT",
    # Numbers
    "DESCRIPTOR_SIZE",
    "LEGACY_ALIGN",
    "MAX_SIZE",
    "PACKED_ALIGNMENT",
    "SPLIT_ALIGNMENT",
)

MAX_SIZE: Final = 32768
"""The most entries of a queue of either kind (2.7, 2.8)."""

DESCRIPTOR_SIZE: Final = 16
"""Bytes of a descriptor of either kind (2.7.5, 2.8.13)."""

SPLIT_ALIGNMENT: Final = (16, 2, 4)
"""Alignments of descriptor table, available ring and used ring (2.7)."""

PACKED_ALIGNMENT: Final = (16, 4, 4)
"""Alignments of descriptor ring, driver and device event suppression (2.8.10.1)."""

LEGACY_ALIGN: Final = 4096
"""Queue Align of legacy PCI and, by default, legacy MMIO (2.7.2, 4.1.5.1.3.1)."""

SPLIT_DESCRIPTOR: Final = MappingProxyType({"little": struct.Struct("<QIHH"), "big": struct.Struct(">QIHH")})
"""By byte order: addr, len, flags, next (2.7.5)."""

USED_ELEMENT: Final = MappingProxyType({"little": struct.Struct("<II"), "big": struct.Struct(">II")})
"""By byte order: id, len (2.7.8)."""

PACKED_DESCRIPTOR: Final = struct.Struct("<QIHH")
"""addr, len, id, flags (2.8.13)."""


class DescriptorFlag(IntFlag):
    """Flags of a descriptor (2.7.5, 2.8.1 to 2.8.7); AVAIL and USED are for packed rings only."""

    NEXT = 1
    WRITE = 2
    INDIRECT = 4
    AVAIL = 1 << 7
    USED = 1 << 15


_AVAIL, _USED = int(DescriptorFlag.AVAIL), int(DescriptorFlag.USED)


class AvailFlag(IntFlag):
    """Flags of the available ring (2.7.6)."""

    NO_INTERRUPT = 1


class UsedFlag(IntFlag):
    """Flags of the used ring (2.7.8)."""

    NO_NOTIFY = 1


class RingEvent(IntEnum):
    """What an event suppression structure asks for: two bits of its flags (2.8.10). 3 is reserved."""

    ENABLE = 0
    DISABLE = 1
    DESC = 2


@dataclass(frozen=True, slots=True)
class Areas:
    """Guest-physical addresses of a queue's parts, by the names of 2.6.

    :param descriptors: the Descriptor Area: descriptor table or descriptor ring.
    :param driver: the Driver Area: available ring or driver event suppression.
    :param device: the Device Area: used ring or device event suppression.
    """

    descriptors: int
    driver: int
    device: int


def split_sizes(size: int) -> tuple[int, int, int]:
    """Return the bytes of descriptor table, available ring and used ring (2.7).

    :raises UsageError: a size that is no power of two up to 32768.
    """
    if not 0 < size <= MAX_SIZE or size & (size - 1):
        raise UsageError(f"a split virtqueue has a power of two of entries, {MAX_SIZE} at most, not {size}")
    return DESCRIPTOR_SIZE * size, 6 + 2 * size, 6 + 8 * size


def packed_sizes(size: int) -> tuple[int, int, int]:
    """Return the bytes of descriptor ring, driver and device event suppression (2.8.10.1).

    :raises UsageError: a size that is not 1 to 32768.
    """
    if not 0 < size <= MAX_SIZE:
        raise UsageError(f"a packed virtqueue has 1 to {MAX_SIZE} entries, not {size}")
    return DESCRIPTOR_SIZE * size, 4, 4


def legacy_areas(base: int, size: int, align: int = LEGACY_ALIGN) -> Areas:
    """Say where the parts of a legacy queue lie, which is one piece of memory (2.7.2).

    :param base: where it begins.
    :param align: Queue Align, a power of two.
    :raises UsageError: ``base`` is not aligned, or a number is impossible.
    """
    table, avail, _ = split_sizes(size)
    if base % _checked_align(align):
        raise UsageError(f"a legacy virtqueue begins at a multiple of {align}, not at {base:#x}")
    return Areas(base, base + table, base + _aligned(table + avail, align))


def legacy_size(size: int, align: int = LEGACY_ALIGN) -> int:
    """Return the bytes that a legacy queue takes (2.7.2).

    The specification's ALIGN macro there wants ``qalign`` to be a mask, one less than Queue Align.

    :raises UsageError: a number is impossible.
    """
    table, avail, used = split_sizes(size)
    return _aligned(table + avail, _checked_align(align)) + _aligned(used, align)


def used_event_offset(size: int) -> int:
    """Say where in the available ring ``used_event`` stands (2.7.6)."""
    return 4 + 2 * size


def avail_event_offset(size: int) -> int:
    """Say where in the used ring ``avail_event`` stands (2.7.8)."""
    return 4 + 8 * size


def available_flags(wrap: bool) -> int:
    """Return the flags that mark a descriptor available in a lap with this wrap counter (2.8.1)."""
    return _AVAIL if wrap else _USED


def used_flags(wrap: bool) -> int:
    """Return the flags that mark a descriptor used in a lap with this wrap counter (2.8.1)."""
    return _AVAIL | _USED if wrap else 0


def _checked_align(align: int) -> int:
    if align < 4 or align & (align - 1):
        raise UsageError(f"Queue Align is a power of two and at least 4, not {align}")
    return align


def _aligned(length: int, align: int) -> int:
    return (length + align - 1) & -align
