"""Arithmetic on deadlines, with a clock that stands still."""

from __future__ import annotations

import threading
import time

import pytest

from pytest_virtio.errors import UsageError
from pytest_virtio.vm.deadline import LONGEST_SECONDS, Deadline


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_time_runs_out(clock: list[float]) -> None:
    limit = Deadline.after(5)
    assert (limit.seconds, limit.remaining(), limit.passed()) == (5, 5.0, False)
    clock[0] = 104.0
    assert (limit.remaining(), limit.passed()) == (1.0, False)
    clock[0] = 105.0
    assert (limit.remaining(), limit.passed()) == (0.0, True)
    clock[0] = 200.0
    assert (limit.remaining(), limit.passed()) == (0.0, True)


def test_zero_is_passed_at_once() -> None:
    assert Deadline.after(0).passed()


def test_longer_than_the_system_can_wait() -> None:
    limit = Deadline.after(1e300)
    assert limit.remaining() == LONGEST_SECONDS
    assert threading.TIMEOUT_MAX > LONGEST_SECONDS
    assert LONGEST_SECONDS * 1000 < 2**31


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan"), None, "5"])
def test_impossible_timeouts(seconds: object) -> None:
    with pytest.raises(UsageError) as caught:
        Deadline.after(seconds)  # type: ignore[arg-type]
    assert str(caught.value) == f"a timeout is a number of seconds from 0 up, finite; got {seconds!r}"
