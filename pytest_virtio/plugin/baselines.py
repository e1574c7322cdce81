"""Baselines as tests assert them: which file the test that runs now has, and what is made of a profile.

Responsible for the three modes of ``--virtio-baseline`` and for the words of a failure; must not write a file: what is
to be written goes with the test's report to the process that writes (``baseline_files``), which may be on another host.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from _pytest.pathlib import bestrelpath

from pytest_virtio.errors import UsageError, VirtioAssertionError
from pytest_virtio.plugin.parameters import name_of, variant

if TYPE_CHECKING:
    from pytest_virtio.baseline.codec import Baseline
    from pytest_virtio.model.difference import Comparison
    from pytest_virtio.model.profile import DeviceProfile, Profile

__all__ = ("AssertedBaselines", "Note", "baselines_of", "notes_with", "part_of", "test_of")

_KEY = pytest.StashKey["AssertedBaselines"]()
_ATTRIBUTE, _TEST = "virtio_baselines", "virtio_baselines_of"


class Note(NamedTuple):
    """What became of one baseline that a test has asserted; plain data, for it may travel between hosts."""

    path: str
    """The file, relative to pytest's root directory."""
    text: str
    """What it is to hold; "" when it is to stay as it is."""
    asserted: str
    """What the test has asserted of it, as the text of a baseline; "" in a run that writes none."""
    whole: bool
    """Whether that is all of a VM's devices."""
    changes: int
    """How many differences that accepts; 0 of a new one."""
    shown: list[str]
    """Differences that an allowance covers and things that could not be compared, in words."""


class _Asserted:
    """What the running test has asserted of one file."""

    def __init__(self) -> None:
        self.devices: dict[str, DeviceProfile] = {}
        self.whole = False

    def unlike(self, profile: Profile, *, whole: bool) -> list[str]:
        """The devices that one file can't hold of both: they differ, or only one of two VMs has them."""
        differing = {id for id, device in profile.devices.items() if self.devices.get(id, device) != device}
        gone = self.devices.keys() - profile.devices.keys() if whole else set()
        come = profile.devices.keys() - self.devices.keys() if self.whole else set()
        return sorted(differing | gone | come)

    def text(self) -> str:
        """As a baseline of what nobody knows where it was seen."""
        from pytest_virtio.baseline.codec import Baseline, dumps
        from pytest_virtio.model.profile import Profile

        return dumps(Baseline(Profile(self.devices)))


