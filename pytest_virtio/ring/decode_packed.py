"""A packed virtqueue decoded from guest RAM (virtio 1.3 section 2.8).

Responsible for the descriptor ring, its wrap counters and the event suppression structures; see ``decode`` for what
decoding promises. Whose turn a descriptor is shows only in comparison with a wrap counter, and those are told nowhere:
they follow from the device's positions and from what it has marked used, and without positions not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pytest_virtio.model.ring import ElementState, Ring, RingElement
from pytest_virtio.ring.chains import Chain, Tables
from pytest_virtio.ring.told import Area, ReadableMemory, Told, read_area
from pytest_virtio.spec.ring import (
    DESCRIPTOR_SIZE,
    PACKED_DESCRIPTOR,
    DescriptorFlag,
    RingEvent,
    available_flags,
    used_flags,
)

__all__ = ("decode",)

TRIES = 4
"""How often a ring is read that changes meanwhile."""
_EVENT_SIZE = 4
_NEXT, _INDIRECT = int(DescriptorFlag.NEXT), int(DescriptorFlag.INDIRECT)
_AVAIL, _USED = int(DescriptorFlag.AVAIL), int(DescriptorFlag.USED)
_MARKS = _AVAIL | _USED
_SHOWN = _MARKS | _NEXT | _INDIRECT | int(DescriptorFlag.WRITE)

Row = tuple[int, int, int, int]
"""addr, len, id and flags."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Chains that lie one after the other: ``elements``, and the place behind the last."""

    elements: tuple[RingElement, ...]
    end: int


def decode(memory: ReadableMemory, told: Told) -> Ring:
    """Decode a ring of 1 to 32768 entries."""
    try:
        for _ in range(TRIES):
            data, steady = _read(memory, told)
            ring = _ring(memory, told, data)
            # Its indirect tables are looked into last; the driver keeps them until the device gives something back.
            if steady and _is_unused(memory, told, data):
                return ring
    except Area as why:
        return told.ring(faults=(str(why),))
    return replace(ring, faults=(*ring.faults, f"it changed while it was read, {TRIES} times"))


def _ring(memory: ReadableMemory, told: Told, data: bytes) -> Ring:
    faults: list[str] = []
    events = [_event(memory, told, area, faults) for area in (told.areas.driver, told.areas.device)]
    elements, untold = _elements(_Descriptors(Tables(memory), data), told, faults)
    (no_interrupt, used_event), (no_notify, avail_event) = events
    return told.ring(
        used_idx=told.used_idx,
        no_interrupt=no_interrupt,
        no_notify=no_notify,
        used_event=used_event,
        avail_event=avail_event,
        elements=tuple(elements),
        untold=untold,
        faults=tuple(faults),
    )


def _read(memory: ReadableMemory, told: Told) -> tuple[bytes, bool]:
    """The descriptor ring, and whether it is of one moment: there is no index whose standing still would show that."""
    what = "the descriptor ring", told.areas.descriptors, DESCRIPTOR_SIZE * told.num
    data = read_area(memory, *what)
    return data, read_area(memory, *what) == data


def _is_unused(memory: ReadableMemory, told: Told, data: bytes) -> bool:
    """Whether the device has given nothing back since: it would have written that where its used index is (2.8.6)."""
    if told.used_idx is None or told.used_idx >= told.num:
        return True
    offset = DESCRIPTOR_SIZE * told.used_idx
    now = read_area(memory, "the descriptor ring", told.areas.descriptors + offset, DESCRIPTOR_SIZE)
    return now == data[offset : offset + DESCRIPTOR_SIZE]


def _event(memory: ReadableMemory, told: Told, area: int, faults: list[str]) -> tuple[bool | None, int | None]:
    """Whether all notifications are unwanted, and the position of the one that is wanted (2.8.10)."""
    what = "the driver's" if area == told.areas.driver else "the device's"
    data = read_area(memory, f"{what} event suppression structure", area, _EVENT_SIZE)
    place, flags = int.from_bytes(data[:2], "little"), data[2] & 3
    if flags == RingEvent.DESC and told.event_idx:
        return False, place & 0x7FFF
    if flags > RingEvent.DISABLE:
        faults.append(f"{what} event suppression flags are {flags}, which mean nothing here")
        return None, None
    return flags == RingEvent.DISABLE, None


