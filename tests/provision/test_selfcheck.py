"""selfcheck: what is wrong with a QEMU is said, and it never outlives the check."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio.errors import MissingError
from pytest_virtio.provision import selfcheck

from .fake_qemu import TALKS

ANYWHERE = Path("/")


def qemu(directory: Path, script: str) -> Path:
    path = directory / "qemu"
    path.write_text(script)
    path.chmod(0o755)
    return path


@pytest.mark.qemu
def test_a_real_qemu_loads_code_from_the_system(program: Path, tmp_path: Path) -> None:
    """Also from its modules' directory, which it was made to look at."""
    selfcheck.check(program, ANYWHERE, whole=False)
    with pytest.raises(MissingError, match=r"with it: (?=.*/qemu-system-x86_64)(?=.*/libc\.so\.6)"):
        selfcheck.check(program, tmp_path, whole=False)


def test_a_module_that_can_t_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = qemu(tmp_path, TALKS)
    selfcheck.check(program, ANYWHERE, whole=True)
    said = "qemu-system-x86_64: failed to open module: libpulsecommon-17.0.so: cannot open shared object file"
    monkeypatch.setenv("PROPERTIES", said)
    with pytest.raises(MissingError, match=rf"can't load modules that came with it:\n{said}$"):
        selfcheck.check(program, ANYWHERE, whole=True)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (
            "echo 'libx.so.1: no such file' >&2; exit 127",
            r"no answer to qmp_capabilities.*:\nlibx\.so\.1: no such file$",
        ),
        ("echo '{\"QMP\": {}}'; exec sleep 100", "no answer to qmp_capabilities within 1 s"),
        ('echo \'{"error": {"desc": "no"}}\'; exec sleep 100', r'no answer .*\n\{"error": \{"desc": "no"\}\}$'),
        (
            TALKS.replace('echo "$PROPERTIES"', "exit 1"),
            "qemu -M q35 .*: no answer to device-list-properties virtio-rng-pci within",
        ),
    ],
    ids=["ends", "silent", "refuses", "lacks a type"],
)
def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: str) -> None:
    monkeypatch.setattr(selfcheck, "_SECONDS", 1)
    with pytest.raises(MissingError, match=error):
        selfcheck.check(qemu(tmp_path, f"#!/bin/sh\n{script}\n"), ANYWHERE, whole=True)
