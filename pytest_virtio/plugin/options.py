"""Command line options and their ini twins, read once into :class:`Settings`.

Responsible for what the user may set for a whole run and for refusing what can't be; must not know what is done with
it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ("Settings", "pytest_addoption", "pytest_configure")

DEFAULT_QEMU = "qemu-system-x86_64"
GUESTS = ("scripted", "firmware", "linux")
ACCELERATORS = ("auto", "tcg", "kvm")
MISSING = ("error", "skip")
_PATHS = ("kernel", "initrd", "modules")

_OPTIONS = (
    ("qemu", "PATH", None, "the QEMU binary: a path or a name on PATH (default: qemu-system-x86_64)"),
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
    ("accel", "NAME", ACCELERATORS, "auto, tcg or kvm; auto takes KVM where a kernel was seen to run on it (default)"),
    ("timeout", "SECONDS", None, "how long a VM may take until it is ready (default: 60)"),
    (
        "missing",
        "WHAT",
        MISSING,
        "what a test does whose QEMU, kernel or device type is missing: error (default) or skip",
    ),
)

_MARKER = (
    "virtio(*devices, guest, machine, transport, memory, cpus, args, boot, timeout): the VM that the `virtio` fixture "
    "boots: device declarations such as Net(), Blk(size='64M'), and how to boot them"
)


class Settings(NamedTuple):
    """What the user set for the run; None where he left it open.

    Named tuples in this room, for it is loaded in every pytest run: a frozen dataclass takes ten times as long to make.
    """

    qemu: str = DEFAULT_QEMU
    guest: str | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    modules: Path | None = None
    machine: str | None = None
    accel: str = "auto"
    timeout: float = 60.0
    missing: str = "error"

    @classmethod
    def from_config(cls, config: pytest.Config) -> Settings:
        """Read options and ini values; a path from the ini file is relative to it.

        :raises pytest.UsageError: for a value that can't be.
        """
        given = {name: _value(config, name, choices) for name, _, choices, _ in _OPTIONS}
        known = {name: value for name, value in given.items() if value}
        paths = {name: Path(value).expanduser().absolute() for name, value in known.items() if name in _PATHS}
        seconds = {"timeout": _seconds(known["timeout"])} if "timeout" in known else {}
        return cls(**{**known, **paths, **seconds})  # type: ignore[arg-type]  # names and types are checked above


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and ini values."""
    group = parser.getgroup("virtio", "virtual machines and their virtio devices")
    for name, metavar, choices, text in _OPTIONS:
        action = "append" if name == "qemu" else "store"
        group.addoption(
            f"--virtio-{name}", action=action, dest=f"virtio_{name}", metavar=metavar, choices=choices, help=text
        )
        parser.addini(f"virtio_{name}", text, default="")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and refuse what can't be before anything is collected."""
    config.addinivalue_line("markers", _MARKER)
    Settings.from_config(config)


def _value(config: pytest.Config, name: str, choices: tuple[str, ...] | None) -> str:
    option = config.getoption(f"virtio_{name}")
    if isinstance(option, list):
        return _only_qemu(option)
    if option:
        return str(option)
    value = str(config.getini(f"virtio_{name}")).strip()
    if value and choices and value not in choices:
        raise pytest.UsageError(f"virtio_{name} = {value}: one of {', '.join(choices)} is expected")
    is_path = name in _PATHS or (name == "qemu" and "/" in value)
    if value and is_path and config.inipath:
        return str(config.inipath.parent / Path(value).expanduser())
    return value


def _only_qemu(given: list[str]) -> str:
    """The one QEMU: a second one that is passed over in silence would be taken for tested.

    :raises pytest.UsageError: for several, or one with a label.
    """
    if len(given) > 1:
        raise pytest.UsageError(f"--virtio-qemu: this version takes one QEMU a run; got {', '.join(given)}")
    label, equals, path = given[0].partition("=")
    if equals and "/" not in label:
        raise pytest.UsageError(f"--virtio-qemu={given[0]}: labels are not in this version; write --virtio-qemu={path}")
    return given[0]


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise pytest.UsageError(f"virtio-timeout {value!r}: a number of seconds above 0 is expected")
    return seconds
