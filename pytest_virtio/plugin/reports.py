"""The failure report: taken while the VM still runs, attached to the test's own failure, never in its place.

Responsible for which VMs a failing test is about and for putting their reports where terminal, JUnit and xdist find
them; must not know what is in them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest
from _pytest._code.code import ExceptionRepr

from pytest_virtio.errors import VirtioError
from pytest_virtio.plugin.session import VirtioSession, started_session

if TYPE_CHECKING:
    from pytest_virtio.handle import Section, Virtio

__all__ = ("pytest_runtest_makereport",)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the reports of the test's VMs when it fails."""
    session = started_session(item.config)
    if session is None:
        return (yield)
    _leave_out_our_frames(call)
    report = yield
    kept = session.take()
    if report.failed:
        _attach(report, [*kept, *_reports_of_living(session, item, report)])
    return report


def _reports_of_living(
    session: VirtioSession, item: pytest.Item, report: pytest.TestReport
) -> list[tuple[Section, ...]]:
    if report.when == "teardown":
        return []
    return [virtio.report() for virtio in _vms_of(session, item)]


def _vms_of(session: VirtioSession, item: pytest.Item) -> list[Virtio]:
    """The living VMs among the test's fixtures; if none is, they are behind something else, so all living ones."""
    fixtures = getattr(item, "funcargs", {}).values()
    return [vm for vm in session.live if any(vm is value for value in fixtures)] or list(session.live)


def _attach(report: pytest.TestReport, reports: list[tuple[Section, ...]]) -> None:
    for number, sections in enumerate(reports, 1):
        of = f" (VM {number} of {len(reports)})" if len(reports) > 1 else ""
        for section in sections:
            _add_section(report, section.title + of, section.text)
    if reports:
        # Plain data, so that it survives the way from an xdist worker.
        setattr(report, "virtio", [[_plain(section) for section in sections] for sections in reports])  # noqa: B010


def _plain(section: Section) -> dict[str, object]:
    return {"title": section.title, "text": section.text, "data": section.data}


def _add_section(report: pytest.TestReport, title: str, text: str) -> None:
    """Add to the failure itself: pytest shows that on the terminal and writes it into JUnit alike."""
    longrepr: Any = report.longrepr
    if isinstance(longrepr, ExceptionRepr):
        longrepr.addsection(title, text)
    else:
        report.longrepr = f"{longrepr}\n{f' {title} '.center(80, '-')}\n{text}"


def _leave_out_our_frames(call: pytest.CallInfo[None]) -> None:
    """Our errors speak for themselves: their traceback ends at the user's line."""
    error = call.excinfo
    if error is None or not isinstance(error.value, VirtioError):
        return
    theirs = error.traceback.filter(lambda entry: not _is_ours(entry.frame.f_globals.get("__name__", "")))
    if len(theirs):
        error.traceback = theirs
    error.value.__cause__ = None
    error.value.__suppress_context__ = True


def _is_ours(module: str) -> bool:
    return module == "pytest_virtio" or module.startswith("pytest_virtio.")
