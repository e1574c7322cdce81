"""Command line options and their ini twins, read once into :class:`Settings`.

Responsible for what the user may set for a whole run and for refusing what can't be; must not know what is done with
it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_virtio.errors import UsageError
from pytest_virtio.plugin.axes import Point, given_axis
from pytest_virtio.plugin.baseline_files import BaselineFiles
from pytest_virtio.plugin.baselines import AssertedBaselines

__all__ = ("GivenQemu", "Settings", "given_qemus", "pytest_addoption", "pytest_configure")

DEFAULT_QEMU = "qemu-system-x86_64"
GUESTS = ("scripted", "firmware", "linux")
ACCELERATORS = ("auto", "tcg", "kvm")
MISSING = ("error", "skip")
KEPT = ("failed", "all")
BASELINE = ("check", "update", "new")
_PATHS = ("kernel", "initrd", "modules", "artifacts")
_LISTS = ("qemu", "matrix")
_OF_VMS = ("qemu", "guest", "kernel", "initrd", "modules", "machine", "accel", "matrix")

_OPTIONS = (
    (
        "qemu",
        "[LABEL=]PATH",
        None,
        "the QEMU binary: a path, a name on PATH or of a release that was built: qemu-10.0 (default: "
        "qemu-system-x86_64). Given several times, every virtio test runs on each, its id names the version or LABEL",
    ),
    ("guest", "NAME", GUESTS, "the guest of tests that name none: scripted (default), firmware or linux"),
    (
        "kernel",
        "FILE",
        None,
        "a bzImage for Linux guests (default: the one that `pytest-virtio image build linux` fetched)",
    ),
    ("initrd", "FILE", None, "an initramfs for Linux guests; our agent is appended to it"),
    ("modules", "DIR", None, "kernel modules for Linux guests: a directory of .ko files, or one file"),
    ("machine", "NAME", None, "the machine type of tests that name none (default: what the transport needs)"),
    (
        "matrix",
        "AXIS=VALUE,VALUE",
        None,
        "run each virtio test with each value of an axis that its marker does not settle: machine, transport, guest, "
        "kernel, cpus, memory or a device property: transport=pci,mmio. Several axes: all combinations",
    ),
    ("accel", "NAME", ACCELERATORS, "auto, tcg or kvm; auto takes KVM where a kernel was seen to run on it (default)"),
    ("timeout", "SECONDS", None, "how long a VM may take until it is ready (default: 60)"),
    (
        "missing",
        "WHAT",
        MISSING,
        "what a test does whose QEMU, kernel or device type is missing: error (default) or skip",
    ),
    ("artifacts", "DIR", None, "keep reports, models, logs and command lines of failing tests below this directory"),
    ("artifacts_keep", "WHAT", KEPT, "the artefacts of which tests to keep: failed (default) or all"),
    (
        "baseline",
        "MODE",
        BASELINE,
        "what assert_baseline() does: check (default), new: make the baselines that are missing, or update: accept "
        "what differs",
    ),
)

_PRUNE = "remove the baselines that no test of a whole run asserts any more"

_LINT = "fail a test that passed if a device or driver of its VMs then breaks a rule of the virtio specification"
_COMPARE = (
    "run each virtio test on two QEMUs, given as --virtio-qemu takes them, and print at the end only what differs: "
    "outcomes, and what was negotiated"
)

_MONITOR = (
    "have each VM listen for a second QMP monitor, whose path reports and virtio.vm.monitor tell: `pytest-virtio info "
    "PATH` asks there; --pdb and --trace imply it"
)
_DEBUGGERS = ("usepdb", "trace")
"""pytest's own options, by their ``dest``."""

_MARKER = (
    "virtio(*devices, guest, machine, transport, memory, cpus, args, boot, timeout, matrix): the VM that the `virtio` "
    "fixture boots: device declarations such as Net(), Blk(size='64M'), how to boot them, and what to vary"
)


class GivenQemu(NamedTuple):
    """One ``--virtio-qemu``: ``PATH`` or ``LABEL=PATH``."""

    program: str
    """A path, a name on PATH, or of a release that was built."""
    label: str = ""
    """What test ids are to call it; "" for its version."""


