"""The packed virtqueue (virtio 1.3 section 2.8), from the driver's side.

Responsible for the descriptor ring and the event suppression structures; must not know split rings.

A place in the ring is counted over two laps: 0 to size - 1 is the lap with wrap counter 1, size to 2 * size - 1 the
one with 0. So one number is position and wrap counter (2.8.1) in one, and moving on is an addition.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from typing import Final

from pytest_virtio.errors import RingError, UsageError
from pytest_virtio.ring.driver import (
    Buffer,
    Row,
    Used,
    check_areas,
    check_room,
    descriptor_rows,
    indirect_row,
    pack_descriptor,
    writable_bytes,
)
from pytest_virtio.ring.in_flight import Chain, account
from pytest_virtio.ring.memory import Memory
from pytest_virtio.spec.ring import (
    DESCRIPTOR_SIZE,
    PACKED_ALIGNMENT,
    PACKED_DESCRIPTOR,
    Areas,
    DescriptorFlag,
    RingEvent,
    available_flags,
    packed_sizes,
    used_flags,
)

__all__ = ("PackedRing",)

_NEXT = int(DescriptorFlag.NEXT)
_MARKS = int(DescriptorFlag.AVAIL | DescriptorFlag.USED)
_ENABLE, _DISABLE, _DESC = int(RingEvent.ENABLE), int(RingEvent.DISABLE), int(RingEvent.DESC)

_LENGTH_AND_ID: Final = struct.Struct("<IH")
_LENGTH_AT, _FLAGS_AT = 8, 14


class PackedRing:
    """A packed virtqueue; see :class:`~pytest_virtio.ring.driver.DriverRing`. Its tokens are buffer ids.

    The length of a used descriptor counts whether it carries VIRTQ_DESC_F_WRITE or not: the specification reserves it
    without that flag (2.8.4), but QEMU never sets the flag there, and Linux doesn't look at it.

    :param memory: the guest's RAM.
    :param areas: where the ring goes; it is zeroed.
    :param size: entries, 1 to 32768.
    :param event_idx: VIRTIO_F_EVENT_IDX was negotiated.
    :param in_order: VIRTIO_F_IN_ORDER was negotiated.
    :raises UsageError: the size is impossible or an area is not aligned.
    """

    def __init__(
        self, memory: Memory, areas: Areas, size: int, *, event_idx: bool = False, in_order: bool = False
    ) -> None:
        check_areas(areas, PACKED_ALIGNMENT)
        self.size, self.areas, self.free = size, areas, size
        self._memory, self._event_idx = memory, event_idx
        self._ids = deque(range(size))
        self._flight = account(in_order)
        self._lap = available_flags(True), available_flags(False)
        # Where the next descriptor goes, the next that the device doesn't see yet, and the next that it will use.
        self._next = self._published = self._used = 0
        # Address and value of the flags that hide everything added: 2.8.6 has the head's flags written last.
        self._hidden: tuple[int, int] | None = None
        self._events = _ENABLE
        for address, length in zip((areas.descriptors, areas.driver, areas.device), packed_sizes(size), strict=True):
            memory.write(address, bytes(length))

    def add(self, buffers: Sequence[Buffer], indirect_table: int | None = None) -> int:
        """Put a chain into the ring; see :meth:`DriverRing.add`."""
        writable = writable_bytes(buffers, self.size)
        rows = descriptor_rows(buffers)
        check_room(len(rows) if indirect_table is None else 1, self.free, self.size)
        if indirect_table is not None:
            # 2.8.7: WRITE is the only flag there, and ids are not looked at.
            table = b"".join(pack_descriptor(PACKED_DESCRIPTOR, *row[:2], 0, row[2]) for row in rows)
            self._memory.write(indirect_table, table)
            rows = [indirect_row(indirect_table, len(rows))]
        token = self._ids[0]
        self._write_chain(token, rows)
        self._ids.popleft()
        self._stage(Chain(token, range(len(rows)), writable))
        return token

    def publish(self) -> bool:
        """Make everything added visible; see :meth:`DriverRing.publish`."""
        if not self._flight.staged:
            return False
        if self._hidden is not None:
            self._memory.store16(*self._hidden)
            self._hidden = None
        first, self._published = self._published, self._next
        added = sum(len(chain.descriptors) for chain in self._flight.staged)
        self._flight.hand_over()
        return self._wants_notification(first, added)

    def take_used(self) -> Used | None:
        """Return the next chain that the device has given back; see :meth:`DriverRing.take_used`."""
        if not self._flight.due and not self._look():
            return None
        chain, length = self._flight.take()
        if not chain.raw:
            self._ids.append(chain.token)
        self.free += len(chain.descriptors)
        self._used = (self._used + len(chain.descriptors)) % (2 * self.size)
        if self._events == _DESC:
            self._set_event_place()
        return Used(chain.token, length)

    def suppress_interrupts(self, suppress: bool) -> None:
        """Tell the device whether to leave interrupts out; see :meth:`DriverRing.suppress_interrupts`."""
        self._events = _DISABLE if suppress else _DESC if self._event_idx else _ENABLE
        if self._events == _DESC:
            self._set_event_place()
        self._memory.store16(self.areas.driver + 2, self._events)

    def notification(self) -> int:
        """Return the upper 16 bits of a notification with data: the place of the next descriptor that the device
        doesn't see yet, and in bit 15 the wrap counter there (2.8.16, 2.9)."""
        return self._off_wrap(self._published)

    def write_descriptor(self, position: int, address: int, length: int, buffer_id: int, flags: int) -> None:
        """Write a descriptor by hand, however wrong; the device sees it at once if the flags make it available.

        :param position: 0 to ``size`` - 1. :meth:`notification` tells where the device looks next.
        :param flags: with AVAIL or USED (:func:`~pytest_virtio.spec.ring.available_flags`).
        :raises UsageError: there is no such descriptor, or a number doesn't fit its field.
        """
        if not 0 <= position < self.size:
            raise UsageError(f"the ring has descriptors 0 to {self.size - 1}, not {position}")
        descriptor = pack_descriptor(PACKED_DESCRIPTOR, address, length, buffer_id, flags)
        head = self.areas.descriptors + DESCRIPTOR_SIZE * position
        self._memory.write(head, descriptor[:_FLAGS_AT])
        self._memory.store16(head + _FLAGS_AT, flags)

    def expose(self, buffer_id: int, descriptors: int = 1) -> None:
        """Count the next descriptors as a chain that was added, whatever stands there: they were written by hand, or
        will be before :meth:`publish`. If the device gives the id back, :meth:`take_used` returns it as a token.

        :param buffer_id: 16 bits.
        :raises QueueFullError: so many are not free.
        """
        check_room(descriptors, self.free, self.size)
        self._stage(Chain(buffer_id & 0xFFFF, range(descriptors), 0, raw=True))

    def _write_chain(self, token: int, rows: list[Row]) -> None:
        """Write descriptors from the next place on, the first of them hidden unless one before hides it."""
        size, start, last = self.size, self._next, len(rows) - 1
        data = bytearray()
        for position, (address, length, flags) in enumerate(rows):
            wrapped = (start + position) // size & 1
            flags |= self._lap[wrapped] if position == last else self._lap[wrapped] | _NEXT  # noqa: PLW2901
            data += pack_descriptor(PACKED_DESCRIPTOR, address, length, token, flags)
        head = self.areas.descriptors + DESCRIPTOR_SIZE * (start % size)
        hidden = self._hidden
        if hidden is None:
            hidden = head + _FLAGS_AT, int.from_bytes(data[_FLAGS_AT:DESCRIPTOR_SIZE], "little")
            # As the device left it a lap ago: used, and not available in this lap.
            data[_FLAGS_AT:DESCRIPTOR_SIZE] = used_flags(start >= size).to_bytes(2, "little")
        to_end = DESCRIPTOR_SIZE * (size - start % size)
        self._memory.write(head, bytes(data[:to_end]))
        if len(data) > to_end:
            self._memory.write(self.areas.descriptors, bytes(data[to_end:]))
        self._hidden = hidden

    def _stage(self, chain: Chain) -> None:
        self.free -= len(chain.descriptors)
        self._next = (self._next + len(chain.descriptors)) % (2 * self.size)
        self._flight.staged.append(chain)

    def _wants_notification(self, first: int, added: int) -> bool:
        """Judge the device's event suppression structure after ``added`` descriptors from ``first`` on (2.8.10)."""
        events = self._memory.load16(self.areas.device + 2) & 3
        if events in {_ENABLE, _DISABLE}:
            return events == _ENABLE
        if events != _DESC or not self._event_idx:
            raise self._wrong_event("flags", 2, "0 (ENABLE), 1 (DISABLE)" + ", 2 (DESC)" * self._event_idx, events)
        off_wrap = self._memory.load16(self.areas.device)
        offset, wrap = off_wrap & 0x7FFF, off_wrap >> 15
        if offset >= self.size:
            raise self._wrong_event("desc_event_off", 0, f"0 to {self.size - 1}", offset)
        event = offset if wrap else offset + self.size
        return (event - first) % (2 * self.size) < added

    def _wrong_event(self, field: str, offset: int, expected: str, seen: int) -> RingError:
        return RingError(
            "the device's event suppression structure makes no sense",
            register=f"{field} at {self.areas.device + offset:#x}",
            expected=expected,
            seen=str(seen),
        )

    def _look(self) -> bool:
        """Read the next used descriptor, if there is one, and note which chains are due by it."""
        position = self._used % self.size
        address = self.areas.descriptors + DESCRIPTOR_SIZE * position
        flags = self._memory.load16(address + _FLAGS_AT)
        if flags & _MARKS != used_flags(self._used < self.size):
            return False
        length, token = _LENGTH_AND_ID.unpack(self._memory.read(address + _LENGTH_AT, _LENGTH_AND_ID.size))
        batch = self._flight.batch(token)
        if not batch:
            raise RingError(
                "a used descriptor names a buffer that the device doesn't have",
                register=f"descriptor {position}, id at {address + _LENGTH_AT + 4:#x} (flags {flags:#06x})",
                expected=self._flight.expected(),
                seen=str(token),
            )
        self._flight.give_back(token, length, batch)
        return True

    def _set_event_place(self) -> None:
        self._memory.store16(self.areas.driver, self._off_wrap(self._used))

    def _off_wrap(self, place: int) -> int:
        return place | 0x8000 if place < self.size else place - self.size