class _Descriptors:
    """The descriptor ring. A place is a position in two laps: below num with a wrap counter of 1, from there on 0."""

    def __init__(self, tables: Tables, data: bytes) -> None:
        self._tables = tables
        self.rows: tuple[Row, ...] = tuple(PACKED_DESCRIPTOR.iter_unpack(data))
        self.num = len(self.rows)

    def is_available(self, place: int) -> bool:
        """Whether the driver has made it available in this lap (2.8.1)."""
        return self._marks(place) == available_flags(place < self.num)

    def is_used(self, place: int) -> bool:
        """Whether the device has marked it used in this lap; zeros are what no one has written."""
        return self._marks(place) == used_flags(place < self.num) and any(self.rows[place % self.num])

    def _marks(self, place: int) -> int:
        return self.rows[place % self.num][3] & _MARKS

    def wrap_at(self, used_idx: int) -> int:
        """The place of the device's used index.

        Behind it are, in the same lap, what the device has used and what the driver has made available, of which the
        device marks the first of each chain only; or, where the driver is a whole lap ahead, that lap's.
        """
        for back in range(1, self.num + 1):
            marks = self.rows[(used_idx - back) % self.num][3] & _MARKS
            if marks in (0, _MARKS):
                same_lap = back <= used_idx
                return used_idx if bool(marks) == same_lap else used_idx + self.num
        # All is the device's.
        return used_idx if self.rows[used_idx][3] & _AVAIL else used_idx + self.num

    def chains(self, start: int, most: int, state: ElementState) -> _Stretch:
        """Follow chains from a place on, as long as they are available and over ``most`` descriptors."""
        place, end, elements = start, start + most, []
        while place < end and self.is_available(place % (2 * self.num)):
            element, place = self._chain(place, end, state)
            elements.append(element)
        return _Stretch(tuple(elements), place)

    def _chain(self, place: int, end: int, state: ElementState) -> tuple[RingElement, int]:
        chain, slot, flags, id = Chain(), place % self.num, _NEXT, 0
        while flags & _NEXT and place < end:
            address, length, id, flags = self.rows[place % self.num]
            place += 1
            if flags & _INDIRECT:
                chain.faults.extend(["it has both INDIRECT and NEXT"] if flags & _NEXT else [])
                self._tables.add_packed(address, length, PACKED_DESCRIPTOR, chain)
            else:
                chain.add(address, length, flags & _SHOWN)
        if flags & _NEXT:
            chain.faults.append("it does not end: its last descriptor here says that there is a next one")
        return chain.element(id, slot, state), place

    def used(self, place: int) -> Iterator[RingElement]:
        """What the device has used, back from its used index: as far as the driver has not taken the places again."""
        for back in range(1, self.num + 1):
            before = (place - back) % (2 * self.num)
            if self.is_used(before):
                _, length, id, _ = self.rows[before % self.num]
                yield RingElement(id, before % self.num, "used", (), False, length)


def _elements(descriptors: _Descriptors, told: Told, faults: list[str]) -> tuple[list[RingElement], int]:
    """The elements, and how many more are in flight of which the ring no longer tells."""
    used_idx, last = told.used_idx, told.last_avail_idx
    if used_idx is None or last is None:
        faults.append("the device's positions and wrap counters are not told: neither is what is outstanding")
        return [], 0
    if max(used_idx, last) >= told.num:
        faults.append(f"used_idx {used_idx} and last_avail_idx {last} are positions in a ring of {told.num}")
        return [], 0
    place = descriptors.wrap_at(used_idx)
    taken = (last - used_idx) % told.num
    if taken == 0 and told.inuse:
        taken = told.num
    in_flight, untold = _in_flight(descriptors, told, place, taken, faults)
    pending = descriptors.chains((place + taken) % (2 * told.num), told.num - taken, "pending")
    return [*in_flight, *pending.elements, *descriptors.used(place)], untold


def _in_flight(
    descriptors: _Descriptors, told: Told, place: int, taken: int, faults: list[str]
) -> tuple[tuple[RingElement, ...], int]:
    """What the device has taken, and how much more of it there is. It writes what it gives back over the first
    descriptors that it took, so of chains that it gave back in another order nothing may be left."""
    stretch = descriptors.chains(place, taken, "in_flight")
    elements = stretch.elements
    if not told.in_order:
        back = [element.head for _, element in zip(elements, descriptors.used(place), strict=False)]
        ids = [element.head for element in elements]
        elements = tuple(e for e in elements if e.head not in back and ids.count(e.head) == 1)
    missing = (len(stretch.elements) if told.inuse is None else told.inuse) - len(elements)
    if missing <= 0 and stretch.end != place + taken:
        faults.append("more may be in flight; which ones is not told")
    return elements, max(missing, 0)
