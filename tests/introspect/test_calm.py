"""When drivers are taken to be at rest. A real driver that is not is in ``tests/soak/test_statuses.py``."""

from __future__ import annotations

import time

from pytest_virtio.introspect.calm import CALM_SECONDS, Calm
from pytest_virtio.vm.deadline import Deadline


class Log:
    """One with device statuses that were written so many seconds ago."""

    def __init__(self, *ago: float, full: bool = False) -> None:
        now = time.time()
        self.text, self.full = "".join(f"1@{now - each:.6f}:virtio_set_status vdev 0x1 val 7\n" for each in ago), full

    def read(self) -> tuple[str, bool]:
        return self.text, self.full


class Busy(Log):
    """One in which a driver writes all the time."""

    def read(self) -> tuple[str, bool]:
        return Log(0.0).text, False


def waited(log: Log | None, *, idle: bool = False, seconds: float = 10) -> bool:
    return Calm(log, idle=idle).wait(Deadline.after(seconds))


def test_there_is_calm_a_moment_after_the_last_status() -> None:
    assert waited(Log(), seconds=0)
    assert waited(Log(5.0, CALM_SECONDS + 0.01), seconds=0)
    assert not waited(Log(5.0, 0.0), seconds=0)
    assert waited(Log(5.0, 0.0)), "it waits for that"


def test_nobody_waits_for_a_driver_that_never_rests() -> None:
    assert not waited(Busy())


def test_what_is_not_logged_is_not_known() -> None:
    assert not waited(None)
    assert not waited(Log(9.0, full=True))
    assert Calm(Log(9.0, full=True), idle=False).mark is None


def test_where_no_processor_runs_there_is_calm() -> None:
    assert waited(None, idle=True, seconds=0)
    assert waited(Busy(), idle=True, seconds=0)


def test_a_status_that_is_written_changes_the_mark() -> None:
    before, after = Calm(Log(9.0), idle=False), Calm(Log(9.0, 8.0), idle=False)
    assert before.mark != after.mark
    assert before.mark == before.mark
