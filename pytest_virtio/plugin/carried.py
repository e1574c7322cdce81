"""What an exception carries to the report of the test that it fails: the state of the VMs that ended on its way.

Responsible for tying a VM's report to the exception that left its block, so that it shows with that failure (also when
a fixture of wider scope fails every test with the same exception) and with no other: an exception that the test
expected takes its reports with it. Must not know what is in a report.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_virtio.handle import Evidence

__all__ = ("carry", "reports_with")

# On the exception itself: those of builtin types can't be referred to weakly.
_ATTRIBUTE = "__pytest_virtio_reports__"


def carry(error: BaseException, report: Evidence) -> None:
    """Let the exception carry a report."""
    vars(error).setdefault(_ATTRIBUTE, []).append(report)


def reports_with(error: BaseException) -> list[Evidence]:
    """The reports that the exception carries, and all that it was raised from, while handling, or is a group of."""
    return [report for linked in _linked(error) for report in vars(linked).get(_ATTRIBUTE, ())]


def _linked(error: BaseException) -> Iterator[BaseException]:
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        linked = waiting.pop(0)
        if linked is None or id(linked) in seen:
            continue
        seen.add(id(linked))
        yield linked
        members = linked.exceptions if isinstance(linked, BaseExceptionGroup) else ()
        waiting += [linked.__cause__, linked.__context__, *members]
