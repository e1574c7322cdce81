"""What tests ran on, as properties in the formats that CI reads.

Responsible for where pytest takes properties and for their names; must not know how a version is found out. The only
module that knows pytest's writer of JUnit files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_virtio.plugin.session import started_session

if TYPE_CHECKING:
    from pytest_virtio.model.provenance import Provenance

__all__ = ("attach", "ran_on", "record", "record_for_suite")

_ATTRIBUTE = "virtio_provenance"
_OURS = pytest.StashKey[list[tuple[str, object]]]()
_PREFIX = "virtio."


def record(item: pytest.Item, when: str) -> list[Provenance]:
    """Put what the test's VMs ran on into its properties, for whoever writes a report of it; gives it too.

    In a JUnit file of family ``xunit2`` a test has no properties, by Jenkins's schema (junit-10.xsd of its xUnit
    plugin, which refuses a file that does not keep it); there the whole suite has them, see :func:`record_for_suite`.
    """
    session = started_session(item.config)
    known = session.ran_on(item) if session else []
    if session and when == "teardown":
        session.forget_ended()
    if not _is_strict(item.config):
        before = item.stash.get(_OURS, [])
        item.stash[_OURS] = _properties(known)
        others = [entry for entry in item.user_properties if entry not in before]
        item.user_properties[:] = [*others, *item.stash[_OURS]]
    return known


def attach(report: pytest.TestReport, known: Sequence[Provenance]) -> None:
    """Let the report carry it, as plain data, which survives the way from an xdist worker."""
    from dataclasses import asdict

    if known:
        setattr(report, _ATTRIBUTE, [asdict(one) for one in known])


def ran_on(reports: Iterable[object]) -> list[Provenance]:
    """What the tests of these reports ran on, each once: as their last reports have it, for a VM that has just started
    has not told all yet."""
    from pytest_virtio.model.provenance import Provenance

    last = (report for report in reports if getattr(report, "when", None) == "teardown")
    found: list[Provenance] = []
    for plain in (plain for report in last for plain in getattr(report, _ATTRIBUTE, ())):
        known = Provenance(**plain)
        if known not in found:
            found.append(known)
    return found


def record_for_suite(config: pytest.Config) -> None:
    """Put into a JUnit file's suite all values that its tests have: a test run on two QEMUs has two ``virtio.qemu``."""
    xml = _junit(config)
    terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
    if xml is None or terminal is None:
        return
    known = ran_on(report for reports in terminal.stats.values() for report in reports)
    for name, value in dict.fromkeys(entry for one in known for entry in _values(one)):
        xml.add_global_property(name, value)


def _properties(known: Sequence[Provenance]) -> list[tuple[str, object]]:
    """By names of their own where VMs differ: ``virtio.1.guest``, ``virtio.2.guest``."""
    if len(known) == 1:
        return list(_values(known[0]))
    return [entry for number, one in enumerate(known, 1) for entry in _values(one, f"{_PREFIX}{number}.")]


def _values(known: Provenance, prefix: str = _PREFIX) -> Iterator[tuple[str, str]]:
    from pytest_virtio import render

    return ((f"{prefix}{name}", value) for name, value in render.provenance_values(known))


def _is_strict(config: pytest.Config) -> bool:
    """Whether a JUnit file is written that must not have properties of tests."""
    return bool(config.getoption("xmlpath", None)) and config.getini("junit_family") == "xunit2"


def _junit(config: pytest.Config) -> Any:
    """What writes the JUnit file, None where nobody does: the fixture ``record_testsuite_property`` takes the same way,
    and is for tests only."""
    from _pytest.junitxml import xml_key

    return config.stash.get(xml_key, None)
