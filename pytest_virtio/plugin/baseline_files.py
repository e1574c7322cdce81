"""The files of baselines in the process that reports: written as tests' reports come in, unused ones found at the end.

Responsible for writing each once and for saying so; under xdist it is the controller's. Must not compare anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.pathlib import bestrelpath

from pytest_virtio.errors import BaselineError
from pytest_virtio.plugin.baselines import Note, notes_with, part_of, test_of

__all__ = ("BaselineFiles",)

_NARROWING = {
    "keyword": "-k",
    "markexpr": "-m",
    "lf": "--lf",
    "stepwise": "--stepwise",
    "deselect": "--deselect",
    "setupplan": "--setup-plan",
    "setuponly": "--setup-only",
    "collectonly": "--collect-only",
}
_OUTPUT = "pytest_virtio_narrowed"


class BaselineFiles:
    """Keeps the run's baselines: a plugin."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._is_worker = hasattr(config, "workerinput")
        self._narrowed = _narrowed_by(config)
        self._sides: dict[Path, dict[str, Note]] = {}
        self._written: dict[Path, tuple[str, str]] = {}
        self._asserted: set[Path] = set()
        self._tests: dict[str, tuple[str, str]] = {}
        self._passed: set[str] = set()
        self._unclear: dict[str, str] = {}
        self._lines: list[str] = []

    def pytest_deselected(self) -> None:
        """Not all that there is runs."""
        self._narrow("tests were deselected")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """What could not be collected may assert any baseline."""
        if report.failed:
            self._narrow("not all could be collected")

    def _narrow(self, why: str) -> None:
        self._narrowed = self._narrowed or why

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write what the test has asserted; it fails where that can't be."""
        if self._is_worker:
            return
        self._see(report)
        for note in notes_with(report):
            try:
                self._keep(report.nodeid, note)
            except BaselineError as error:
                # Nobody has been told of its outcome yet.
                report.outcome, report.longrepr = "failed", str(error)

    def _see(self, report: pytest.TestReport) -> None:
        test = test_of(report)
        if test is not None:
            self._tests[report.nodeid] = test
            # It may be run anew.
            self._unclear.pop(report.nodeid, None)
        if hasattr(report, "wasxfail"):
            self._unclear[report.nodeid] = "is expected to fail"
        elif report.outcome != "passed":
            self._unclear[report.nodeid] = "was skipped" if report.skipped else "failed"
        elif report.when == "call":
            self._passed.add(report.nodeid)

    def _keep(self, test: str, note: Note) -> None:
        path = Path(self._config.rootpath, note.path).absolute()
        shown = bestrelpath(self._config.invocation_params.dir, path)
        self._asserted.add(path)
        if note.shown:
            self._lines += [f"{shown}:", *(f"  {line}" for line in note.shown)]
        if test not in self._unclear:
            self._accept(path, test, note, shown)
        elif note.text:
            self._lines.append(f"not written: {shown}: the test {self._unclear[test]}")

    def _accept(self, path: Path, test: str, note: Note, shown: str) -> None:
        """Write it, if it is to be written.

        :raises BaselineError: when it can't be, or with what is written another test of this run would be red.
        """
        from pytest_virtio.baseline.store import write

        if note.asserted:
            self._check_sides(path, test, note)
        if note.text:
            write(path, note.text)
            self._written[path] = test, note.text
            how = f"{note.changes} change{'s' * (note.changes != 1)}" if note.changes else "new"
            self._lines.append(f"written: {shown} ({how})")

    def _check_sides(self, path: Path, test: str, note: Note) -> None:
        """See that what this run makes of a file suits all tests that assert it, whoever of them comes first.

        :raises BaselineError: when it does not.
        """
        sides = self._sides.setdefault(path, {})
        if note.text:
            for other, side in sides.items():
                _check_suits(path, note.text, side, f"{other} and {test}")
        elif path in self._written:
            writer, text = self._written[path]
            _check_suits(path, text, note, f"{writer} and {test}")
        sides[test] = note

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """See whether everything has run."""
        complete = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if not complete or session.shouldstop or session.shouldfail:
            self._narrow("not all tests ran")
        if self._is_worker:
            self._config.workeroutput[_OUTPUT] = self._narrowed  # type: ignore[attr-defined]  # xdist's
        elif not self._narrowed:
            self._lines += self._unused_lines()
        elif self._config.getoption("virtio_baseline_prune"):
            self._lines.append(f"nothing removed: the selection was narrowed ({self._narrowed})")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take in what an xdist worker knows; one that crashed knows nothing."""
        self._narrow(getattr(node, "workeroutput", {}).get(_OUTPUT, "a worker was lost"))

    def _unused_lines(self) -> Iterator[str]:
        prune, unused = self._config.getoption("virtio_baseline_prune"), sorted(self._unused())
        for path in unused:
            if prune:
                path.unlink(missing_ok=True)
            yield f"{'removed' if prune else 'unused'}: {bestrelpath(self._config.invocation_params.dir, path)}"
        if unused and not prune:
            yield "no test asserts these any more: pytest --virtio-baseline-prune, with the same tests, removes them"

    def _unused(self) -> Iterator[Path]:
        """Baselines of the modules that ran, and of modules that are there no more."""
        from pytest_virtio.baseline.store import DIRECTORY, baseline_path, listed

        files = {self._config.rootpath / file for file, _ in self._tests.values()}
        ran = {baseline_path(file, "", "").parent for file in files}
        for directory in {file.parent for file in files}:
            if (directory / DIRECTORY).is_dir():
                there = {baseline_path(file, "", "").parent for file in directory.glob("*.py")}
                found = (path for path in listed(directory) if path.parent in ran or path.parent not in there)
                yield from (path for path in found if path not in self._asserted and not self._may_be_of(path))

    def _may_be_of(self, path: Path) -> bool:
        """Whether it may be of a test that did not come to asserting it."""
        from pytest_virtio.baseline.store import may_be_of

        unclear = (test for id, test in self._tests.items() if id in self._unclear or id not in self._passed)
        return any(may_be_of(path, self._config.rootpath / file, name) for file, name in unclear)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was written, allowed and not used."""
        if self._lines:
            terminalreporter.section("virtio baselines")
            for line in self._lines:
                terminalreporter.line(line)


def _narrowed_by(config: pytest.Config) -> str:
    """By what the command line leaves tests out; "" when it leaves none out."""
    options = [option for name, option in _NARROWING.items() if config.getoption(name, None)]
    return ", ".join([*options, *(["a node id"] if any("::" in argument for argument in config.args) else [])])


def _check_suits(path: Path, text: str, side: Note, tests: str) -> None:
    """See that a test would be green with this text.

    :raises BaselineError: naming the devices with which it would not.
    """
    from pytest_virtio.baseline.codec import Baseline, compare_with, loads
    from pytest_virtio.model.profile import Profile

    asserted = loads(side.asserted.encode(), path).profile
    known = part_of(loads(text.encode(), path), asserted, whole=side.whole) or Baseline(Profile({}))
    differing = {change.device for change in compare_with(known, asserted, path).changes if not change.allowed}
    if differing:
        raise BaselineError(
            path,
            f"{tests} have asserted different profiles of {', '.join(sorted(differing))} in one run",
            "Accept one of them, and allow by [[allow]] in the file what differs in the other.",
        )
