"""Layouts of virtqueues against the numbers of virtio 1.3 sections 2.7 and 2.8, and Linux's vring_size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.errors import UsageError
from pytest_virtio.spec import ring
from pytest_virtio.spec.ring import Areas, legacy_areas, legacy_size, packed_sizes, split_sizes

POWERS = st.integers(0, 15).map(lambda n: 1 << n)


def test_sizes() -> None:
    assert split_sizes(256) == (4096, 518, 2054)
    assert split_sizes(1) == (16, 8, 14)
    assert split_sizes(32768) == (524288, 65542, 262150)
    assert packed_sizes(256) == (4096, 4, 4)
    assert packed_sizes(7) == (112, 4, 4)


def test_legacy_layout() -> None:
    assert legacy_areas(0x10000, 256) == Areas(0x10000, 0x11000, 0x12000)
    assert legacy_size(256) == 3 * 4096
    assert legacy_areas(0, 8, 64) == Areas(0, 128, 192)
    assert legacy_size(8, 64) == 192 + 128


@given(size=POWERS, align=st.integers(2, 16).map(lambda n: 1 << n), pages=st.integers(0, 100))
def test_legacy_parts_follow_one_another(size: int, align: int, pages: int) -> None:
    base = pages * align
    areas = legacy_areas(base, size, align)
    table, avail, used = split_sizes(size)
    assert areas.descriptors + table == areas.driver
    assert 0 <= areas.device - (areas.driver + avail) < align
    assert areas.device % align == 0
    assert areas.device + used <= base + legacy_size(size, align) < areas.device + used + align


@given(size=POWERS)
def test_event_fields_end_their_rings(size: int) -> None:
    _, avail, used = split_sizes(size)
    assert ring.used_event_offset(size) + 2 == avail
    assert ring.avail_event_offset(size) + 2 == used


def test_impossible_numbers() -> None:
    for size in (0, 3, 65536, -1):
        with pytest.raises(UsageError, match="power of two"):
            split_sizes(size)
    for size in (0, 32769):
        with pytest.raises(UsageError, match="1 to 32768"):
            packed_sizes(size)
    for align in (0, 3, 2, -4096):
        with pytest.raises(UsageError, match="Queue Align"):
            legacy_size(256, align)
        with pytest.raises(UsageError, match="Queue Align"):
            legacy_areas(0, 256, align)
    with pytest.raises(UsageError, match="begins at a multiple of 4096, not at 0x10010"):
        legacy_areas(0x10010, 256)


def test_flags() -> None:
    assert {flag.name: flag.value for flag in ring.DescriptorFlag} == {
        "NEXT": 1,
        "WRITE": 2,
        "INDIRECT": 4,
        "AVAIL": 0x80,
        "USED": 0x8000,
    }
    assert [ring.AvailFlag.NO_INTERRUPT.value, ring.UsedFlag.NO_NOTIFY.value] == [1, 1]
    assert {event.name: event.value for event in ring.RingEvent} == {"ENABLE": 0, "DISABLE": 1, "DESC": 2}
    assert [ring.available_flags(True), ring.available_flags(False)] == [0x80, 0x8000]
    assert [ring.used_flags(True), ring.used_flags(False)] == [0x8080, 0]


def test_structures() -> None:
    assert ring.SPLIT_DESCRIPTOR["little"].size == ring.PACKED_DESCRIPTOR.size == ring.DESCRIPTOR_SIZE == 16
    assert ring.USED_ELEMENT["big"].pack(1, 2) == bytes.fromhex("00000001 00000002")
