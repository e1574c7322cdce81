"""Rings decoded by a bystander: what the driver built and the device took, and no harm from whatever else is there."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_virtio.errors import VirtioError
from pytest_virtio.model.ring import Ring, RingElement
from pytest_virtio.ring.decode import Told, decode, decode_slot
from pytest_virtio.ring.driver import Buffer
from pytest_virtio.ring.split import SplitRing
from pytest_virtio.spec.ring import Areas

from .device import Element, PackedDevice, SplitDevice
from .pair import AREAS, CHAINS, EVERY_KIND, TABLES, Kind, Pair, pair
from .ram import BASE, Ram

NEXT, WRITE, INDIRECT = 1, 2, 4


def told_of(kind: Kind, ends: Pair | None = None, **more: Any) -> Told:
    """What QEMU would tell of a ring."""
    known: dict[str, Any] = {}
    if ends and isinstance(ends.device, PackedDevice):
        known = {"used_idx": ends.device.used.position, "last_avail_idx": ends.device.fetched.position}
    elif ends and isinstance(ends.device, SplitDevice):
        known = {"used_idx": ends.device.used, "last_avail_idx": ends.device.fetched}
    shape = {"packed": kind.packed, "event_idx": kind.event_idx, "in_order": kind.in_order, "order": kind.order}
    about = {"name": "virtio-blk", "queue_index": 0, "num": kind.size, "areas": AREAS, "source": "test"}
    return Told(**{**about, **shape, **known, **more})


def seen(element: RingElement) -> tuple[int, list[tuple[int, int, bool]]]:
    return element.head, [(desc.addr, desc.len, "write" in desc.flags) for desc in element.descs]


def as_seen(elements: list[Element]) -> list[tuple[int, list[tuple[int, int, bool]]]]:
    return [(element.token, element.seen) for element in elements]


@pytest.mark.parametrize("kind", EVERY_KIND, ids=str)
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_what_the_driver_built_is_what_is_decoded(kind: Kind, data: st.DataObject) -> None:
    """Chains come and go in order, some indirect; then some are with the device and some it has not seen."""
    ends = pair(kind)
    ends.device.fetch()
    given_back: list[tuple[int, int]] = []
    flight: list[Element] = []
    for _ in range(data.draw(st.integers(0, 20))):
        buffers = data.draw(CHAINS)
        indirect = data.draw(st.booleans())
        if ends.ring.free < (1 if indirect else len(buffers)) or len(buffers) > kind.size:
            break
        ends.ring.add(buffers, TABLES + 0x100 * (len(given_back) % 16) if indirect else None)
        ends.ring.publish()
        flight += ends.device.fetch()
        if data.draw(st.booleans()):
            first = flight.pop(0)
            ends.device.complete([first], len(given_back))
            given_back.append((first.token, len(given_back)))
            assert ends.ring.take_used()
    told = told_of(kind, ends, inuse=len(flight))
    ring = decode(ends.ram, told)
    in_flight = ring.in_state("in_flight")
    if not (ring.faults or ring.untold):
        assert [seen(element)[0] for element in in_flight] == [element.token for element in flight]
    assert not ring.in_state("pending", "outstanding")
    used = [(element.head, element.written) for element in ring.in_state("used")]
    assert used[: len(given_back)] == given_back[::-1][: len(used)]
    if not kind.packed:
        # A small ring that has gone round may not prove which ones are held.
        small = len(given_back) and not kind.in_order
        assert ring.faults == ()
        assert ring.untold in (0, len(flight) if small else 0)
        assert (ring.used_idx, ring.avail_idx) == (len(given_back), len(given_back) + len(flight))


@pytest.mark.parametrize("kind", EVERY_KIND, ids=str)
def test_pending_elements_are_those_that_the_device_takes_next(kind: Kind) -> None:
    """Over more than two laps of the ring, direct and indirect chains in turn."""
    ends = pair(kind)
    for number in range(3 * kind.size):
        told = told_of(kind, ends, inuse=0)
        buffers = [Buffer(number << 32, number), Buffer(number, 16, device_writes=True)]
        for place, table in enumerate((None, TABLES)):
            ends.ring.add([Buffer(place, 1), *buffers[1:]] if place else buffers, table)
        ends.ring.publish()
        ring = decode(ends.ram, told)
        taken = ends.device.fetch()
        assert ring.faults == ()
        assert [seen(element) for element in ring.in_state("pending")] == as_seen(taken)
        assert [element.indirect for element in ring.in_state("pending")] == [False, True]
        assert all(element.faults == () for element in ring.elements)
        for element in taken:
            ends.device.complete([element], 5)
            ends.ring.take_used()


@pytest.mark.parametrize("size", [4, 8, 256])
@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_heads_given_back_in_any_order(size: int, data: st.DataObject) -> None:
    """Those that are named are right, and where not all are, it is said how many, and which they may be."""
    kind = Kind(packed=False, size=size)
    ends = pair(kind) if size <= 8 else _large(size)
    held: list[Element] = []
    latest: list[int] = []
    for _ in range(data.draw(st.integers(0, 40))):
        if ends.ring.free and data.draw(st.booleans()):
            latest = [*latest[1 - size :], ends.ring.add([Buffer(1, 1)])]
            ends.ring.publish()
            held += ends.device.fetch()
        elif held:
            ends.device.complete([held.pop(data.draw(st.integers(0, len(held) - 1)))], 0)
            ends.ring.take_used()
    told = told_of(kind, ends, areas=ends.ring.areas)
    ring = decode(ends.ram, told)
    named = [element.head for element in ring.in_state("in_flight")]
    if named:
        assert sorted(named) == sorted(element.token for element in held)
    elif held:
        assert ring.untold == len(held)
        perhaps = [element.head for element in ring.candidates]
        assert {element.token for element in held} & set(latest) <= set(perhaps)
    assert ring.faults == ()
    if size == 256:
        # A ring that has not gone round remembers everything.
        assert sorted(named) == sorted(element.token for element in held)
    unknown = decode(ends.ram, told_of(kind, areas=ends.ring.areas))
    assert [element.head for element in unknown.in_state("outstanding")] == named


def _large(size: int) -> Pair:
    ram = Ram(0x10000)
    areas = Areas(BASE, BASE + 0x4000, BASE + 0x8000)
    return Pair(ram, SplitRing(ram, areas, size), SplitDevice(ram, areas, size))


def test_what_the_history_does_not_tell_is_not_guessed() -> None:
    """One is held for longer than the ring remembers, and the others come back by turns."""
    kind = Kind(packed=False, size=4)
    ends = pair(kind)
    for _ in range(3):
        ends.ring.add([Buffer(1, 1)])
    ends.ring.publish()
    first, *others = ends.device.fetch()
    for _ in range(20):
        ends.device.complete([others.pop(0)], 0)
        ends.ring.take_used()
        ends.ring.add([Buffer(1, 1)])
        ends.ring.publish()
        others += ends.device.fetch()
    ring = decode(ends.ram, told_of(kind, ends))
    assert ring.in_state("in_flight") == ()
    assert (ring.untold, ring.faults) == (3, ())
    # The first is no longer in the avail ring; one that has come back can't be told from those.
    perhaps = [element.head for element in ring.candidates]
    assert perhaps[:2] == [element.token for element in others[::-1]]
    assert first.token not in perhaps


def test_the_one_request_that_a_busy_ring_waits_for() -> None:
    """Heads that are used by turns, one request at a time: that the latest is the one can't be proven, for another may
    be held for longer than the ring remembers."""
    kind = Kind(packed=False, size=4)
    ends = pair(kind)
    for number in range(20):
        ends.ring.add([Buffer(number, 1)])
        ends.ring.publish()
        held = ends.device.fetch()
        ring = decode(ends.ram, told_of(kind, ends))
        ends.device.complete(held, 0)
        ends.ring.take_used()
    assert (ring.untold, ring.outstanding, ring.faults) == (1, (), ())
    assert [(perhaps.state, *seen(perhaps)) for perhaps in ring.candidates] == [("candidate", 3, [(19, 1, False)])]
    idle = decode(ends.ram, told_of(kind, ends))
    assert (idle.untold, idle.candidates) == (0, ())


def test_packed_elements_given_back_in_another_order() -> None:
    """The device writes over the first descriptor that it took, so what stood there is lost."""
    kind = Kind(packed=True, size=8)
    ends = pair(kind)
    for number in range(3):
        ends.ring.add([Buffer(number, 1)])
    ends.ring.publish()
    _, second, third = ends.device.fetch()
    ends.device.complete([second], 0)
    ring = decode(ends.ram, told_of(kind, ends, inuse=2))
    assert [element.head for element in ring.in_state("in_flight")] == [third.token]
    assert (ring.untold, ring.faults) == (1, ())


def test_a_packed_ring_of_which_no_position_is_told() -> None:
    ends = pair(Kind(packed=True, size=8))
    ends.ring.suppress_interrupts(True)
    ring = decode(ends.ram, told_of(Kind(packed=True, size=8)))
    assert ring.elements == ()
    assert ring.no_interrupt is True
    assert ring.faults == ("the device's positions and wrap counters are not told: neither is what is outstanding",)


# Hostile contents.


class Recorder:
    """RAM that remembers what is read of it, and changes under the reader where it is told to."""

    def __init__(self, data: bytes, restless: bool = False) -> None:
        self.data, self.restless, self.bytes, self.reads = bytearray(data), restless, 0, 0

    def read(self, address: int, length: int) -> bytes:
        self.reads += 1
        assert 0 <= address <= 1 << 64
        assert length >= 0
        if not BASE <= address <= BASE + len(self.data) - length:
            raise VirtioError(f"not in RAM: {length} bytes at {address:#x}")
        self.bytes += length
        if self.restless:
            self.data[:] = bytes(byte + 1 & 0xFF for byte in self.data)
        return bytes(self.data[address - BASE : address - BASE + length])


_ADDRESSES = st.one_of(st.integers(BASE, BASE + 0x800), st.integers(0, (1 << 64) - 1))
_TOLD = st.builds(
    Told,
    name=st.just("virtio-net"),
    queue_index=st.just(0),
    num=st.one_of(st.integers(1, 33), st.integers(-1, 70000)),
    areas=st.builds(Areas, _ADDRESSES, _ADDRESSES, _ADDRESSES),
    source=st.just("test"),
    packed=st.booleans(),
    event_idx=st.booleans(),
    in_order=st.booleans(),
    order=st.sampled_from(["little", "big"]),
    used_idx=st.none() | st.integers(0, 65535) | st.integers(0, 32),
    last_avail_idx=st.none() | st.integers(0, 65535) | st.integers(0, 32),
    inuse=st.none() | st.integers(-1, 65536),
)
_FIELDS = st.one_of(st.binary(max_size=64), st.integers(0, 7).map(lambda n: n.to_bytes(2, "little") * 40))
_ROWS = st.builds(
    lambda address, length, flags, following: struct.pack("<QIHH", address, length, flags, following),
    _ADDRESSES,
    st.sampled_from([0, 15, 16, 24, 32, 160, 1 << 31]),
    st.integers(0, 7),
    st.integers(0, 9),
)


@given(told=_TOLD, pieces=st.lists(_FIELDS | _ROWS, max_size=60), restless=st.booleans(), slot=st.integers(0, 65535))
@settings(deadline=None, max_examples=400)
def test_any_bytes_decode(told: Told, pieces: list[bytes], restless: bool, slot: int) -> None:
    """Without an exception, in bounded work, and without a read beyond the ring and its tables."""
    ram = Recorder(b"".join(pieces).ljust(0x1000, b"\x01"), restless)
    ring = decode(ram, told)
    num = max(0, told.num)
    assert len(ring.in_state("pending", "in_flight", "outstanding")) <= num
    assert len(ring.in_state("used")) <= num
    assert ram.reads <= 4 * (7 + num)
    assert sum(len(element.descs) for element in ring.elements) <= num + (1 << 15)
    assert isinstance(hash(ring.elements), int)
    if not told.packed:
        assert isinstance(decode_slot(ram, told, slot)[0], Ring)


def _split(rows: list[tuple[int, int, int, int]], heads: list[int], avail_idx: int, used_idx: int = 0) -> Ring:
    """A split ring of 4 whose device has taken nothing since used_idx."""
    ram = Ram(0x8000)
    for index, row in enumerate(rows):
        ram.write(AREAS.descriptors + 16 * index, struct.pack("<QIHH", *row))
    ram.write(AREAS.driver, struct.pack("<HH4H", 0, avail_idx, *(heads + [0] * 4)[:4]))
    ram.write(AREAS.device, struct.pack("<HH", 0, used_idx))
    ram.write(TABLES, struct.pack("<QIHH", TABLES, 16, INDIRECT, 0) + struct.pack("<QIHH", 1, 2, NEXT, 7))
    return decode(ram, told_of(Kind(packed=False, size=4), used_idx=used_idx, last_avail_idx=used_idx))


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([(1, 2, NEXT, 0)], "it loops: descriptor 0 comes again"),
        ([(1, 2, NEXT, 1), (1, 2, NEXT, 0)], "it loops: descriptor 0 comes again"),
        ([(1, 2, NEXT, 4)], "its next descriptor is 4, of 4"),
        ([((1 << 64) - 1, 2, 0, 0)], "buffer 0: 2 bytes at 0xffffffffffffffff run past 2^64"),
        ([(TABLES, 0, INDIRECT, 0)], "its indirect table has 0 bytes, not 16 or a multiple"),
        ([(TABLES, 15, INDIRECT, 0)], "its indirect table has 15 bytes, not 16 or a multiple"),
        ([(TABLES, 16, INDIRECT, 0)], "descriptor 0 of its indirect table is indirect itself"),
        ([(TABLES + 16, 16, INDIRECT, 0)], "its next descriptor of its indirect table is 7, of 1"),
        ([(TABLES + 16, 16, INDIRECT | NEXT, 0)], "descriptor 0 has both INDIRECT and NEXT"),
        ([((1 << 64) - 16, 32, INDIRECT, 0)], "its indirect table: 32 bytes at 0xfffffffffffffff0 run past 2^64"),
        ([(0x1000, 32, INDIRECT, 0)], "its indirect table can't be read: not in RAM: 32 bytes at 0x1000"),
    ],
)
def test_a_wrong_chain_says_so(rows: list[tuple[int, int, int, int]], fault: str) -> None:
    (element,) = _split(rows, [0], 1).elements
    assert element.state == "pending"
    assert fault in element.faults


def test_a_table_at_the_end_of_a_chain() -> None:
    (element,) = _split([(1, 2, NEXT, 1), (TABLES + 16, 16, INDIRECT, 0)], [0], 1).elements
    assert [(desc.addr, desc.len) for desc in element.descs] == [(1, 2), (1, 2)]
    assert element.indirect


def test_wrong_indices_say_so() -> None:
    assert _split([], [9], 1).elements[0].faults == ("its head is 9, of 4",)
    assert _split([(1, 1, 0, 0)], [0, 0], 2).elements[1].faults == ("descriptor 0 is in the chain of head 0 too",)
    ahead = _split([], [], 5)
    assert ahead.faults == ("avail idx 5 is 5 ahead of used idx 0, in a ring of 4",)
    assert ahead.elements == ()
    told = told_of(Kind(packed=False, size=4), num=3)
    assert "num is 3: no power of two" in decode(Ram(0x8000), told).faults
    assert decode(Ram(16), told).faults[0].startswith("the used ring can't be read: not in RAM: 30 bytes at")


class Freed(Ram):
    """RAM in which, just before an indirect table is read for the first time, its chain has been given back and the
    driver has freed the table.

    :param given_back: what the device writes then, by address.
    """

    def __init__(self, given_back: dict[int, bytes]) -> None:
        super().__init__(0x8000)
        self.given_back = given_back

    def read(self, address: int, length: int) -> bytes:
        if address == TABLES and self.given_back:
            given_back, self.given_back = self.given_back, {}
            for place, data in {**given_back, TABLES: struct.pack("<QIHH", 0, 0, INDIRECT, 0)}.items():
                self.write(place, data)
        return super().read(address, length)


def test_a_table_that_is_freed_meanwhile_is_no_fault_of_its_chain() -> None:
    ram = Freed({AREAS.device: struct.pack("<HHII", 0, 1, 0, 8)})
    ram.write(AREAS.descriptors, struct.pack("<QIHH", TABLES, 16, INDIRECT, 0))
    ram.write(AREAS.driver, struct.pack("<HHH", 0, 1, 0))
    ring = decode(ram, told_of(Kind(packed=False, size=4)))
    (element,) = ring.outstanding
    assert (ring.faults, element.head, element.indirect, element.descs, element.faults) == ((), 0, True, (), ())


def test_nor_is_it_in_a_packed_ring() -> None:
    avail, used = 1 << 7, 1 << 15
    ram = Freed({AREAS.descriptors: struct.pack("<QIHH", TABLES, 8, 0, avail | used)})
    ram.write(AREAS.descriptors, struct.pack("<QIHH", TABLES, 16, 0, avail | INDIRECT))
    told = told_of(Kind(packed=True, size=4), used_idx=0, last_avail_idx=1, inuse=1)
    ring = decode(ram, told)
    assert ring.outstanding == ()
    assert (ring.untold, ring.faults) == (1, ())


def test_a_ring_that_never_stands_still_says_so() -> None:
    for kind in (Kind(packed=False, size=4), Kind(packed=True, size=4)):
        ring = decode(Recorder(bytes(0x8000), restless=True), told_of(kind))
        assert "it changed while it was read, 4 times" in ring.faults
