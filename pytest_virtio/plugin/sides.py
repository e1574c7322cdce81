"""What became of a test on each of two QEMUs, and in which words the two differ.

Responsible for outcomes and for pairing the VMs of both sides; must not know hooks. What differs between two profiles
is the model's to say, and the words for it are those of a baseline.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from pytest_virtio.baseline.codec import loads
from pytest_virtio.model.difference import compare
from pytest_virtio.render.baseline import baseline_changes
from pytest_virtio.render.text import escape

__all__ = ("Ran", "Sides", "alike", "differing")

_REASON_LIMIT = 300
_PASSING = re.compile(r"0x[0-9a-f]+|\bpid \d+|/\S+")
"""Addresses, processes and paths."""


@dataclass(slots=True)
class Ran:
    """What became of a test on one QEMU."""

    outcome: str = "passed"
    reason: str = ""
    """The verdict, or why it was skipped, in a line."""
    profiles: list[str] = field(default_factory=list)
    """Of its VMs, in the order in which they were looked at; ``""`` of one that could not be asked."""

    def take(self, report: pytest.TestReport, profiles: Sequence[str]) -> None:
        """Take in one of its phases; the first that did not pass is what became of it."""
        self.profiles += profiles
        if self.outcome == "passed":
            self.outcome, self.reason = _outcome(report), _reason(report)

    def __str__(self) -> str:
        return self.outcome + (f": {self.reason}" if self.reason else "")


Sides = dict[int, Ran]
"""Both sides of a test, 0 and 1; one that did not run is not there."""


def differing(tests: Mapping[str, Sides], names: tuple[str, str]) -> dict[tuple[str, ...], list[str]]:
    """What differs, in lines, each with the tests of which it is true."""
    found: dict[tuple[str, ...], list[str]] = {}
    for test, sides in tests.items():
        lines = tuple(_differences(sides, names))
        if lines:
            found.setdefault(lines, []).append(test)
    return found


def alike(tests: Mapping[str, Sides], names: tuple[str, str]) -> str:
    """How many tests do not differ, in words; those apart of which that says little."""
    if not tests:
        return "no test ran on either"
    same = [sides for sides in tests.values() if not any(_differences(sides, names))]
    skipped = sum(sides[0].outcome == "skipped" for sides in same)
    dark = sum("" in sides[0].profiles for sides in same)
    count = len(same) - skipped - dark
    return ", ".join(
        [
            f"{count} {'test is' if count == 1 else 'tests are'} alike on {names[0]} and {names[1]}",
            *([f"{skipped} skipped on both"] if skipped else []),
            *([f"{dark} whose VMs could not be asked on either"] if dark else []),
        ]
    )


def _differences(sides: Sides, names: tuple[str, str]) -> Iterator[str]:
    before, now = sides.get(0), sides.get(1)
    if before is None or now is None:
        yield from (f"{names[side]}: {sides.get(side, 'did not run')}" for side in (0, 1))
        return
    vms = len(before.profiles), len(now.profiles)
    if (before.outcome, _lasting(before.reason)) != (now.outcome, _lasting(now.reason)):
        yield from (f"{names[side]}: {sides[side]}" for side in (0, 1))
    elif vms[0] != vms[1]:
        yield f"VMs: {vms[0]} on {names[0]}, {vms[1]} on {names[1]}"
    for number, (was, is_) in enumerate(zip(before.profiles, now.profiles, strict=False), 1):
        lines = list(_changes(was, is_, names))
        if lines and max(vms) > 1:
            yield f"VM {number} of {max(vms)}"
        yield from lines


def _changes(before: str, now: str, names: tuple[str, str]) -> Iterator[str]:
    if not before or not now:
        if before or now:
            yield f"{names[1] if before else names[0]}: its VM could not be asked for what was negotiated"
        return
    was, is_ = (loads(text.encode(), name).profile for text, name in zip((before, now), names, strict=True))
    found = compare(was, is_)
    if found.changes or found.untold:
        yield from baseline_changes(found)


def _lasting(reason: str) -> str:
    """Without what is another one in each run."""
    return _PASSING.sub("", reason)


def _outcome(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    return "error" if report.failed and report.when != "call" else str(report.outcome)


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        said = report.longrepr[2].removeprefix("Skipped: ")
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        said = crash.message if crash else str(report.longrepr or "")
    return escape(said.partition("\n")[0], _REASON_LIMIT, keep="head")
