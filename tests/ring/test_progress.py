"""Counting what a ring has gone on, against rings that a driver and a device work on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.ring.progress import LONGEST_STEP, Counter, PackedUsed, Stillness, distance
from pytest_virtio.spec.ring import PACKED_DESCRIPTOR, available_flags, used_flags


class Index:
    """An index that goes on by itself."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __call__(self) -> int:
        return self.value & 0xFFFF


@given(st.integers(0, 0xFFFF), st.lists(st.integers(0, LONGEST_STEP)))
def test_many_laps_are_counted(start: int, steps: list[int]) -> None:
    index = Index(start)
    counter = Counter(index)
    for step in steps:
        index.value += step
        counter.look()
    assert (counter.total, counter.restarts) == (sum(steps), 0)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_distances(since: int, to: int) -> None:
    assert (since + distance(since, to)) % 0x10000 == to


def test_an_index_that_jumps_is_a_new_ring() -> None:
    index = Index(40_000)
    counter = Counter(index)
    index.value = 40_010
    assert counter.look(1000) == 10
    index.value = 3
    assert counter.look(1000) == 13
    assert counter.restarts == 1


def test_a_ring_in_the_place_of_another_is_counted_from_its_beginning() -> None:
    counter = Counter(Index(40_000))
    counter.restart(Index(7))
    assert (counter.look(), counter.restarts) == (7, 1)


class Packed:
    """A packed ring with a device that gives chains back in any order; lengths are the driver's secret."""

    def __init__(self, size: int) -> None:
        self.size, self.ring = size, bytearray(16 * size)
        self.next_avail = self.next_used = 0
        self.with_device: list[int] = []
        self.free = size

    def add(self, length: int) -> None:
        for place in range(self.next_avail, self.next_avail + length):
            self._write(place, available_flags(self._wrap(place)))
        self.next_avail += length
        self.free -= length
        self.with_device.append(length)

    def use(self, which: int) -> None:
        length = self.with_device.pop(which)
        self._write(self.next_used, used_flags(self._wrap(self.next_used)))
        self.next_used += length
        self.free += length

    def _wrap(self, place: int) -> bool:
        return place // self.size % 2 == 0

    def _write(self, place: int, flags: int) -> None:
        PACKED_DESCRIPTOR.pack_into(self.ring, 16 * (place % self.size), 0x1000, 512, 0, flags)

    def counter(self) -> Counter:
        return Counter(PackedUsed(lambda: bytes(self.ring), self.size))


LONGEST_CHAIN = 4
ROUNDS = st.lists(st.lists(st.integers(1, LONGEST_CHAIN), max_size=LONGEST_CHAIN), max_size=30)


@given(st.integers(2 * LONGEST_CHAIN, 20), ROUNDS, ROUNDS)
def test_packed_rings_are_counted(size: int, before: list[list[int]], then: list[list[int]]) -> None:
    packed = Packed(size)
    work(packed, before)
    counter = packed.counter()
    assert sum(work(packed, [chains], counter) for chains in then) == counter.total
    assert counter.restarts == 0


def work(packed: Packed, rounds: Sequence[Sequence[int]], counter: Counter | None = None) -> int:
    """Add chains, and use the middle one until one is left or none; how many were used. The counter looks before the
    device has gone around the ring since."""
    used = seen = 0
    for number, chains in enumerate(rounds):
        for length in chains:
            if length <= packed.free:
                packed.add(length)
        while len(packed.with_device) > number % 2:
            if counter is not None and packed.next_used - seen > packed.size - 2 * LONGEST_CHAIN:
                counter.look()
                seen = packed.next_used
            packed.use(len(packed.with_device) // 2)
            used += 1
    if counter is not None:
        counter.look()
    return used


@pytest.mark.parametrize("laps", range(4))
def test_an_empty_packed_ring_goes_on_in_the_right_lap(laps: int) -> None:
    packed = Packed(8)
    for _ in range(laps * 2 + 1):
        packed.add(4)
        packed.use(0)
    counter = packed.counter()
    assert counter.look() == 0
    packed.add(3)
    assert counter.look() == 0
    packed.use(0)
    assert counter.look() == 1


@pytest.mark.parametrize("chains", [0, 3, 8])
def test_a_packed_ring_that_comes_in_the_place_of_another_has_what_was_used_before_the_first_look(chains: int) -> None:
    counter, packed = Counter(Index(40_000)), Packed(8)
    for _ in range(chains):
        packed.add(1)
        packed.use(0)
    counter.restart(PackedUsed(lambda: bytes(packed.ring), packed.size))
    assert counter.look() == chains
    packed.add(2)
    packed.use(0)
    assert counter.look() == chains + 1


@pytest.mark.parametrize("chains", [3, 8, 11])
def test_a_packed_ring_that_was_made_anew_is_counted_from_its_beginning(chains: int) -> None:
    packed = Packed(8)
    counter = packed.counter()
    for _ in range(chains):
        packed.add(1)
        packed.use(0)
        counter.look()
    anew = Packed(8)
    packed.ring[:] = anew.ring
    assert counter.look() == chains
    anew.add(1)
    anew.use(0)
    packed.ring[:] = anew.ring
    assert counter.look() == chains + 1


def test_stillness_begins_with_the_first_thing_to_do() -> None:
    still = Stillness()
    assert still.look(5.0, 7, outstanding=False) == 0.0
    # The look is late, and the request may have come just before it.
    assert still.look(8.0, 7, outstanding=True) == 0.0
    assert still.look(9.0, 7, outstanding=True) == 1.0
    assert still.look(10.0, 8, outstanding=True) == 0.0
    assert still.look(11.0, 8, outstanding=True) == 1.0
    assert still.look(12.0, 8, outstanding=False) == 0.0
    assert still.look(13.0, 8, outstanding=True) == 0.0
