"""The command: its output, its exit status and its errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_virtio import cli
from pytest_virtio.cli import machine
from pytest_virtio.cli.daemons import daemons
from pytest_virtio.errors import MissingError
from pytest_virtio.provision.releases import QemuRelease
from pytest_virtio.provision.status import Finding

PROGRAM = Path(sys.executable).parent / "pytest-virtio"


@pytest.mark.guest
def test_doctor_finds_what_set_up_has_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "ok      QEMU: " in said
    assert "ok      virtio introspection: QEMU " in said
    assert "ok      Linux guest: Linux " in said
    assert "\x1b" not in said


def test_doctor_fails_when_something_needed_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding("QEMU", False, "none", "pytest-virtio setup"), Finding("KVM", False, "no", needed=False)]
    monkeypatch.setattr(machine, "inspect", lambda: findings)
    monkeypatch.setattr(machine, "find_qemu", lambda: None)
    monkeypatch.setattr(machine, "daemons", lambda qemu: [])
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out == "missing QEMU: none\n        -> pytest-virtio setup\nmissing KVM: no\n"
    findings.pop(0)
    assert cli.main(["doctor"]) == 0


def script(directory: Path, name: str, text: str = "") -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_daemons_that_are_here_and_that_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    qemu, beside = script(tmp_path, "qemu"), script(tmp_path, "qemu-storage-daemon")
    passt = script(tmp_path, "passt", "echo '  --vhost-user'")
    found = {finding.what: finding for finding in daemons(qemu)}
    assert list(found) == ["qemu-storage-daemon", "virtiofsd", "dpdk-testpmd", "passt", "vhost-device-vsock"]
    assert [found[name].detail for name in ("qemu-storage-daemon", "passt")] == [str(beside), str(passt)]
    for name, package in (("dpdk-testpmd", "dpdk-dev"), ("vhost-device-vsock", "vhost-device-vsock")):
        assert not found[name].ok
        assert not found[name].needed
        assert package in found[name].remedy
    script(tmp_path, "passt", "echo old")
    old = next(finding for finding in daemons(None) if finding.what == "passt")
    assert (old.ok, old.detail) == (False, f"{passt} is too old for vhost-user")
    assert "2024_11 or later" in old.remedy


@pytest.mark.parametrize("command", [["doctor"], ["setup", "--backends"]])
def test_daemons_are_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    for name in ("inspect", "find_qemu"):
        monkeypatch.setattr(machine, name, lambda: [])
    for name in ("install_qemu", "build_linux", "install_backends", "_introspection"):
        monkeypatch.setattr(machine, name, lambda *_: Finding("x", True, ""))
    monkeypatch.setattr(machine, "daemons", lambda _: [Finding("passt", False, "none", "install it", needed=False)])
    assert cli.main(command) == 0
    assert "missing passt: none\n        -> install it\n" in capsys.readouterr().out


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(machine, "inspect", lambda: [Finding("QEMU", True, "there")])
    monkeypatch.setattr(machine, "find_qemu", lambda: None)
    monkeypatch.setattr(machine, "daemons", lambda qemu: [])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    cli.main(["doctor"])
    assert capsys.readouterr().out == "\x1b[32mok     \x1b[0m QEMU: there\n"
    monkeypatch.setenv("NO_COLOR", "1")
    cli.main(["doctor"])
    assert capsys.readouterr().out == "ok      QEMU: there\n"


def test_what_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(progress: object) -> None:
        raise MissingError("no apt here: install a kernel by hand")

    monkeypatch.setattr(machine, "build_linux", fail)
    assert cli.main(["image", "build", "linux"]) == 1
    assert capsys.readouterr().err == "pytest-virtio: no apt here: install a kernel by hand\n"


def test_releases_of_qemu_are_built_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def build(name: str, progress: Callable[[str], None], mirror: str | None) -> QemuRelease:
        asked.append((name, mirror))
        progress("unpacking")
        return QemuRelease(Path("/cache") / name, "1:7.2", {})

    monkeypatch.setattr(machine, "build_release", build)
    assert cli.main(["image", "build", "qemu-7.2", "qemu-10.0", "--mirror", "file:/srv/debian"]) == 0
    assert asked == [("qemu-7.2", "file:/srv/debian"), ("qemu-10.0", "file:/srv/debian")]
    said = capsys.readouterr()
    assert said.out.splitlines()[1] == "qemu-10.0: QEMU 1:7.2, /cache/qemu-10.0"
    assert said.err == "pytest-virtio: unpacking\n" * 2


def test_nothing_is_built_when_one_name_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["image", "build", "qemu-7.2", "qemu-10.1"]) == 2
    said = capsys.readouterr().err
    assert "unknown image: 'qemu-10.1'" in said
    assert "qemu-10.0" in said


def test_path_prints_the_program_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTEST_VIRTIO_CACHE", str(tmp_path))
    for name in ("linux", "qemu-7.2"):
        assert cli.main(["image", "path", name]) == 1
        assert f"{name} is not built yet: run 'pytest-virtio image build {name}'" in capsys.readouterr().err
    monkeypatch.setattr(machine, "find_release", lambda name: QemuRelease(tmp_path / name, "1:7.2", {}))
    assert cli.main(["image", "path", "qemu-7.2"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/qemu-7.2\n"


def test_wrong_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["image", "initramfs", "--devices", "net", "--output", str(tmp_path / "i")]) == 2
    assert "numbers of virtio device types are expected" in capsys.readouterr().err


@pytest.mark.guest
@pytest.mark.parametrize("own", [True, False])
def test_initramfs_writes_what_the_guest_would_boot(tmp_path: Path, own: bool) -> None:
    """With a kernel of the user's the archive is made for the case; without one it is the image's."""
    kernel = ["--kernel", __file__] if own else []
    target = tmp_path / "below" / "initramfs.cpio"
    command: list[str | Path] = [PROGRAM, "image", "initramfs", "--devices", "1,2", *kernel, "--output", target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ("virtio_blk" in done.stdout) is not own
    assert target.read_bytes().startswith(b"070701")
    assert list(target.parent.iterdir()) == [target]
