"""The wait for DRIVER_OK, against a device whose states are given; test_trouble.py has real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_virtio import DeviceStalledError, Features, GuestPanicError, VirtioStatus
from pytest_virtio.guest.ready import await_driver_ok
from pytest_virtio.spec.devices import device_type
from pytest_virtio.vm.deadline import Deadline

DRIVEN = ("ACKNOWLEDGE", "DRIVER", "FEATURES_OK", "DRIVER_OK")


def _device(*states: tuple[str, ...]) -> Callable[[str], VirtioStatus]:
    """A device that goes through the states, and stays in the last."""
    left: Iterator[tuple[str, ...]] = iter(states)
    none = Features(0, device_type(2))

    def status(_: str) -> VirtioStatus:
        names = frozenset(next(left, states[-1]))
        return VirtioStatus(
            name="virtio-blk", device_id=2, status=names, guest_features=none, host_features=none, source="test"
        )

    return status


def test_seen_once_is_enough() -> None:
    states = _device((), DRIVEN[:1], DRIVEN, ())
    seen = await_driver_ok(["blk0"], states, Deadline.after(60), lambda: None)
    assert seen["blk0"].status == frozenset(DRIVEN)


def test_nothing_to_wait_for() -> None:
    assert await_driver_ok([], _device(()), Deadline.after(0), lambda: None) == {}


def test_the_deadline_names_stage_and_hint() -> None:
    words = r"^not at DRIVER_OK within 0 s: blk0 stands at DRIVER: a driver took the device, .*; a hint$"
    with pytest.raises(DeviceStalledError, match=words):
        await_driver_ok(["blk0"], _device(DRIVEN[:2]), Deadline.after(0), lambda: None, "; a hint")


def test_what_ends_the_wait_ends_it_at_once() -> None:
    def check() -> None:
        raise GuestPanicError("panic")

    with pytest.raises(GuestPanicError):
        await_driver_ok(["blk0"], _device(()), Deadline.after(600), check)
