"""One clock for all waits: a point in monotonic time by which something must have happened.

Responsible for arithmetic on deadlines; must not know what is waited for.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from pytest_virtio.errors import UsageError

__all__ = (
    "LONGEST_SECONDS",
    "Deadline",
)

LONGEST_SECONDS = 1_000_000.0
"""Eleven days. poll(2) takes milliseconds in a C int, 24 days; a longer wait would be an OverflowError."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock, so that several waits in a row share one limit."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that is ``seconds`` (finite, >= 0) from now, or :data:`LONGEST_SECONDS` if that is less.

        :raises UsageError: when ``seconds`` is negative, not finite or no number.
        """
        if not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
            raise UsageError(f"a timeout is a number of seconds from 0 up, finite; got {seconds!r}")
        return cls(time.monotonic() + min(seconds, LONGEST_SECONDS), seconds)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    def passed(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.at
