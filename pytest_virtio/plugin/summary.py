"""The beginning and the end of a run: what was chosen is said once, and nothing is left.

Responsible for the lines after collection and for the janitor's end; must not know how a choice was made. Under xdist
nothing is collected in the process that prints, so the workers send their lines.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio.errors import UsageError, VirtioError
from pytest_virtio.plugin import provenance, qemus
from pytest_virtio.plugin.axes import value_in
from pytest_virtio.plugin.marker import marked
from pytest_virtio.plugin.matrix import variant_of
from pytest_virtio.plugin.session import VirtioSession, is_scripted, started_session, virtio_session

__all__ = (
    "pytest_report_collectionfinish",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_testnodedown",
    "pytest_unconfigure",
)

_FROM_WORKERS = pytest.StashKey[list[str]]()
_OUTPUT = "pytest_virtio"


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """Say which QEMU and accelerator the selected virtio tests will run on; nothing where there are none."""
    concerned = [] if config.option.collectonly else [item for item in items if qemus.takes_the_runs(item)]
    if not concerned:
        return []
    session = virtio_session(config)
    troubles: dict[str, None] = {}
    for qemu, halted in dict.fromkeys(_hosts(concerned, session)):
        try:
            session.host(qemu, halted=halted)
        except (VirtioError, OSError) as error:
            troubles[f"virtio: {error}"] = None
    return [*session.news(), *troubles]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In an xdist worker, send what would have been printed; elsewhere, before a JUnit file is written, complete it."""
    provenance.record_for_suite(session.config)
    ours, output = started_session(session.config), getattr(session.config, "workeroutput", None)
    if ours is not None and output is not None:
        output[_OUTPUT] = ours.choices()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take in what an xdist worker sent."""
    lines: list[str] = getattr(node, "workeroutput", {}).get(_OUTPUT, [])
    known = node.config.stash.setdefault(_FROM_WORKERS, [])
    known += [line for line in lines if line not in known]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what could not be known after collection: what xdist workers sent, and QEMUs that a fixture chose."""
    for line in _unsaid(config):
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the janitor, if one was started and has nothing left to guard."""
    janitor = sys.modules.get("pytest_virtio.vm.janitor")
    if janitor is not None:
        janitor.close()


def _hosts(items: Sequence[pytest.Item], session: VirtioSession) -> Iterator[tuple[str | Path, bool]]:
    """The QEMUs that the marks of virtio tests ask for, and whether the CPU sleeps; what fixtures choose is not known
    before they run."""
    for item in items:
        qemu = qemus.known_for(item, session.settings.qemu)
        if qemu is not None and any(item.iter_markers("virtio")):
            try:
                named = value_in(variant_of(item), "guest", marked(item).options.get("guest"))
                yield qemu, is_scripted(named or session.default_guest)
            except UsageError:
                # The test itself will say so.
                continue


def _unsaid(config: pytest.Config) -> Iterator[str]:
    yield from config.stash.get(_FROM_WORKERS, ())
    session = started_session(config)
    if session is not None:
        yield from session.news()
