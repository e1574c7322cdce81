"""A ring and the device at its other end, in every variety that can be negotiated."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from pytest_virtio.ring.driver import Buffer, DriverRing
from pytest_virtio.ring.packed import PackedRing
from pytest_virtio.ring.split import SplitRing
from pytest_virtio.spec.layout import ByteOrder
from pytest_virtio.spec.ring import Areas

from .device import Device, PackedDevice, SplitDevice
from .ram import BASE, Ram

AREAS = Areas(BASE + 0x1000, BASE + 0x2000, BASE + 0x3000)
TABLES = BASE + 0x4000
RAM_SIZE = 0x8000


@dataclass(frozen=True)
class Kind:
    packed: bool
    size: int
    order: ByteOrder = "little"
    event_idx: bool = False
    in_order: bool = False


@dataclass
class Pair:
    ram: Ram
    ring: DriverRing
    device: Device


def pair(kind: Kind) -> Pair:
    """Make both ends, in RAM full of rubbish."""
    ram = Ram(RAM_SIZE)
    ram.data[:] = b"\xa5" * RAM_SIZE
    device: Device
    if kind.packed:
        packed = PackedRing(ram, AREAS, kind.size, event_idx=kind.event_idx, in_order=kind.in_order)
        return Pair(ram, packed, PackedDevice(ram, AREAS, kind.size, kind.event_idx))
    split = SplitRing(ram, AREAS, kind.size, order=kind.order, event_idx=kind.event_idx, in_order=kind.in_order)
    device = SplitDevice(ram, AREAS, kind.size, kind.order, kind.event_idx)
    return Pair(ram, split, device)


KINDS = st.one_of(
    st.builds(
        Kind,
        packed=st.just(False),
        size=st.sampled_from([1, 2, 4, 8]),
        order=st.sampled_from(["little", "big"]),
        event_idx=st.booleans(),
        in_order=st.booleans(),
    ),
    st.builds(Kind, packed=st.just(True), size=st.integers(1, 8), event_idx=st.booleans(), in_order=st.booleans()),
)


@st.composite
def _chains(draw: st.DrawFn) -> list[Buffer]:
    pieces = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
    readable = draw(st.lists(pieces, max_size=3))
    writable = draw(st.lists(pieces, min_size=0 if readable else 1, max_size=3))
    return [Buffer(*piece) for piece in readable] + [Buffer(*piece, device_writes=True) for piece in writable]


CHAINS = _chains()
_SHAPES: list[tuple[bool, int, ByteOrder]] = [
    (False, 4, "little"),
    (False, 4, "big"),
    (True, 4, "little"),
    (True, 5, "little"),
]
EVERY_KIND = [
    Kind(packed, size, order, event_idx, in_order)
    for packed, size, order in _SHAPES
    for event_idx in (False, True)
    for in_order in (False, True)
]
