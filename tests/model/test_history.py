"""Histories: drivers one after the other, and how often the last one began."""

from __future__ import annotations

import pytest

from pytest_virtio import render
from pytest_virtio.model.history import History, StatusStep, passes_of_last_driver

FIRMWARE = (3, 11, 15)
KERNEL = (1, 3, 11, 15)


def history(*values: int, machine: tuple[int, ...] = (0,), dropped: int = 0, full: bool = False) -> History:
    """:param machine: which of the steps are resets of the machine."""
    steps = (StatusStep(number / 1000, value, number in machine) for number, value in enumerate(values))
    return History(tuple(steps), "trace events", dropped, full)


def values(steps: tuple[StatusStep, ...]) -> tuple[int, ...]:
    return tuple(step.value for step in steps)


def test_it_is_a_sequence_of_steps() -> None:
    steps = history(0, 1, 3)
    assert (len(steps), steps[-1].value, values(steps[1:])) == (3, 3, (1, 3))
    assert steps[2].status == {"ACKNOWLEDGE", "DRIVER"}


def test_each_driver_begins_with_a_reset() -> None:
    all = history(0, *FIRMWARE, 0, *KERNEL, 0)
    assert [values(steps) for steps in all.drivers] == [(0, *FIRMWARE), (0, *KERNEL)]
    assert values(all.last) == (0, *KERNEL)
    assert history(0).drivers == ()
    assert history(0).last == ()


@pytest.mark.parametrize(
    ("steps", "alone", "count"),
    [
        ((0, *KERNEL), True, 1),
        ((0, *FIRMWARE, 0, *KERNEL), False, 1),
        ((0, *FIRMWARE, 0, *KERNEL), True, 2),
        ((0, *FIRMWARE, 0, 1, 3, 0, *KERNEL), False, 2),
        ((0, *FIRMWARE, 0, 1, 3, 0, 1, 3, 131, 0, *KERNEL), False, 3),
        # One that came to DRIVER_OK and gave up then is not done.
        ((0, *FIRMWARE, 143, 0, *KERNEL), False, 2),
        # Only noticed.
        ((0, 1, 0, *KERNEL), False, 1),
        ((0, 1), False, 0),
        ((0,), True, 0),
    ],
)
def test_passes_of_the_last_driver(steps: tuple[int, ...], alone: bool, count: int) -> None:
    assert len(passes_of_last_driver(history(*steps), alone=alone)) == count


def test_with_the_machine_everything_begins_anew() -> None:
    again = history(0, 1, 3, 0, *KERNEL, machine=(0, 3))
    assert [values(steps) for steps in passes_of_last_driver(again, alone=True)] == [(0, *KERNEL)]


def test_a_line_a_driver() -> None:
    assert list(render.status_history(history(0, *FIRMWARE, 0, 1, 3, 11, 3, 131))) == [
        "0.0000 s: machine reset, ACKNOWLEDGE DRIVER (+1.0 ms), FEATURES_OK (+1.0 ms), DRIVER_OK (+1.0 ms)",
        "0.0040 s: reset, ACKNOWLEDGE (+1.0 ms), DRIVER (+1.0 ms), FEATURES_OK (+1.0 ms), -FEATURES_OK (+1.0 ms), "
        "FAILED (+1.0 ms)",
        "source: trace events",
    ]


def test_it_can_be_printed() -> None:
    assert str(history(0, 1, 67 | 8, dropped=3, full=True)).splitlines() == [
        "(3 older steps are not kept)",
        "0.0000 s: machine reset",
        "0.0010 s: ACKNOWLEDGE",
        "0.0020 s: ACKNOWLEDGE DRIVER FEATURES_OK NEEDS_RESET",
        "(the log is full: newer steps are not known)",
        "source: trace events",
    ]
    assert str(history(0x10, 0)[0]) == "0.0000 s: 0x10"
    assert str(history(1, 0)[1]) == "0.0010 s: reset"


def test_long_histories_take_few_lines() -> None:
    lines = list(render.status_history(history(*[0, 1] * 400, 0, *[1, 3] * 400, dropped=7, full=True)))
    assert lines[0] == "(7 older steps are not kept, 393 older drivers not shown)"
    assert "… 789 steps …" in lines[8]
    assert lines[-2] == "(the log is full: what came later is not known)"
    assert len(lines) == 11
    assert max(map(len, lines)) < 400
