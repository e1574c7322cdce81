"""Rings by example: laps, the one step of publishing, what is written by hand, and how they are set up."""

from __future__ import annotations

import copy
from functools import partial

import pytest

from pytest_virtio.errors import QueueFullError, UsageError
from pytest_virtio.ring.driver import Buffer, Used
from pytest_virtio.ring.packed import PackedRing
from pytest_virtio.ring.split import SplitRing
from pytest_virtio.spec.layout import ByteOrder
from pytest_virtio.spec.ring import Areas, available_flags

from .device import NEXT, WRITE, Device, Element, PackedDevice
from .pair import AREAS, EVERY_KIND, TABLES, Kind, Pair, pair
from .ram import Ram

IN, OUT = Buffer(0x1000, 512), Buffer(0x2000, 16, device_writes=True)


@pytest.mark.parametrize("kind", EVERY_KIND, ids=str)
def test_a_published_batch_appears_in_one_step(kind: Kind) -> None:
    both = pair(kind)
    for _ in range(20):
        counts: list[int] = []
        both.ram.after_write = partial(count_visible, both.device, counts)
        tokens = [both.ring.add([IN, OUT]), both.ring.add([OUT], TABLES), both.ring.add([IN])]
        assert set(counts) == {0}
        both.ring.publish()
        both.ram.after_write = lambda: None
        assert counts[-1] == 3
        assert set(counts) == {0, 3}
        elements = both.device.fetch()
        assert [element.token for element in elements] == tokens
        for element in elements:
            both.device.complete([element], 7)
        assert [both.ring.take_used() for _ in range(4)] == [*(Used(token, 7) for token in tokens), None]


def count_visible(device: Device, counts: list[int]) -> None:
    fetched = copy.copy(device)
    if isinstance(fetched, PackedDevice):
        fetched.fetched = copy.copy(fetched.fetched)
    counts.append(len(fetched.fetch()))


