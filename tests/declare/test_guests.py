"""Guests by name and by object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_virtio.declare.devices import Blk
from pytest_virtio.declare.guests import Firmware, Guest, Linux, NoGuest, Scripted, guest_named
from pytest_virtio.declare.spec import vm_spec
from pytest_virtio.errors import UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("guest", "expected"),
    [
        ("scripted", Scripted()),
        ("linux", Linux()),
        ("firmware", Firmware()),
        (Linux(append="quiet"), Linux(append="quiet")),
        (Firmware(bios="b"), Firmware(bios="b")),
        (NoGuest(), NoGuest()),
    ],
)
def test_guest_named(guest: str | Guest, expected: Guest) -> None:
    assert guest_named(guest) == expected


def test_an_unknown_guest_names_the_near_one() -> None:
    with pytest.raises(UnknownNameError) as caught:
        guest_named("Linus")
    assert str(caught.value) == "unknown guest: 'Linus'. Did you mean 'linux'?"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"features": {"blk0": {"VERSION_1", 9}, "net0": []}},
        {"without": {"blk0": ["EVENT_IDX"]}},
        {"without": ["EVENT_IDX"]},
        {"features": {"blk0": ()}, "without": {"net0": {"MQ"}}},
        {"features": {"blk0": ()}, "without": ["MQ"]},
        {"interrupts": "none"},
    ],
)
def test_settings_of_the_scripted_guest(settings: dict[str, Any]) -> None:
    guest = Scripted(**settings)
    assert {name: getattr(guest, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"features": ["MQ"]},
            "Scripted(features=['MQ']): write sets of features by device: {'blk0': {'VIRTIO_F_VERSION_1', 'MQ'}}",
        ),
        ({"features": {"blk0": "MQ"}}, "Scripted(features={'blk0': 'MQ'}): write sets of features by device"),
        ({"features": {"blk0": 5}}, "Scripted(features={'blk0': 5}): write sets of features by device"),
        ({"features": None}, "Scripted(features=None): write sets of features by device"),
        ({"without": "MQ"}, "Scripted(without='MQ'): write sets of features by device"),
        ({"without": {"blk0": "MQ"}}, "Scripted(without={'blk0': 'MQ'}): write sets of features by device"),
        ({"interrupts": "msi"}, "unknown kind of interrupts: 'msi'. Did you mean 'msix'?"),
        ({"interrupts": None}, "unknown kind of interrupts: 'None'"),
        (
            {"features": {"blk0": {"MQ"}}, "without": {"blk0": {"RO"}}},
            "Scripted: features= says exactly what blk0 takes, so nothing can be left out of it by without=",
        ),
    ],
)
def test_settings_that_can_not_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Scripted(**settings)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("guest", [None, 5, Linux, ["linux"]])
def test_what_is_no_guest(guest: object) -> None:
    with pytest.raises(UsageError) as caught:
        guest_named(guest)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"guest={guest!r}: write 'scripted', 'linux', 'firmware', Scripted(...), Linux(...) or Firmware(...)"
    )


@pytest.mark.parametrize("modules", ["a.ko", Path("a.ko")])
def test_one_module_is_no_list_of_modules(modules: str | Path) -> None:
    with pytest.raises(UsageError) as caught:
        Linux(modules=modules)  # type: ignore[arg-type]
    assert str(caught.value) == f"Linux(modules={modules!r}): a list is expected: [{modules!r}]"


@pytest.mark.parametrize("transport", ["pci", "mmio"])
def test_a_legacy_interface_that_is_not_there(transport: str) -> None:
    with pytest.raises(UsageError, match=r"legacy=True.*write transport='pci-transitional'"):
        vm_spec([Blk()], {"guest": Scripted(legacy=True), "transport": transport}, {})


@pytest.mark.parametrize("wrong", [{"features": {1: {"MQ"}}}, {"without": {1: {"MQ"}}}, {"legacy": "yes"}])
def test_settings_of_the_wrong_kind(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"Scripted\("):
        Scripted(**wrong)