class AssertedBaselines:
    """The baselines of the test that runs now: :class:`pytest_virtio.handle.baseline.Baselines`, and a plugin."""

    def __init__(self, config: pytest.Config, mode: str, vm_options: Sequence[str]) -> None:
        self._config, self._mode, self._vm_options = config, mode, vm_options
        self._item: pytest.Item | None = None
        self._asserted: dict[Path, _Asserted] = {}
        self._notes: dict[Path, Note] = {}
        config.stash[_KEY] = self

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Another test begins, or the same anew."""
        self._item, self._asserted, self._notes = item, {}, {}

    def pytest_runtest_logfinish(self) -> None:
        """It has ended."""
        self._item = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Send what was noted, and whose files there may be: a test's id does not tell for sure where it is."""
        report = yield
        if report.when == "setup":
            setattr(report, _TEST, [os.path.relpath(item.path, self._config.rootpath), name_of(item)])
        # What a fixture has asserted is accepted if the test's body passes.
        if self._notes and not (report.when == "setup" and report.passed):
            setattr(report, _ATTRIBUTE, [list(note) for note in self._notes.values()])
            self._notes = {}
        return report

    def check(self, profile: Profile, name: str, *, whole: bool) -> None:
        """See :class:`pytest_virtio.handle.baseline.Baselines`."""
        from pytest_virtio.baseline.store import baseline_path

        item = self._item
        if item is None:
            raise UsageError("no test runs now that the baseline could belong to: assert it in a test, or its fixtures")
        path = baseline_path(item.path, name_of(item), variant(item), name)
        asserted = self._joined(path, profile, whole=whole)
        committed = self._committed(item, path)
        known = part_of(committed, profile, whole=whole)
        if known is None:
            self._make(item, path, asserted, committed, profile)
        else:
            self._compare(item, path, asserted, committed or known, known, profile)

    def _joined(self, path: Path, profile: Profile, *, whole: bool) -> _Asserted:
        """What the test has asserted of this file up to now.

        :raises UsageError: when that was another profile of a device, or a VM with other devices.
        """
        asserted = self._asserted.setdefault(path, _Asserted())
        other = asserted.unlike(profile, whole=whole)
        if other:
            raise UsageError(
                f"{', '.join(other)}: this test has asserted another profile by this name already: a baseline holds "
                'one VM, and one profile of each device. Give one of them a name: assert_baseline("after-reset")'
            )
        asserted.devices.update(profile.devices)
        asserted.whole |= whole
        return asserted

    def _committed(self, item: pytest.Item, path: Path) -> Baseline | None:
        """What the file holds; None if there is none.

        :raises BaselineError: when it can't be read: no update takes its place, for allowances would be lost with it.
        """
        from pytest_virtio.baseline.store import read

        if not os.path.lexists(path):
            return None
        return read(path, f"rm {shlex.quote(self._shown(path))} && {self._command(item, 'new')}")

    def _make(
        self, item: pytest.Item, path: Path, asserted: _Asserted, committed: Baseline | None, profile: Profile
    ) -> None:
        if self._mode == "check":
            ids, place = ", ".join(profile.devices), self._shown(path)
            what = f"no baseline of {ids} is in {place}" if committed else f"no baseline yet: there is no {place}"
            raise VirtioAssertionError(f"{what}\nto make it: {self._command(item, 'new')}")
        self._note(path, asserted, _text(asserted, committed, profile), 0, ())

    def _compare(
        self,
        item: pytest.Item,
        path: Path,
        asserted: _Asserted,
        committed: Baseline,
        known: Baseline,
        profile: Profile,
    ) -> None:
        from pytest_virtio.baseline.codec import compare_with
        from pytest_virtio.render.baseline import baseline_difference

        found = compare_with(known, profile, path)
        lines = list(baseline_difference(found))
        if not found.differs:
            self._note(path, asserted, "", 0, lines if found.changes or found.untold else ())
        elif self._mode == "update":
            text = _text(asserted, committed, profile)
            self._note(path, asserted, text, _count(found), _dropped(asserted, committed))
        else:
            accept = f"to accept it in {self._shown(path)}: {self._command(item, 'update')}"
            raise VirtioAssertionError("\n".join([*lines, accept]))

    def _note(self, path: Path, asserted: _Asserted, text: str, changes: int, shown: Iterable[str]) -> None:
        kept = self._notes.get(path, Note("", "", "", False, 0, []))
        # What the test asserts later has what it asserted earlier in it.
        relative = os.path.relpath(path, self._config.rootpath)
        lines = [*kept.shown, *(line for line in shown if line not in kept.shown)]
        told = "" if self._mode == "check" else asserted.text()
        self._notes[path] = Note(relative, text or kept.text, told, asserted.whole, kept.changes + changes, lines)

    def _shown(self, path: Path) -> str:
        return bestrelpath(self._config.invocation_params.dir, path)

    def _command(self, item: pytest.Item, mode: str) -> str:
        _, colons, rest = item.nodeid.partition("::")
        words = ("pytest", f"--virtio-baseline={mode}", *self._vm_options)
        return shlex.join([*words, self._shown(item.path) + colons + rest])


def _text(asserted: _Asserted, committed: Baseline | None, profile: Profile) -> str:
    """What the file is to hold: what the test asserts, and of the rest what was there; allowances stay but for devices
    that are there no more, for an allowance of nothing is an error.
    """
    from pytest_virtio.baseline.codec import Baseline, dumps
    from pytest_virtio.model.profile import Profile

    kept = {} if committed is None or asserted.whole else committed.profile.devices
    devices = {**kept, **asserted.devices}
    allowances = tuple(each for each in committed.allowances if each.device in devices) if committed else ()
    return dumps(Baseline(Profile(devices, profile.provenance), allowances))


def _dropped(asserted: _Asserted, committed: Baseline) -> Iterator[str]:
    """The allowances that :func:`_text` leaves out, in words."""
    from pytest_virtio.render.text import safe

    for each in committed.allowances if asserted.whole else ():
        if each.device not in asserted.devices:
            yield f"[[allow]] of {safe(each.device)} left out, for the VM has it no more: {safe(each.reason)}"


def _count(found: Comparison) -> int:
    return sum(not change.allowed for change in found.changes)


def part_of(committed: Baseline | None, profile: Profile, *, whole: bool) -> Baseline | None:
    """The baseline of what is asserted: of a single device its own table; None if there is none."""
    from pytest_virtio.baseline.codec import Baseline
    from pytest_virtio.model.profile import Profile

    if committed is None or whole:
        return committed
    devices = {id: device for id, device in committed.profile.devices.items() if id in profile.devices}
    allowances = tuple(allowance for allowance in committed.allowances if allowance.device in profile.devices)
    return Baseline(Profile(devices, committed.profile.provenance), allowances) if devices else None


def baselines_of(config: pytest.Config) -> AssertedBaselines:
    """The run's."""
    return config.stash[_KEY]


def notes_with(report: pytest.TestReport) -> Iterator[Note]:
    """What a test's report brought, from whichever process."""
    return (Note(*plain) for plain in getattr(report, _ATTRIBUTE, ()))


def test_of(report: pytest.TestReport) -> tuple[str, str] | None:
    """The file, relative to pytest's root directory, and the name of the test that a report begins."""
    file, name = getattr(report, _TEST, (None, None))
    return None if file is None or name is None else (file, name)
