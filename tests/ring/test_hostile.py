"""Devices that lie: every answer is a RingError that says where, or something bounded, and no accounts are lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pytest_virtio.errors import QueueFullError, RingError, UsageError, VirtioError
from pytest_virtio.ring.driver import Buffer, DriverRing, Used
from pytest_virtio.ring.packed import PackedRing
from pytest_virtio.ring.split import SplitRing

from .device import AVAIL, USED
from .pair import AREAS, CHAINS, EVERY_KIND, KINDS, Kind, pair
from .ram import BASE, Ram

ONE = [Buffer(0x1000, 512, device_writes=True)]
MOST_ACCESSES = 8


class Rubbish(RuleBasedStateMachine):
    """Areas are overwritten between calls, by whole ranges and by numbers that nearly make sense."""

    @initialize(kind=KINDS)
    def begin(self, kind: Kind) -> None:
        self.kind = kind
        both = pair(kind)
        self.ram, self.ring, self.device = both.ram, both.ring, both.device
        self.staged: dict[int, int] = {}
        self.visible: dict[int, int] = {}

    @contextmanager
    def bounded(self) -> Iterator[None]:
        self.ram.accesses = 0
        yield
        assert self.ram.accesses <= MOST_ACCESSES

    @rule(area=st.sampled_from([AREAS.descriptors, AREAS.driver, AREAS.device]), data=st.binary(max_size=128))
    def scribble(self, area: int, data: bytes) -> None:
        self.ram.write(area, data)

    @rule(
        area=st.sampled_from([AREAS.descriptors, AREAS.device]),
        word=st.integers(0, 40),
        value=st.one_of(st.integers(0, 9), st.sampled_from([AVAIL, USED, AVAIL | USED, 0x0100, 0x0300, 0xFFFF])),
    )
    def nudge(self, area: int, word: int, value: int) -> None:
        self.ram.store16(area + 2 * word, value)

    @rule(chain=CHAINS)
    def add(self, chain: list[Buffer]) -> None:
        try:
            token = self.ring.add(chain)
        except (QueueFullError, UsageError):
            return
        assert token not in self.visible
        assert token not in self.staged
        self.staged[token] = len(chain)

    @rule()
    def publish(self) -> None:
        with self.bounded(), suppress(RingError):
            self.ring.publish()
        assert not self.ring.publish()
        self.visible |= self.staged
        self.staged.clear()

    @rule()
    def take(self) -> None:
        try:
            with self.bounded():
                used = self.ring.take_used()
        except RingError as error:
            with pytest.raises(RingError, match=re.escape(str(error))):
                self.ring.take_used()
        else:
            if used:
                del self.visible[used.token]

    @rule(wanted=st.booleans())
    def suppress(self, wanted: bool) -> None:
        with self.bounded():
            self.ring.suppress_interrupts(not wanted)

    @rule()
    def notification(self) -> None:
        assert 0 <= self.ring.notification() <= 0xFFFF

    @invariant()
    def no_descriptor_is_lost(self) -> None:
        held = sum(self.visible.values()) + sum(self.staged.values())
        assert self.ring.free + held == self.kind.size


Rubbish.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestRubbish = Rubbish.TestCase


def split(published: int = 1, *, in_order: bool = False) -> tuple[Ram, SplitRing, list[int]]:
    both = pair(Kind(packed=False, size=4, in_order=in_order))
    assert isinstance(both.ring, SplitRing)
    return both.ram, both.ring, filled(both.ring, published)


def packed(published: int = 1, *, event_idx: bool = False) -> tuple[Ram, PackedRing, list[int]]:
    both = pair(Kind(packed=True, size=4, event_idx=event_idx))
    assert isinstance(both.ring, PackedRing)
    return both.ram, both.ring, filled(both.ring, published)


def filled(ring: DriverRing, count: int) -> list[int]:
    tokens = [ring.add(ONE) for _ in range(count)]
    ring.publish()
    return tokens


def put_used(ram: Ram, slot: int, token: int, index: int) -> None:
    ram.write(AREAS.device + 4 + 8 * slot, token.to_bytes(4, "little") + bytes(4))
    ram.store16(AREAS.device + 2, index)


def assert_raises_for_ever(ring: DriverRing, register: str, expected: str, seen: str) -> None:
    for _ in range(3):
        with pytest.raises(RingError) as error:
            ring.take_used()
        assert (error.value.register, error.value.expected, error.value.seen) == (register, expected, seen)


def test_split_index_jumps() -> None:
    ram, ring, _ = split(2)
    ram.store16(AREAS.device + 2, 3)
    assert_raises_for_ever(ring, f"used.idx at {AREAS.device + 2:#x}", "0 to 2", "3")


def test_split_index_goes_back() -> None:
    ram, ring, tokens = split(2)
    put_used(ram, 0, tokens[0], 1)
    assert ring.take_used() == Used(tokens[0], 0)
    ram.store16(AREAS.device + 2, 0)
    assert_raises_for_ever(ring, f"used.idx at {AREAS.device + 2:#x}", "1 to 2", "0")


def test_split_index_moves_while_the_device_has_nothing() -> None:
    ram, ring, _ = split(0)
    ram.store16(AREAS.device + 2, 1)
    assert_raises_for_ever(ring, f"used.idx at {AREAS.device + 2:#x}", "0", "1")


@pytest.mark.parametrize("token", [3, 4, 0xFFFFFFFF])
def test_split_id_is_not_the_devices(token: int) -> None:
    ram, ring, _ = split(2)
    put_used(ram, 0, token, 1)
    register = f"used.ring[0].id at {AREAS.device + 4:#x}"
    assert_raises_for_ever(ring, register, "one that the device has: 0, 1", str(token))


def test_split_id_comes_twice_and_then_rightly() -> None:
    ram, ring, tokens = split(2)
    put_used(ram, 0, tokens[0], 1)
    assert ring.take_used() == Used(tokens[0], 0)
    put_used(ram, 1, tokens[0], 2)
    assert_raises_for_ever(
        ring, f"used.ring[1].id at {AREAS.device + 12:#x}", f"one that the device has: {tokens[1]}", str(tokens[0])
    )
    put_used(ram, 1, tokens[1], 2)
    assert ring.take_used() == Used(tokens[1], 0)
    assert ring.free == 4


def test_a_chain_that_is_not_published_is_not_the_devices() -> None:
    ram, ring, _ = split(1)
    staged = ring.add(ONE)
    put_used(ram, 0, staged, 1)
    with pytest.raises(RingError, match="names a chain that the device doesn't have"):
        ring.take_used()


def test_split_batch_beyond_the_index() -> None:
    ram, ring, tokens = split(3, in_order=True)
    put_used(ram, 0, tokens[2], 2)
    with pytest.raises(RingError, match=r"at the end of a batch of 3, but its idx has moved by 2"):
        ring.take_used()
    assert ring.free == 1


def test_messages_list_few_tokens() -> None:
    ram = Ram(0x8000)
    ring = SplitRing(ram, AREAS, 16)
    filled(ring, 10)
    ram.store16(AREAS.device + 2, 1)
    ram.store16(AREAS.device + 4, 15)
    with pytest.raises(RingError, match=r"expected: one that the device has: 0, 1, 2, 3, 4, 5, 6, 7, …"):
        ring.take_used()


@pytest.mark.parametrize("token", [1, 4, 0xFFFF])
def test_packed_id_is_not_the_devices(token: int) -> None:
    ram, ring, _ = packed(1)
    ram.write(AREAS.descriptors + 8, (512).to_bytes(4, "little") + token.to_bytes(2, "little") + b"\x80\x80")
    register = f"descriptor 0, id at {AREAS.descriptors + 12:#x} (flags 0x8080)"
    assert_raises_for_ever(ring, register, "one that the device has: 0", str(token))


def test_packed_descriptor_is_used_while_the_device_has_nothing() -> None:
    ram, ring, _ = packed(0)
    ram.store16(AREAS.descriptors + 14, AVAIL | USED)
    with pytest.raises(RingError, match="expected: none"):
        ring.take_used()


@pytest.mark.parametrize(
    ("event_idx", "off_wrap", "flags", "message"),
    [
        (False, 0, 3, r"flags at 0x13002\n  expected: 0 \(ENABLE\), 1 \(DISABLE\)\n  seen: 3"),
        (False, 0, 2, r"flags at 0x13002\n  expected: 0 \(ENABLE\), 1 \(DISABLE\)\n  seen: 2"),
        (True, 0, 3, r"expected: 0 \(ENABLE\), 1 \(DISABLE\), 2 \(DESC\)\n  seen: 3"),
        (True, 0x8004, 2, r"desc_event_off at 0x13000\n  expected: 0 to 3\n  seen: 4"),
    ],
)
def test_packed_event_suppression_makes_no_sense(event_idx: bool, off_wrap: int, flags: int, message: str) -> None:
    ram, ring, _ = packed(0, event_idx=event_idx)
    assert AREAS.device == 0x13000
    ring.add(ONE)
    ram.store16(AREAS.device, off_wrap)
    ram.store16(AREAS.device + 2, flags)
    with pytest.raises(RingError, match=message):
        ring.publish()
    # The chain is out all the same.
    assert ring.notification() == 0x8001
    assert not ring.publish()


@pytest.mark.parametrize("kind", EVERY_KIND, ids=str)
def test_what_is_refused_leaves_nothing_behind(kind: Kind) -> None:
    both = pair(kind)
    ring = both.ring
    for chain, table in [
        ([], None),
        ([Buffer(0, 1)] * (kind.size + 1), None),
        ([Buffer(0, 1)] * (kind.size + 1), BASE),
        ([Buffer(0, 0, device_writes=True), Buffer(0, 0)], None),
        ([Buffer(0, 1), Buffer(1 << 64, 1)], None),
        ([Buffer(0, 1 << 32)], None),
        ([Buffer(-1, 1)], BASE),
    ]:
        with pytest.raises(UsageError):
            ring.add(chain, table)
        assert ring.free == kind.size
    with pytest.raises(VirtioError, match="not in RAM"):
        ring.add(ONE, 0xFFFF_0000)
    assert ring.free == kind.size
    assert not ring.publish()
    assert both.device.fetch() == []
    tokens = [ring.add(ONE) for _ in range(kind.size)]
    with pytest.raises(QueueFullError, match=f"0 of {kind.size} descriptors are free; 1 wanted"):
        ring.add(ONE)
    ring.publish()
    assert [element.token for element in both.device.fetch()] == tokens
