"""What GitHub Actions shows of a run: a summary of the job, and failed tests at their lines.

Responsible for GitHub's files and commands, and that nothing which a guest has said is taken for a command; a plugin of
its own that is there only on GitHub, in the process that prints. Must not know how text becomes Markdown.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_virtio.plugin import provenance
from pytest_virtio.plugin.reports import is_of_virtio_test

if TYPE_CHECKING:
    from pytest_virtio.render import FailedTest

__all__ = ("pytest_terminal_summary", "register")

SUMMARY_BYTES = 1000 * 1024
"""GitHub takes 1024 KiB from a step, and drops all of it when it is more."""
ANNOTATIONS = 10
"""GitHub shows no more errors of a step."""
_MESSAGE_LIMIT = 4000
_CATEGORIES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")


def register(config: pytest.Config) -> None:
    """Take part in the run if GitHub runs it and this process prints."""
    if os.environ.get("GITHUB_ACTIONS") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(sys.modules[__name__], "virtio-github")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """Keep GitHub from taking reports for commands, then give it our own; of a run with virtio tests.

    What looks like a command may stand in consoles, in stderr, and in exceptions that cite them; the runner takes the
    older form of commands from anywhere in a line. So while reports are printed it is told to take none: the word that
    ends this is known to no guest.
    """
    reports = [report for report in _all(terminalreporter) if is_of_virtio_test(report)]
    if not reports:
        return (yield)
    word = secrets.token_hex(16)
    terminalreporter.write_line(f"::stop-commands::{word}")
    try:
        return (yield)
    finally:
        terminalreporter.write_line(f"::{word}::")
        for line in (*_annotations(config, reports), *_summarise(terminalreporter, reports)):
            terminalreporter.write_line(line)


def _all(terminalreporter: pytest.TerminalReporter) -> Iterator[Any]:
    """All that was counted: of what was deselected, tests instead of reports."""
    return (report for reports in terminalreporter.stats.values() for report in reports)


def _failed(reports: Sequence[Any]) -> list[Any]:
    return [report for report in reports if report.outcome == "failed"]


def _annotations(config: pytest.Config, reports: Sequence[Any]) -> Iterator[str]:
    failed = _failed(reports)
    for report in failed[:ANNOTATIONS]:
        file, line = _place(report, config)
        yield _command("error", {"file": file, "line": str(line), "title": report.nodeid}, _message(report))
    if len(failed) > ANNOTATIONS:
        yield f"virtio: {len(failed) - ANNOTATIONS} more failed tests have no annotation: GitHub shows {ANNOTATIONS}"


def _command(name: str, properties: Mapping[str, str], message: str) -> str:
    listed = ",".join(f"{key}={_escaped(value, ':,')}" for key, value in properties.items())
    return f"::{name} {listed}::{_escaped(message)}"


def _escaped(value: str, more: str = "") -> str:
    """As the runner reads it (actions/runner, ActionCommand.cs): all values less ``%``, CR and LF, a property's also
    less what divides properties."""
    from pytest_virtio import render

    shown = render.escape(value, _MESSAGE_LIMIT, keep="head")
    return "".join(f"%{ord(character):02X}" if character in f"%\r\n{more}" else character for character in shown)


def _place(report: Any, config: pytest.Config) -> tuple[str, int]:
    """The file, relative to the repository, and the line in it: where it failed, if that is in the test's own file."""
    name, line, _ = report.location
    path = config.rootpath / name
    crash = getattr(report.longrepr, "reprcrash", None)
    # A worker elsewhere has the same tests under another directory, whose paths say nothing here.
    if crash is not None and config.invocation_params.dir / crash.path == path:
        line = crash.lineno - 1
    root = Path(os.environ.get("GITHUB_WORKSPACE") or config.rootpath)
    return os.path.relpath(path, root) if path.is_relative_to(root) else str(name), (line or 0) + 1


def _message(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(report.longrepr) if crash is None else str(crash.message)


def _summarise(terminalreporter: pytest.TerminalReporter, reports: Sequence[Any]) -> Iterator[str]:
    """Append to the step's summary; a line where that can't be done."""
    from pytest_virtio import render

    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        yield "virtio: no job summary: GITHUB_STEP_SUMMARY is not set"
        return
    ran_on = [render.provenance_line(known) for known in provenance.ran_on(reports)]
    failed = [_failed_test(report) for report in _failed(reports)]
    try:
        with Path(name).open("ab") as file:
            # Others may have written to it.
            room = SUMMARY_BYTES - file.tell()
            file.write(render.job_summary(_totals(terminalreporter), ran_on, failed, room).encode())
    except OSError as error:
        yield f"virtio: no job summary: {render.escape(str(error))}"


def _failed_test(report: Any) -> FailedTest:
    from pytest_virtio.render import FailedTest

    first, *_ = _message(report).splitlines() or [""]
    return FailedTest(report.nodeid, first, report.longreprtext)


def _totals(terminalreporter: pytest.TerminalReporter) -> str:
    counts = {category: len(terminalreporter.stats.get(category, ())) for category in _CATEGORIES}
    return ", ".join(f"{count} {category}" for category, count in counts.items() if count)
