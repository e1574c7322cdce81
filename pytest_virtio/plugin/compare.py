"""``--virtio-compare A B``: the same tests on two QEMUs, and at the end only what differs.

Responsible for taking the profiles of a test's VMs while they live, for their way to the process that prints, and for
pairing the two runs of a test; must not know what is a difference, nor how it is worded. Registered with the option
only, so that another run pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_virtio.baseline.codec import Baseline, dumps
from pytest_virtio.errors import VirtioError
from pytest_virtio.plugin import qemus
from pytest_virtio.plugin.options import GivenQemu
from pytest_virtio.plugin.session import started_session
from pytest_virtio.plugin.sides import Ran, Sides, alike, differing

if TYPE_CHECKING:
    from pytest_virtio.handle import Virtio

__all__ = ("Compare", "keep_profile")

_ENDED = pytest.StashKey[list[str]]()
_CARRIED = "virtio_compared"


def keep_profile(config: pytest.Config, virtio: Virtio) -> None:
    """Take the profile of a VM that a test's body ends, as text: a report takes it to another process."""
    config.stash.setdefault(_ENDED, []).append(_profile(virtio))


class Compare:
    """The hooks of a run that compares.

    :param given: the two QEMUs.
    """

    def __init__(self, given: Sequence[GivenQemu]) -> None:
        self._given = given
        self._tests: dict[str, Sides] = {}
        # As they were given, until a test tells what ids call them: that takes asking them.
        self._names = [qemu.label or qemu.program for qemu in given]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Take the profiles of the VMs that live when the body has ended, whatever has ended it."""
        item.config.stash[_ENDED] = []
        try:
            return (yield)
        finally:
            session = started_session(item.config)
            for virtio in session.vms_of(item) if session else ():
                keep_profile(item.config, virtio)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Let the report carry which test it is of, on which side, and what its VMs were."""
        report = yield
        side = qemus.side_of(item, self._given)
        if side is not None:
            profiles = item.config.stash.get(_ENDED, []) if call.when == "call" else []
            name = qemus.id_of(item)
            carried = {"test": _without(item.nodeid, name), "side": side, "qemu": name, "profiles": profiles}
            setattr(report, _CARRIED, carried)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in what became of a test; under xdist, in the process that prints."""
        carried: dict[str, Any] | None = getattr(report, _CARRIED, None)
        if carried is None:
            return
        self._names[carried["side"]] = carried["qemu"]
        ran = self._tests.setdefault(carried["test"], {}).setdefault(carried["side"], Ran())
        ran.take(report, carried["profiles"])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print what differs, and how many tests don't."""
        names = self._names[0], self._names[1]
        terminalreporter.write_sep("=", f"virtio: {names[0]} -> {names[1]}")
        for lines, tests in differing(self._tests, names).items():
            for line in (*tests, *(f"  {line}" for line in lines)):
                terminalreporter.write_line(line)
        terminalreporter.write_line(alike(self._tests, names))


def _profile(virtio: Virtio) -> str:
    try:
        return dumps(Baseline(virtio.profile()))
    except VirtioError:
        # It is gone, or can't be asked any more: what became of the test says so.
        return ""


def _without(nodeid: str, name: str) -> str:
    """The test's id on either QEMU, whose own part comes last; xdist may add the name of a group."""
    head, _, group = nodeid.rpartition(f"{name}]")
    return f"{head[:-1]}{group}" if head.endswith("[") else f"{head.removesuffix('-')}]{group}"
