"""One clock for all waits: a point in monotonic time by which something must have happened.

Responsible for arithmetic on deadlines; must not know what is waited for.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from pytest_virtio.errors import UsageError

__all__ = ("Deadline",)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock, so that several waits in a row share one limit."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that is ``seconds`` (finite, >= 0) from now.

        :raises UsageError: when ``seconds`` is negative or not finite.
        """
        if not math.isfinite(seconds) or seconds < 0:
            raise UsageError(f"a timeout is a number of seconds from 0 up, finite; got {seconds!r}")
        return cls(time.monotonic() + seconds, seconds)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    def passed(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.at

    def shortened(self, seconds: float) -> Deadline:
        """The nearer of this deadline and ``seconds`` from now."""
        other = Deadline.after(seconds)
        return other if other.at < self.at else self
