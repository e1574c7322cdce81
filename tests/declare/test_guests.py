"""Guests by name and by object."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio.declare.guests import Firmware, Guest, Linux, NoGuest, guest_named
from pytest_virtio.errors import NotSupportedError, UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("guest", "expected"),
    [
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


def test_scripted_is_not_here_yet() -> None:
    with pytest.raises(NotSupportedError) as caught:
        guest_named("scripted")
    assert str(caught.value) == (
        "guest='scripted', the default, is not in this version yet: choose guest='linux' or guest='firmware' "
        "in the marker, or set --virtio-guest (ini: virtio_guest)"
    )


@pytest.mark.parametrize("guest", [None, 5, Linux, ["linux"]])
def test_what_is_no_guest(guest: object) -> None:
    with pytest.raises(UsageError) as caught:
        guest_named(guest)  # type: ignore[arg-type]
    assert str(caught.value) == f"guest={guest!r}: write 'linux', 'firmware', Linux(...) or Firmware(...)"


@pytest.mark.parametrize("modules", ["a.ko", Path("a.ko")])
def test_one_module_is_no_list_of_modules(modules: str | Path) -> None:
    with pytest.raises(UsageError) as caught:
        Linux(modules=modules)  # type: ignore[arg-type]
    assert str(caught.value) == f"Linux(modules={modules!r}): a list is expected: [{modules!r}]"
