"""How a profile differs from another, in words.

Responsible for wording, order and length; must not decide what is a difference, nor who caused it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from pytest_virtio.model.difference import Change, Comparison, Effect, Kind, Untold
from pytest_virtio.model.profile import ConfigValue
from pytest_virtio.model.provenance import Provenance
from pytest_virtio.render.text import escape, safe

__all__ = ("baseline_changes", "baseline_difference")

_SHOWN: Final = 200
_VALUE_LIMIT: Final = 120
_MARKS: Final = {Effect.LOST: "-", Effect.GAINED: "+", Effect.CHANGED: "~"}
_UNTOLD: Final = "?"


def baseline_difference(comparison: Comparison) -> Iterator[str]:
    """Yield the verdict; then, if anything differs or hides, the changes by device and on what each side was seen.

    A line of a change begins with two spaces and ``-`` for lost, ``+`` for gained or ``~`` for something else, and one
    that an allowance covers ends in ``(allowed: …)``. Of more than 200 changes the rest is counted.
    """
    yield _verdict(comparison.changes)
    yield from baseline_changes(comparison)
    if comparison.changes:
        yield from _provenance(comparison.before, comparison.now)


def baseline_changes(comparison: Comparison) -> Iterator[str]:
    """Yield of these lines only the changes by device, and what could not be compared."""
    for device, changes in groupby(comparison.changes[:_SHOWN], key=lambda change: change.device):
        yield safe(device)
        yield from map(_change, changes)
    if len(comparison.changes) > _SHOWN:
        yield f"and {len(comparison.changes) - _SHOWN} more changes"
    yield from map(_untold, comparison.untold[:_SHOWN])


def _verdict(changes: Sequence[Change]) -> str:
    failing = [change for change in changes if not change.allowed]
    if not failing:
        return f"no difference but {len(changes)} that an allowance covers" if changes else "no difference"
    gravest = min(failing, key=lambda change: change.gravity)
    more = f" (and {len(failing) - 1} more)" if len(failing) > 1 else ""
    return f"{safe(gravest.device)}: {_what(gravest)}: {gravest.cause.value}{more}"


def _what(change: Change) -> str:
    if change.effect is Effect.CHANGED:
        return f"{safe(change.name)} {_step(change)}"
    return f"{safe(change.name)} {change.effect.value}"


def _change(change: Change) -> str:
    allowed = f" (allowed: {safe(change.allowance.reason)})" if change.allowance else ""
    return f"  {_MARKS[change.effect]} {safe(change.name)}: {_step(change)}: {change.cause.value}{allowed}"


def _step(change: Change) -> str:
    return f"{_value(change, change.before)} -> {_value(change, change.now)}"


def _value(change: Change, value: ConfigValue | None) -> str:
    """Texts of a device stand in quotes, our own words do not."""
    if value is None:
        return "none"
    shown = repr(value) if change.kind is Kind.CONFIG else str(value)
    return escape(shown, _VALUE_LIMIT, keep="head")


def _untold(untold: Untold) -> str:
    side, other = ("before", "now") if untold.before else ("now", "before")
    return f"{safe(untold.device)}: not compared: {untold.what} ({untold.count}): told {side}, not told {other}"


def _provenance(before: Provenance, now: Provenance) -> Iterator[str]:
    rows = list(_rows(before, now))
    differing = [f"  {what}: {was} -> {is_}" for what, was, is_ in rows if was != is_]
    if differing:
        yield from ("seen on, before -> now:", *differing)
        return
    same = ", ".join(f"{what} {was}" for what, was, _ in rows)
    yield f"seen on the same{': ' + same if same else ', as far as is told'}"
    yield "so the command line, a property of the device or the guest's settings must have changed"


def _rows(before: Provenance, now: Provenance) -> Iterator[tuple[str, str, str]]:
    """What each side was seen on: part, before, now; no line of a part that neither tells."""
    parts = _parts(before), _parts(now)
    for what in dict.fromkeys((*parts[0], *parts[1])):
        yield what, parts[0].get(what, _UNTOLD), parts[1].get(what, _UNTOLD)


def _parts(provenance: Provenance) -> dict[str, str]:
    build = f" ({provenance.qemu_build})" if provenance.qemu_build else ""
    parts = {
        "QEMU": provenance.qemu + build,
        "machine": provenance.machine,
        "accelerator": provenance.accelerator,
        "guest": provenance.guest,
        "kernel": provenance.kernel,
        "firmware": provenance.firmware,
        **{f"backend of {id}": version for id, version in sorted(provenance.backends.items())},
        "pytest-virtio": provenance.plugin,
    }
    return {safe(what): safe(version.strip()) for what, version in parts.items() if version}
