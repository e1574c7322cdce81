"""``query-pci`` into the model: real replies in miniature, and broken ones."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_virtio.errors import ReplyError
from pytest_virtio.model.pci import PciBar, PciFunction
from pytest_virtio.qapi import parse_pci


def function(slot: int, qdev_id: str = "", **more: Any) -> dict[str, Any]:
    """As QEMU 7.2 tells of one, less what nobody needs."""
    return {
        "bus": 0,
        "slot": slot,
        "function": 0,
        "qdev_id": qdev_id,
        "class_info": {"class": 255},
        "id": {"device": 0x1044, "vendor": 0x1AF4, "subsystem": 0x1100},
        "irq": 0,
        "irq_pin": 1,
        "regions": [],
        **more,
    }


def bridge(slot: int, secondary: int, *behind: dict[str, Any], **more: Any) -> dict[str, Any]:
    return function(slot, **more, pci_bridge={"bus": {"number": 0, "secondary": secondary}, "devices": list(behind)})


def test_a_function() -> None:
    assert parse_pci([{"bus": 0, "devices": [function(3, "rng0")]}]) == (
        PciFunction(0, 3, 0, "rng0", 0x1AF4, 0x1044, pin=1, behind=None, is_bridge=False),
    )


def test_in_order_of_addresses() -> None:
    found = parse_pci([{"bus": 0, "devices": [function(3), function(1, function=1), function(1)]}])
    assert [(one.slot, one.function) for one in found] == [(1, 0), (1, 1), (3, 0)]


def test_behind_bridges_the_slot_on_the_root_bus_is_told() -> None:
    inner = bridge(2, 2, function(9, "deep", bus=2), bus=1)
    found = parse_pci([{"bus": 0, "devices": [bridge(5, 1, inner, function(4, "near", bus=1))]}])
    assert {(one.bus, one.slot): (one.qdev_id, one.behind, one.is_bridge) for one in found} == {
        (0, 5): ("", None, True),
        (1, 2): ("", 5, True),
        (1, 4): ("near", 5, False),
        (2, 9): ("deep", 5, False),
    }


def test_several_root_buses() -> None:
    found = parse_pci([{"bus": 0, "devices": [function(1)]}, {"bus": 100, "devices": [function(2, bus=100)]}])
    assert [(one.bus, one.behind) for one in found] == [(0, None), (100, None)]


def test_what_may_be_left_out() -> None:
    """A bridge with an unnumbered bus has no devices, a function without an interrupt no pin."""
    without_pin = function(1)
    del without_pin["irq_pin"]
    found = parse_pci([{"devices": [without_pin, function(2, pci_bridge={"bus": {}})]}, {"bus": 7}])
    assert [(one.slot, one.pin, one.is_bridge) for one in found] == [(1, 0, False), (2, 1, True)]


@pytest.mark.parametrize(
    ("reply", "key"),
    [
        (None, "return"),
        ({}, "return"),
        ([3], "[0]"),
        ([{"devices": 3}], "[0].devices"),
        ([{"devices": [3]}], "[0].devices[0]"),
        ([{"devices": [function(1, bus="x")]}], "[0].devices[0].bus"),
        ([{"devices": [function(-1)]}], "[0].devices[0].slot"),
        ([{"devices": [function(1, id=3)]}], "[0].devices[0].id"),
        ([{"devices": [function(1, id={"vendor": 1})]}], "[0].devices[0].id.device"),
        ([{"devices": [function(1, pci_bridge=3)]}], "[0].devices[0].pci_bridge"),
        ([{"devices": [bridge(1, 1, {})]}], "[0].devices[0].pci_bridge.devices[0].id"),
    ],
)
def test_broken_replies(reply: object, key: str) -> None:
    with pytest.raises(ReplyError) as caught:
        parse_pci(reply)
    assert caught.value.command == "query-pci"
    assert caught.value.key == key


def test_bars_with_their_places() -> None:
    regions = [
        {"bar": 0, "type": "io", "address": 0xC000, "size": 32},
        {"bar": 4, "type": "memory", "address": -1, "size": 16384, "prefetch": True, "mem_type_64": True},
    ]
    (found,) = parse_pci([{"bus": 0, "devices": [function(3, "rng0", regions=regions)]}])
    assert found.bars == (PciBar(0, "io", 0xC000, 32), PciBar(4, "memory", None, 16384))
    assert (found.address_of(0), found.address_of(4), found.address_of(1)) == (0xC000, None, None)
    assert (found.bar(4), found.bar(1)) == (found.bars[1], None)
