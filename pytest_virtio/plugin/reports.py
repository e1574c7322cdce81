"""The failure report: taken while the VM still runs, attached to the test's own failure, never in its place.

Responsible for which VMs a failing test is about and for putting their reports where terminal, JUnit and xdist find
them; must not know what is in them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_virtio.errors import VirtioError
from pytest_virtio.plugin import artifacts, failures, provenance
from pytest_virtio.plugin.carried import reports_with
from pytest_virtio.plugin.qemus import takes_the_runs
from pytest_virtio.plugin.session import VirtioSession, started_session

if TYPE_CHECKING:
    from pytest_virtio.handle import Evidence, Section, Virtio

__all__ = ("is_of_virtio_test", "pytest_runtest_makereport")

REPORT_SECONDS = 5.0
"""For all VMs of a test together."""
_ATTRIBUTE = "virtio"
_OURS = "virtio_test"


def is_of_virtio_test(report: object) -> bool:
    """Whether a report is of a test that takes VMs, or has shown one."""
    return hasattr(report, _OURS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say what the test's VMs ran on; when it fails, attach their reports."""
    ran_on = provenance.record(item, call.when)
    report = yield from _reported(item, call)
    provenance.attach(report, ran_on)
    if ran_on or hasattr(report, _ATTRIBUTE) or takes_the_runs(item):
        # Plain data, as all that a report has to bring home from an xdist worker.
        setattr(report, _OURS, True)
    return report


def _reported(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    error = call.excinfo
    ours = error if error and isinstance(error.value, VirtioError) and not item.config.getoption("fulltrace") else None
    if ours:
        failures.leave_out_our_frames(ours)
    report = yield
    # A test that was expected to fail, strictly, and passes has failed without an exception.
    if report.failed:
        if ours:
            failures.show_error(report, item, ours)
        _show_vms(report, item, error.value if error else None)
    elif error is None:
        _keep_passed(report, item)
    return report


def _show_vms(report: pytest.TestReport, item: pytest.Item, error: BaseException | None) -> None:
    session = started_session(item.config)
    living = session.vms_of(item) if session and report.when != "teardown" else []
    carried = reports_with(error) if error else []
    found = [*carried, *_evidence_of(living, files=_artifacts_of(session))]
    _attach(report, item, [evidence.sections for evidence in found])
    if _artifacts_of(session) and (found or takes_the_runs(item)):
        artifacts.attach(report, [evidence.files for evidence in found])


def _keep_passed(report: pytest.TestReport, item: pytest.Item) -> None:
    """The VMs that a test leaves behind when its body has passed, if the user wants those too."""
    session = started_session(item.config)
    if session is None or report.when != "call" or not session.settings.keeps_all:
        return
    vms = _evidence_of(session.vms_of(item), files=True)
    if vms:
        artifacts.attach(report, [evidence.files for evidence in vms])


def _artifacts_of(session: VirtioSession | None) -> bool:
    """Whether the user wants artefacts; without a session there is nothing to keep."""
    return session is not None and session.settings.artifacts is not None


def _evidence_of(vms: Sequence[Virtio], *, files: bool) -> list[Evidence]:
    reports = []
    for virtio in vms:
        try:
            reports.append(virtio.evidence(REPORT_SECONDS / len(vms), files=files))
        except pytest.fail.Exception:
            # A time limit for the test, raised by a signal: the failure that is being reported came first.
            break
    return reports


def _attach(report: pytest.TestReport, item: pytest.Item, reports: list[tuple[Section, ...]]) -> None:
    if not reports:
        return
    shown: Any = failures.with_sections(report, item)
    for number, sections in enumerate(reports, 1):
        of = f" (VM {number} of {len(reports)})" if len(reports) > 1 else ""
        for section in sections:
            shown.addsection(section.title + of, section.text)
    setattr(report, _ATTRIBUTE, [[_plain(section) for section in sections] for sections in reports])


def _plain(section: Section) -> dict[str, object]:
    return {"title": section.title, "text": section.text, "data": section.data}
