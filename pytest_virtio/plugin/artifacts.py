"""``--virtio-artifacts``: what is kept of tests in files.

Responsible for which tests' artefacts travel on their reports, and for writing them where the reports come together:
in this process, or, under xdist, in the controller alone, for its workers may be on other machines. Must not know what
is in them. Writing that fails is told at the end, and no test's failure is lost by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from pytest_virtio.plugin.options import Settings

__all__ = ("attach", "bounded", "pytest_sessionstart")

TOTAL_LIMIT = 32 << 20
"""Bytes of all files of a test, as they are written: each is bounded, and so are the VMs together."""
FAILURE_LIMIT = 3 << 20
CAPTURED_LIMIT = 1 << 20
"""Of all sections that a test's output was captured in."""
_WORDS_LIMIT = 1000
_ATTRIBUTE = "virtio_artifacts"
_TOO_MUCH = f"left out: the files of this test come to more than {TOTAL_LIMIT >> 20} MiB\n"
_SHOWN_TROUBLES = 5
_SECTIONS = 64
_TITLE_ROOM = 4096


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have the run's artefacts written if the user asks for them.

    :raises pytest.UsageError: when they can't be.
    """
    config = session.config
    settings = Settings.from_config(config)
    if settings.artifacts is None or hasattr(config, "workerinput"):
        return
    from pytest_virtio.artifact.store import refusal

    why = refusal(settings.artifacts)
    if why:
        raise pytest.UsageError(f"virtio-artifacts {settings.artifacts}: {why}: name a directory that you may write to")
    config.pluginmanager.register(_Writer(settings.artifacts), "virtio-artifacts")


def attach(report: pytest.TestReport, vms: Iterable[Mapping[str, str]]) -> None:
    """Let a report carry the files of the test's VMs: plain data, so that it survives the way from a worker."""
    setattr(report, _ATTRIBUTE, bounded(vms))


def bounded(vms: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """The files; of those that come to too much with the ones before, a note."""
    from pytest_virtio.render import written

    # The report has room of its own.
    room, kept = TOTAL_LIMIT - FAILURE_LIMIT - CAPTURED_LIMIT, []
    for files in vms:
        mine = {}
        for name, text in files.items():
            size = len(written(text))
            mine[name], size = (text, size) if size <= room else (_TOO_MUCH, len(_TOO_MUCH))
            room -= size
        kept.append(mine)
    return kept


class _Writer:
    """Writes what reports bring."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: set[str] = set()
        self._troubles: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a report's artefacts, and let it go on without them: others keep reports to the end of the run."""
        vms: Any = vars(report).pop(_ATTRIBUTE, None)
        if vms is None:
            return
        try:
            self._write(report, vms)
        except OSError as error:
            self._troubles.append(f"virtio: the artefacts of {report.nodeid} are not all written: {error}")
        else:
            self._written.add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where they are, and what could not be written."""
        if self._written:
            tests = "1 test" if len(self._written) == 1 else f"{len(self._written)} tests"
            terminalreporter.write_line(f"virtio: artefacts of {tests}: pytest-virtio show {self._directory}")
        for line in self._troubles[:_SHOWN_TROUBLES]:
            terminalreporter.write_line(line, red=True)
        if len(self._troubles) > _SHOWN_TROUBLES:
            terminalreporter.write_line(f"virtio: and those of {len(self._troubles) - _SHOWN_TROUBLES} more", red=True)

    def _write(self, report: pytest.TestReport, vms: list[dict[str, str]]) -> None:
        from pytest_virtio.artifact.store import About, write
        from pytest_virtio.render import escape

        crash = getattr(report.longrepr, "reprcrash", None)
        about = About(
            test=report.nodeid,
            when=report.when,
            outcome=report.outcome,
            words=escape(str(getattr(crash, "message", "")), _WORDS_LIMIT, keep="head"),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write(self._directory, about, _text(report), vms)


def _text(report: pytest.TestReport) -> str:
    """The failure, then what was captured, as pytest prints them; "" of a test that has passed."""
    from pytest_virtio.render import escape, fit, safe

    def shown(text: str, limit: int, keep: Literal["head", "tail"]) -> str:
        return fit(escape(text, limit, keep=keep), limit, keep=keep)

    if not report.longreprtext:
        return ""
    failure = shown(report.longreprtext, FAILURE_LIMIT, "head")
    sections = report.sections[:_SECTIONS]
    each = CAPTURED_LIMIT // max(1, len(sections)) - _TITLE_ROOM
    captured = [f"{f' {safe(title)} ':-^80}\n{shown(text, each, 'tail')}".rstrip("\n") for title, text in sections]
    return "\n".join([failure, *captured])
