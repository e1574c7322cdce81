"""What was judged of a device: its history, who is stuck, which rules are broken, in words.

Responsible for one line or a few for each; must not judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from pytest_virtio.model.conformance import Breach
from pytest_virtio.model.history import History, StatusStep
from pytest_virtio.model.stuck import QueueVerdict
from pytest_virtio.render.text import escape, safe
from pytest_virtio.spec.status import INITIALISATION_ORDER

__all__ = ("breaches", "status_history", "stuck")

_INITIALISATION: Final = [flag.name for flag in INITIALISATION_ORDER]
_SHOWN_DRIVERS: Final = 8
_SHOWN_STEPS: Final = 6


def status_history(history: History) -> Iterator[str]:
    """Yield a line for each driver with the steps that it made, the last driver last, and one with the source."""
    groups = history.groups
    left_out = len(groups) - _SHOWN_DRIVERS
    if history.dropped or left_out > 0:
        yield f"({history.dropped} older steps are not kept, {max(left_out, 0)} older drivers not shown)"
    for steps in groups[-_SHOWN_DRIVERS:]:
        words = [_step(before, step) for before, step in zip((None, *steps), steps, strict=False)]
        shown = [*words[:_SHOWN_STEPS], f"… {len(words) - 2 * _SHOWN_STEPS} steps …", *words[-_SHOWN_STEPS:]]
        yield f"{steps[0].seconds:.4f} s: " + ", ".join(shown if len(words) > 2 * _SHOWN_STEPS else words)
    if history.full:
        yield "(the log is full: what came later is not known)"
    yield f"source: {safe(history.source)}"


def _step(before: StatusStep | None, step: StatusStep) -> str:
    """What a step set and cleared, and how long after the one before."""
    if not step.value:
        words = ["machine reset" if step.by_machine else "reset"]
    else:
        old = before.status if before else frozenset()
        words = [*sorted(step.status - old, key=_in_order), *(f"-{name}" for name in sorted(old - step.status))]
    after = f" (+{(step.seconds - before.seconds) * 1e3:.1f} ms)" if before else ""
    return " ".join(words) + after


def _in_order(name: str) -> int:
    return _INITIALISATION.index(name) if name in _INITIALISATION else len(_INITIALISATION)


def stuck(verdict: QueueVerdict) -> Iterator[str]:
    """Yield who owes a queue its next move, then the facts that tell it."""
    yield from (escape(line) for line in str(verdict).splitlines())


def breaches(found: Iterable[Breach]) -> Iterator[str]:
    """Yield a line for each broken rule, its section last."""
    for breach in found:
        yield f"{safe(breach.words)} ({breach.document} section {breach.section})"
