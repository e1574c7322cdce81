"""A split virtqueue decoded from guest RAM (virtio 1.3 section 2.7).

Responsible for its three areas and for which elements are in which state; see ``decode`` for what decoding promises.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from pytest_virtio.model.ring import ElementState, Ring, RingElement
from pytest_virtio.ring.chains import SplitChains, Tables
from pytest_virtio.ring.outstanding import IDX, candidates, held
from pytest_virtio.ring.told import Area, ReadableMemory, Told, read_area
from pytest_virtio.spec.ring import (
    DESCRIPTOR_SIZE,
    SPLIT_DESCRIPTOR,
    AvailFlag,
    UsedFlag,
    avail_event_offset,
    used_event_offset,
)

__all__ = ("decode", "decode_slot")

TRIES = 4
"""How often a ring is read that changes meanwhile."""
CANDIDATES = 8
"""Elements that are shown for those of which the rings do not tell which they are."""
_HEADER = 4
"""Bytes of flags and idx, in either ring."""
_ORDERS = {"little": "<", "big": ">"}


@dataclass(frozen=True, slots=True)
class _Seen:
    """The areas at one moment. ``heads``: the avail ring; ``ids`` and ``lengths``: the used ring, all by slot."""

    table: bytes
    avail_flags: int
    avail_idx: int
    heads: tuple[int, ...]
    used_event: int
    used_flags: int
    used_idx: int
    ids: tuple[int, ...]
    lengths: tuple[int, ...]
    avail_event: int


def decode(memory: ReadableMemory, told: Told) -> Ring:
    """Decode a ring of 1 to 32768 entries."""
    try:
        seen, faults = _read(memory, told)
        return _checked(memory, told, seen, _ring(_chains(memory, told, seen), told, seen, faults))
    except Area as why:
        return told.ring(faults=(str(why),))


def decode_slot(memory: ReadableMemory, told: Told, slot: int) -> tuple[Ring, RingElement | None]:
    """Decode a ring, and the chain of a slot of the avail ring."""
    try:
        seen, faults = _read(memory, told)
        ring = _ring(_chains(memory, told, seen), told, seen, faults)
        place = slot % told.num
        known = (element for element in ring.outstanding if element.slot == place)
        element = next(known, _chains(memory, told, seen).element(seen.heads[place], place, "outstanding"))
        return _checked(memory, told, seen, ring), _settled(element, _given_back(memory, told, seen))
    except Area as why:
        return told.ring(faults=(str(why),)), None


def _checked(memory: ReadableMemory, told: Told, seen: _Seen, ring: Ring) -> Ring:
    back = _given_back(memory, told, seen)
    if not back:
        return ring
    elements, perhaps = (tuple(_settled(one, back) for one in some) for some in (ring.elements, ring.candidates))
    return replace(ring, elements=elements, candidates=perhaps)


def _settled(element: RingElement, back: AbstractSet[int]) -> RingElement:
    """An element, less what an indirect table said that the driver may have freed before it was read: tables are read
    last, and the driver keeps them until the device gives their chains back."""
    return element._replace(descs=(), faults=()) if element.indirect and element.head in back else element


def _given_back(memory: ReadableMemory, told: Told, seen: _Seen) -> AbstractSet[int]:
    """The heads of what the device has given back since the areas were read."""
    used = read_area(memory, "the used ring", told.areas.device, avail_event_offset(told.num) + 2)
    _, used_idx, *pairs, _ = struct.unpack(f"{_ORDERS[told.order]}2H{2 * told.num}IH", used)
    count = min(_distance(seen.used_idx, used_idx), told.num)
    return {pairs[2 * (seen.used_idx + n & IDX) % (2 * told.num)] for n in range(count)}


def _chains(memory: ReadableMemory, told: Told, seen: _Seen) -> SplitChains:
    return SplitChains(Tables(memory), seen.table, SPLIT_DESCRIPTOR[told.order])


def _read(memory: ReadableMemory, told: Told) -> tuple[_Seen, list[str]]:
    """The areas, all of one moment if that can be had.

    :raises Area: when one can't be read.
    """
    faults = [f"num is {told.num}: no power of two"] if told.num & (told.num - 1) else []
    for _ in range(TRIES):
        areas = _areas(memory, told)
        headers = (areas[1][:_HEADER], areas[2][:_HEADER])
        if headers == _headers(memory, told):
            return _parsed(told, *areas), faults
    return _parsed(told, *areas), [*faults, f"it changed while it was read, {TRIES} times"]


def _areas(memory: ReadableMemory, told: Told) -> tuple[bytes, bytes, bytes]:
    areas, num = told.areas, told.num
    # The used ring first: then its idx is never ahead of the avail ring's.
    used_ring = read_area(memory, "the used ring", areas.device, avail_event_offset(num) + 2)
    avail_ring = read_area(memory, "the avail ring", areas.driver, used_event_offset(num) + 2)
    table = read_area(memory, "the descriptor table", areas.descriptors, DESCRIPTOR_SIZE * num)
    return table, avail_ring, used_ring


def _headers(memory: ReadableMemory, told: Told) -> tuple[bytes, bytes]:
    avail = read_area(memory, "the avail ring", told.areas.driver, _HEADER)
    return avail, read_area(memory, "the used ring", told.areas.device, _HEADER)


def _parsed(told: Told, table: bytes, avail: bytes, used: bytes) -> _Seen:
    order, num = _ORDERS[told.order], told.num
    avail_flags, avail_idx, *heads, used_event = struct.unpack(f"{order}{num + 3}H", avail)
    used_flags, used_idx, *pairs, avail_event = struct.unpack(f"{order}2H{2 * num}IH", used)
    return _Seen(
        table,
        avail_flags,
        avail_idx,
        tuple(heads),
        used_event,
        used_flags,
        used_idx,
        tuple(pairs[::2]),
        tuple(pairs[1::2]),
        avail_event,
    )


def _ring(chains: SplitChains, told: Told, seen: _Seen, faults: list[str]) -> Ring:
    taken = _taken(told, seen, faults)
    places, untold = _outstanding(told, seen, taken, faults)
    # The candidates last: what shares a descriptor with these is none.
    outstanding = [chains.element(seen.heads[slot], slot, state) for slot, state in places]
    perhaps = _candidates(chains, told, seen, untold)
    return told.ring(
        avail_idx=seen.avail_idx,
        used_idx=seen.used_idx,
        last_avail_idx=taken,
        no_interrupt=bool(seen.avail_flags & AvailFlag.NO_INTERRUPT),
        no_notify=bool(seen.used_flags & UsedFlag.NO_NOTIFY),
        used_event=seen.used_event if told.event_idx else None,
        avail_event=seen.avail_event if told.event_idx else None,
        elements=(*outstanding, *_used(seen, told.num)),
        untold=untold,
        candidates=tuple(perhaps),
        faults=tuple(faults),
    )


def _taken(told: Told, seen: _Seen, faults: list[str]) -> int | None:
    """Up to where the device has taken elements. What was told of a ring that has moved since is of no use."""
    taken, gap = told.last_avail_idx, _distance(seen.used_idx, seen.avail_idx)
    if taken is None or told.used_idx not in (None, seen.used_idx):
        return None
    if _distance(seen.used_idx, taken) > gap:
        between = f"used idx {seen.used_idx} and avail idx {seen.avail_idx}"
        faults.append(f"last_avail_idx {taken} is not between {between}")
        return None
    return taken


def _outstanding(
    told: Told, seen: _Seen, taken: int | None, faults: list[str]
) -> tuple[list[tuple[int, ElementState]], int]:
    """The slots of what is outstanding, oldest first, and how many more are, of which it is not told."""
    gap = _distance(seen.used_idx, seen.avail_idx)
    if gap > told.num:
        faults.append(f"avail idx {seen.avail_idx} is {gap} ahead of used idx {seen.used_idx}, in a ring of {told.num}")
        return [], 0
    end = seen.avail_idx if taken is None else taken
    count = _distance(seen.used_idx, end)
    indices = _held(told, seen, count, told.num - gap)
    state: ElementState = "outstanding" if taken is None else "in_flight"
    places = [(index % told.num, state) for index in indices or ()]
    places += [((end + n & IDX) % told.num, "pending") for n in range(_distance(end, seen.avail_idx))]
    return places, count if indices is None else 0


def _candidates(chains: SplitChains, told: Told, seen: _Seen, untold: int) -> Iterator[RingElement]:
    """What may be outstanding, the newest first: with one request at a time, most likely the first. What is no longer
    whole, for its descriptors or its table are used anew, has come back."""
    if not untold:
        return
    room = told.num - _distance(seen.used_idx, seen.avail_idx)
    for index in candidates(seen.heads, seen.ids, seen.used_idx, untold, room)[:CANDIDATES]:
        slot = index % told.num
        element = chains.element(seen.heads[slot], slot, "candidate")
        if not element.faults:
            yield element


def _held(told: Told, seen: _Seen, count: int, room: int) -> list[int] | None:
    if told.in_order:
        return [seen.used_idx + n & IDX for n in range(count)]
    return held(seen.heads, seen.ids, seen.used_idx, count, room) if count else []


def _used(seen: _Seen, num: int) -> Iterator[RingElement]:
    """As far back as the used ring remembers, or as idx 0, for slots that were never written say nothing."""
    for back in range(1, min(num, seen.used_idx) + 1):
        slot = (seen.used_idx - back) % num
        id, length = seen.ids[slot], seen.lengths[slot]
        faults = (f"its head is {id}, of {num}",) if id >= num else ()
        yield RingElement(id, slot, "used", (), False, length, faults)


def _distance(start: int, end: int) -> int:
    return end - start & IDX