class Settings(NamedTuple):
    """What the user set for the run; None where he left it open.

    Named tuples in this room, for it is loaded in every pytest run: a frozen dataclass takes ten times as long to make.
    """

    qemu: tuple[GivenQemu, ...] = (GivenQemu(DEFAULT_QEMU),)
    """At least one."""
    guest: str | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    modules: Path | None = None
    machine: str | None = None
    accel: str = "auto"
    timeout: float = 60.0
    missing: str = "error"
    baseline: str = "check"
    lint: bool = False
    artifacts: Path | None = None
    artifacts_keep: str = "failed"
    matrix: Mapping[str, tuple[Point, ...]] = {}
    """Axes of tests whose author has not settled them."""
    compare: bool = False
    """Whether the run compares its two QEMUs."""
    monitor: bool = False

    @classmethod
    def from_config(cls, config: pytest.Config) -> Settings:
        """Read options and ini values; a path from the ini file is relative to it.

        :raises pytest.UsageError: for a value that can't be.
        """
        given = {name: _value(config, name, choices) for name, _, choices, _ in _OPTIONS if name not in _LISTS}
        known = {name: value for name, value in given.items() if value}
        paths = {name: Path(value).expanduser().absolute() for name, value in known.items() if name in _PATHS}
        seconds = {"timeout": _seconds(known["timeout"])} if "timeout" in known else {}
        lint = bool(config.getoption("virtio_lint") or config.getini("virtio_lint"))
        compare = bool(config.getoption("virtio_compare"))
        debugger = any(config.getoption(option, False) for option in _DEBUGGERS)
        monitor = bool(debugger or config.getoption("virtio_monitor") or config.getini("virtio_monitor"))
        own = cls(qemu=_qemus(config), lint=lint, monitor=monitor, matrix=_matrix(config), compare=compare)
        return own._replace(**{**known, **paths, **seconds})  # type: ignore[arg-type]  # names and types are checked above

    @property
    def keeps_all(self) -> bool:
        """Whether artefacts of tests that pass are kept too."""
        return self.artifacts is not None and self.artifacts_keep == "all"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and ini values."""
    group = parser.getgroup("virtio", "virtual machines and their virtio devices")
    for name, metavar, choices, text in _OPTIONS:
        action = "append" if name in _LISTS else "store"
        option, dest = f"--virtio-{name.replace('_', '-')}", f"virtio_{name}"
        group.addoption(option, action=action, dest=dest, metavar=metavar, choices=choices, help=text)
        if name in _LISTS:
            parser.addini(f"virtio_{name}", f"{text}; one a line", type="linelist")
        else:
            parser.addini(f"virtio_{name}", text, default="")
    # No ini twin: what removes files is asked for each time.
    group.addoption("--virtio-baseline-prune", action="store_true", dest="virtio_baseline_prune", help=_PRUNE)
    group.addoption("--virtio-lint", action="store_true", dest="virtio_lint", help=_LINT)
    parser.addini("virtio_lint", _LINT, type="bool", default=False)
    group.addoption("--virtio-compare", nargs=2, dest="virtio_compare", metavar=("A", "B"), help=_COMPARE)
    group.addoption("--virtio-monitor", action="store_true", dest="virtio_monitor", help=_MONITOR)
    parser.addini("virtio_monitor", _MONITOR, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and refuse what can't be before anything is collected."""
    from pytest_virtio.plugin import github

    config.addinivalue_line("markers", _MARKER)
    settings = Settings.from_config(config)
    config.pluginmanager.register(AssertedBaselines(config, settings.baseline, _vm_options(config)), "virtio_baselines")
    config.pluginmanager.register(BaselineFiles(config), "virtio_baseline_files")
    github.register(config)
    if settings.compare:
        from pytest_virtio.plugin.compare import Compare

        config.pluginmanager.register(Compare(settings.qemu), "virtio-compare")


def _vm_options(config: pytest.Config) -> tuple[str, ...]:
    """The options of the command line on which VMs depend, for a command that is to boot the same ones."""
    given = {name: config.getoption(f"virtio_{name}") for name in _OF_VMS}
    values = ((name, value if name in _LISTS else [value]) for name, value in given.items() if value)
    return tuple(f"--virtio-{name}={value}" for name, several in values for value in several)


def _value(config: pytest.Config, name: str, choices: tuple[str, ...] | None) -> str:
    option = config.getoption(f"virtio_{name}")
    if option:
        return str(option)
    value = str(config.getini(f"virtio_{name}")).strip()
    if value and choices and value not in choices:
        raise pytest.UsageError(f"virtio_{name} = {value}: one of {', '.join(choices)} is expected")
    if value and name in _PATHS and config.inipath:
        return str(config.inipath.parent / Path(value).expanduser())
    return value


def given_qemus(texts: Sequence[str], beside: Path | None = None) -> tuple[GivenQemu, ...]:
    """What several options, or lines of the ini file that is ``beside``, say.

    :raises pytest.UsageError: for another form, and for one that is given twice.
    """
    given = tuple(_given_qemu(text.strip(), beside) for text in texts)
    _refuse_twice([qemu.label or qemu.program for qemu in given])
    return given


def _listed(config: pytest.Config, name: str) -> tuple[Sequence[str], Path | None]:
    """The values of a list, and the directory of the ini file if they are its."""
    option = config.getoption(f"virtio_{name}")
    beside = config.inipath.parent if not option and config.inipath else None
    return option or config.getini(f"virtio_{name}"), beside


def _qemus(config: pytest.Config) -> tuple[GivenQemu, ...]:
    compared = config.getoption("virtio_compare")
    if compared and config.getoption("virtio_qemu"):
        raise pytest.UsageError("--virtio-compare names the two QEMUs of the run: leave out --virtio-qemu")
    if compared:
        return given_qemus(compared)
    return given_qemus(*_listed(config, "qemu")) or Settings().qemu


def _matrix(config: pytest.Config) -> dict[str, tuple[Point, ...]]:
    texts, beside = _listed(config, "matrix")
    axes: dict[str, tuple[Point, ...]] = {}
    for text in texts:
        try:
            points = given_axis(text.strip(), beside)
        except UsageError as error:
            raise pytest.UsageError(f"virtio-matrix {error}") from None
        if points[0].axis in axes:
            raise pytest.UsageError(f"virtio-matrix {text.strip()!r}: {points[0].axis} is given twice")
        axes[points[0].axis] = points
    return axes


def _given_qemu(text: str, beside: Path | None) -> GivenQemu:
    """What one option, or one line of the ini file that is ``beside``, says."""
    label, equals, program = text.partition("=")
    if not equals or "/" in label:
        label, equals, program = "", "", text
    if not program or (equals and not label):
        raise pytest.UsageError(f"virtio-qemu {text!r}: PATH or LABEL=PATH is expected")
    if "/" in program:
        # A shell leaves the ~ of --virtio-qemu=~/qemu to us.
        path = os.path.expanduser(program)  # noqa: PTH111 - Path would drop the ./ that keeps PATH from being searched
        program = str(beside / path) if beside else path
    return GivenQemu(program, label)


def _refuse_twice(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise pytest.UsageError(f"virtio-qemu {twice!r} is given twice: to run on it twice, write LABEL=PATH")


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise pytest.UsageError(f"virtio-timeout {value!r}: a number of seconds above 0 is expected")
    return seconds