@pytest.mark.parametrize("kind", [kind for kind in EVERY_KIND if not kind.packed], ids=str)
def test_indices_go_round_at_65536(kind: Kind) -> None:
    both = pair(kind)
    for _ in range(65536 // 4 - 1):
        go_round(both, 4)
    assert both.ring.notification() == 65532
    if kind.event_idx:
        # The entry that is 0 again.
        both.device.ask(4)
    for count, index, wants in ((3, 65535, False), (3, 2, True), (3, 5, False)):
        notify = go_round(both, count)
        assert both.ring.notification() == index
        assert notify == (wants if kind.event_idx else True)


def go_round(both: Pair, count: int) -> bool:
    ring = both.ring
    tokens = [ring.add([OUT]) for _ in range(count)]
    notify = ring.publish()
    for element in both.device.fetch():
        both.device.complete([element], 1)
    assert [ring.take_used() for _ in range(count + 1)] == [*(Used(token, 1) for token in tokens), None]
    return notify


@pytest.mark.parametrize("kind", [kind for kind in EVERY_KIND if kind.packed], ids=str)
def test_wrap_counter_turns_with_each_lap(kind: Kind) -> None:
    both = pair(kind)
    place, wrap = 0, 1
    for lap in range(100):
        count = lap % kind.size + 1
        go_round(both, count)
        place += count
        if place >= kind.size:
            place, wrap = place - kind.size, wrap ^ 1
        assert both.ring.notification() == place | wrap << 15


def test_notification_data_is_about_what_is_published() -> None:
    for ring in (SplitRing(Ram(0x8000), AREAS, 4), PackedRing(Ram(0x8000), AREAS, 4)):
        start = ring.notification()
        ring.add([IN, OUT])
        assert ring.notification() == start
        ring.publish()
        assert ring.notification() == start + (2 if isinstance(ring, PackedRing) else 1)


@pytest.mark.parametrize("kind", [kind for kind in EVERY_KIND if kind.in_order], ids=str)
def test_in_order_batch(kind: Kind) -> None:
    both = pair(kind)
    for _ in range(30):
        tokens = [both.ring.add([IN, OUT]), both.ring.add([IN]), both.ring.add([OUT])]
        both.ring.publish()
        both.device.complete(both.device.fetch(), 3)
        assert both.ring.take_used() == Used(tokens[0], 16)
        # What came back may go out again while the rest of its batch still waits.
        again = both.ring.add([IN])
        assert again not in tokens[1:]
        both.ring.publish()
        assert [both.ring.take_used() for _ in range(3)] == [Used(tokens[1], 0), Used(tokens[2], 3), None]
        both.device.complete(both.device.fetch(), 0)
        assert both.ring.take_used() == Used(again, 0)


@pytest.mark.parametrize("order", ["little", "big"])
def test_in_order_split_uses_descriptors_in_ring_order(order: ByteOrder) -> None:
    """2.7.5.2: descriptor x links to x + 1, the last one to 0."""
    both = pair(Kind(packed=False, size=4, order=order, in_order=True))
    heads = []
    for _ in range(8):
        heads.append(both.ring.add([IN, IN, OUT]))
        both.ring.publish()
        both.device.complete(both.device.fetch(), 0)
        both.ring.take_used()
    assert heads == [0, 3, 2, 1, 0, 3, 2, 1]


def test_split_layout_byte_by_byte() -> None:
    orders: list[tuple[ByteOrder, int]] = [("little", 1), ("big", -1)]
    for order, swap in orders:
        both = pair(Kind(packed=False, size=2, order=order))
        both.ring.add([Buffer(0x0102030405060708, 0x0A0B0C0D), OUT])
        both.ring.publish()
        at = AREAS.descriptors - 0x10000
        fields = ["0807060504030201", "0d0c0b0a", "0100", "0100"]
        assert both.ram.data[at : at + 16] == b"".join(bytes.fromhex(field)[::swap] for field in fields)
        at = AREAS.driver - 0x10000
        assert both.ram.data[at : at + 10] == b"".join(
            bytes.fromhex(f)[::swap] for f in ["0000", "0100", "0000"] + ["0000"] * 2
        )


def test_packed_layout_byte_by_byte() -> None:
    both = pair(Kind(packed=True, size=2))
    both.ring.add([Buffer(0x0102030405060708, 0x0A0B0C0D), OUT])
    both.ring.publish()
    at = AREAS.descriptors - 0x10000
    assert both.ram.data[at : at + 16] == bytes.fromhex("0807060504030201 0d0c0b0a 0000 8100")
    assert both.ram.data[at + 16 : at + 32] == bytes.fromhex("0020000000000000 10000000 0000 8200")


def test_set_up_zeroes_its_areas_and_nothing_else() -> None:
    for kind, sizes in ((Kind(packed=False, size=8), (128, 22, 70)), (Kind(packed=True, size=8), (128, 4, 4))):
        both = pair(kind)
        for address, size in zip((AREAS.descriptors, AREAS.driver, AREAS.device), sizes, strict=True):
            assert both.ram.read(address, size + 1) == bytes(size) + b"\xa5"
            assert both.ram.read(address - 1, 1) == b"\xa5"


@pytest.mark.parametrize("size", [0, -4, 3, 65536])
def test_split_sizes_are_powers_of_two(size: int) -> None:
    with pytest.raises(UsageError, match=f"a power of two of entries, 32768 at most, not {size}"):
        SplitRing(Ram(0x8000), AREAS, size)


@pytest.mark.parametrize("size", [0, -4, 32769])
def test_packed_sizes(size: int) -> None:
    with pytest.raises(UsageError, match=f"1 to 32768 entries, not {size}"):
        PackedRing(Ram(0x8000), AREAS, size)


def test_areas_are_aligned() -> None:
    with pytest.raises(UsageError, match=r"areas.descriptors has to be a multiple of 16: 0x11008"):
        SplitRing(Ram(0x8000), Areas(0x11008, 0x12000, 0x13000), 4)
    with pytest.raises(UsageError, match=r"areas.device has to be a multiple of 4: 0x13002"):
        SplitRing(Ram(0x8000), Areas(0x11000, 0x12002, 0x13002), 4)
    with pytest.raises(UsageError, match=r"areas.driver has to be a multiple of 4: 0x12002"):
        PackedRing(Ram(0x8000), Areas(0x11000, 0x12002, 0x13000), 4)


def test_split_by_hand() -> None:
    both = pair(Kind(packed=False, size=4))
    ring = both.ring
    assert isinstance(ring, SplitRing)
    ring.write_descriptor(3, 0x1000, 8, NEXT | WRITE, 2)
    ring.write_descriptor(2, 0x3000, 4, 0)
    ring.expose(3)
    assert both.device.fetch() == []
    assert ring.publish()
    assert both.device.fetch() == [Element(3, [(0x1000, 8, True), (0x3000, 4, False)], 2)]
    assert ring.free == 4
    both.device.complete([Element(3, [], 2)], 8)
    assert ring.take_used() == Used(3, 8)


def test_split_same_head_twice_beside_an_honest_chain() -> None:
    both = pair(Kind(packed=False, size=4))
    ring = both.ring
    assert isinstance(ring, SplitRing)
    token = ring.add([IN])
    ring.expose(token)
    ring.expose(0xFFFF)
    ring.publish()
    for given_back in (token, 0xFFFF, token):
        both.device.complete([Element(given_back, [], 1)], 0)
    assert [ring.take_used() for _ in range(4)] == [Used(token, 0), Used(0xFFFF, 0), Used(token, 0), None]
    assert ring.free == 4


def test_packed_by_hand() -> None:
    both = pair(Kind(packed=True, size=4))
    ring = both.ring
    assert isinstance(ring, PackedRing)
    ring.write_descriptor(1, 0x3000, 4, 77, available_flags(wrap=True))
    ring.write_descriptor(0, 0x1000, 8, 0, available_flags(wrap=True) | NEXT | WRITE)
    ring.expose(77, 2)
    assert both.device.fetch() == [Element(77, [(0x1000, 8, True), (0x3000, 4, False)], 2)]
    honest = ring.add([IN])
    assert both.device.fetch() == []
    assert ring.publish()
    assert both.device.fetch() == [Element(honest, [(0x1000, 512, False)], 1)]
    both.device.complete([Element(77, [], 2)], 8)
    both.device.complete([Element(honest, [], 1)], 0)
    assert [ring.take_used() for _ in range(3)] == [Used(77, 8), Used(honest, 0), None]
    with pytest.raises(QueueFullError):
        ring.expose(1, 5)
    assert [ring.add([IN]) for _ in range(4)] == [1, 2, 3, 0]


@pytest.mark.parametrize("index", [-1, 4])
def test_descriptors_by_hand_stay_in_the_ring(index: int) -> None:
    for ring in (SplitRing(Ram(0x8000), AREAS, 4), PackedRing(Ram(0x8000), AREAS, 4)):
        with pytest.raises(UsageError, match=f"the ring has descriptors 0 to 3, not {index}"):
            ring.write_descriptor(index, 0, 0, 0, 0)
        with pytest.raises(UsageError, match="a descriptor has 64 bits for the address"):
            ring.write_descriptor(0, 0, 0, 0x10000, 0)


@pytest.mark.parametrize("kind", [kind for kind in EVERY_KIND if kind.event_idx], ids=str)
def test_notification_is_wanted_for_the_entry_asked_for(kind: Kind) -> None:
    """2.7.10.1, 2.8.10: at every place of two laps, for entries to come and for those just passed."""
    both = pair(kind)
    to_come = range(2 * kind.size) if kind.packed else [*range(2 * kind.size), 65534, 65535]
    for ahead in to_come:
        for count in range(1, kind.size + 1):
            both.device.ask(ahead)
            assert go_round(both, count) == (ahead < count)


@pytest.mark.parametrize("kind", EVERY_KIND, ids=str)
def test_interrupts_are_asked_for_and_not(kind: Kind) -> None:
    both = pair(kind)
    for lap in range(30):
        suppressed = lap % 3 == 2
        both.ring.suppress_interrupts(suppressed)
        for count in range(1, kind.size + 1):
            for _ in range(count):
                both.ring.add([IN])
            both.ring.publish()
            interrupts = [both.device.complete([element], 0) for element in both.device.fetch()]
            # With the event index the first one is enough until it is taken (2.7.7, 2.8.10).
            after_first = not suppressed and not kind.event_idx
            assert interrupts == [not suppressed] + [after_first] * (count - 1)
            while both.ring.take_used():
                pass
