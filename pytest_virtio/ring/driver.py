"""What every ring can do for a driver, and the values that go in and come out.

Responsible for the interface that split and packed rings share, and for what makes a chain well-formed; must not know
how either lies in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pytest_virtio.errors import QueueFullError, UsageError
from pytest_virtio.spec.ring import DESCRIPTOR_SIZE, Areas, DescriptorFlag

__all__ = (
    "DriverRing",
    "Buffer",
    "Used",
    # For the rings themselves
    "Row",
    "check_areas",
    "check_room",
    "descriptor_rows",
    "indirect_row",
    "pack_descriptor",
    "writable_bytes",
)

_WRITE = int(DescriptorFlag.WRITE)
_INDIRECT = int(DescriptorFlag.INDIRECT)

Row = tuple[int, int, int]
"""Address, length and flags of a descriptor to be."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """A piece of guest memory, at ``address`` and ``length`` bytes long.

    :param device_writes: the device writes it; otherwise it reads it.
    """

    address: int
    length: int
    device_writes: bool = False


@dataclass(frozen=True, slots=True)
class Used:
    """A chain that the device has given back.

    :param token: what ``add`` returned for it.
    :param length: how many bytes the device says it has written, from the first writable one on. It is the device's
        word, 32 bits wide, and nobody has compared it with the buffers.
    """

    token: int
    length: int


class DriverRing(Protocol):
    """A virtqueue, seen from the driver: ``SplitRing`` or ``PackedRing``.

    Whatever the device writes into the ring, methods return or raise in bounded time; after a RingError the ring's
    own accounts are as before the call, so that the same call raises again for as long as the memory stays as it is.

    On hosts that order writes as x86 does, each write is seen after those before it. Other hosts need a barrier
    between a ring's writes and the notification: the system call or lock of the notification itself is one. A device
    that polls without notifications has no such barrier there.
    """

    @property
    def size(self) -> int:
        """How many descriptors the ring has."""

    @property
    def areas(self) -> Areas:
        """Where it lies."""

    @property
    def free(self) -> int:
        """How many descriptors are not in use."""

    def add(self, buffers: Sequence[Buffer], indirect_table: int | None = None) -> int:
        """Put a chain into the ring; the device sees it after :meth:`publish`.

        :param buffers: those that the device reads, then those that it writes: 1 to ``size``.
        :param indirect_table: address of 16 bytes for each buffer. With it the chain takes one descriptor of the ring
            and the others lie there, to be left alone until the chain comes back.
        :return: a token, by which :meth:`take_used` names the chain. It is used anew once the chain came back.
        :raises UsageError: the chain is malformed, or a number doesn't fit its field; nothing was added.
        :raises QueueFullError: there are fewer free descriptors than the chain needs; nothing was added.
        """

    def publish(self) -> bool:
        """Make everything added visible to the device, in one step.

        :return: whether the device wants to be notified of it; ``False`` if nothing was added.
        :raises RingError: what the device wrote about that makes no sense; the chains are visible all the same.
        """

    def take_used(self) -> Used | None:
        """Return the next chain that the device has given back, or ``None`` when there is none now.

        In-order devices may name the last chain of a batch alone (2.7.9, 2.8.8). The others of the batch come back
        before it, each with the length of all its writable buffers: the specification wants it assumed that the
        device has used them completely.

        :raises RingError: what the device wrote makes no sense.
        """

    def suppress_interrupts(self, suppress: bool) -> None:
        """Tell the device whether to leave interrupts out. It is a hint: interrupts can come all the same.

        With the event index, "not suppressed" asks for an interrupt at the next chain given back after those that
        were taken; :meth:`take_used` moves that on. A chain may have come back meanwhile: look once more before you
        wait for an interrupt (2.7.14, 2.8.22).
        """

    def notification(self) -> int:
        """Return ``next_off`` and ``next_wrap``, the upper 16 bits of a notification with data (2.9)."""


def writable_bytes(buffers: Sequence[Buffer], size: int) -> int:
    """Check the chain's shape for a ring of ``size``, and return how many bytes the device may write (2.7.4, 2.7.5.3).

    :raises UsageError: it is empty or longer than the ring, or a readable buffer stands after a writable one.
    """
    if not 0 < len(buffers) <= size:
        raise UsageError(f"a chain has 1 to {size} buffers on this queue, not {len(buffers)}")
    total, writable_at = 0, None
    for position, buffer in enumerate(buffers):
        if buffer.device_writes:
            total += buffer.length
            writable_at = position
        elif writable_at is not None:
            raise UsageError(
                f"buffers that the device reads come before those that it writes: number {position} is read, "
                f"number {writable_at} written"
            )
    return total


def descriptor_rows(buffers: Sequence[Buffer]) -> list[Row]:
    """Turn buffers into descriptors that aren't linked yet."""
    return [(buffer.address, buffer.length, _WRITE if buffer.device_writes else 0) for buffer in buffers]


def indirect_row(table: int, entries: int) -> Row:
    """Make the descriptor of an indirect table (2.7.5.3, 2.8.7)."""
    return table, DESCRIPTOR_SIZE * entries, _INDIRECT


def pack_descriptor(layout: struct.Struct, address: int, length: int, third: int, fourth: int) -> bytes:
    """Make a descriptor of either kind: they differ in the last two fields.

    :raises UsageError: a number doesn't fit its field.
    """
    try:
        return layout.pack(address, length, third, fourth)
    except struct.error as error:
        raise UsageError(
            f"a descriptor has 64 bits for the address ({address:#x}), 32 for the length ({length:#x}) and 16 for each "
            f"of the other fields ({third:#x}, {fourth:#x})"
        ) from error


def check_room(needed: int, free: int, size: int) -> None:
    """See to it that a chain fits now.

    :raises QueueFullError: it doesn't.
    """
    if needed > free:
        raise QueueFullError(
            f"the queue is full: {free} of {size} descriptors are free; {needed} wanted", seen=str(free)
        )


def check_areas(areas: Areas, alignment: tuple[int, int, int]) -> None:
    """See to it that the driver's MUST on alignment holds (2.7.1, 2.8.11).

    :raises UsageError: it doesn't.
    """
    for name, multiple in zip(("descriptors", "driver", "device"), alignment, strict=True):
        address = getattr(areas, name)
        if address % multiple:
            raise UsageError(f"areas.{name} has to be a multiple of {multiple}: {address:#x}")
