"""unpacked: QEMU runs from where it was unpacked, on its own files, and no package's file is overwritten."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_virtio.errors import MissingError
from pytest_virtio.provision import selfcheck, unpacked
from pytest_virtio.provision.packages import Package

from . import fake_qemu
from .conftest import package

SHOWS = '#!/bin/sh\necho "$libraries|$LD_LIBRARY_PATH|$QEMU_MODULE_DIR|$*|$$"\n'


def fill(place: Path, debs: list[Path]) -> Path:
    """Fill a directory, and move it to its final place."""
    directory, final = place / "building", place / "a final place"
    directory.mkdir()
    unpacked.fill(directory, final, [Package(deb.stem, "1", deb) for deb in debs], print, whole=True)
    return directory.rename(final)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell script runs the machine's shell, and so on files of others."""
    monkeypatch.setattr(selfcheck, "check", lambda program, home, whole: None)


@pytest.mark.usefixtures("unchecked")
def test_no_package_s_file_is_overwritten_where_bin_is_a_link_to_usr_bin(tmp_path: Path) -> None:
    final = fill(tmp_path, fake_qemu.packages(tmp_path, SHOWS))
    assert (final / "files" / "bin").is_symlink()
    assert (final / "files" / "usr" / "bin" / unpacked.BINARY).read_text() == SHOWS
    assert "made by pytest-virtio" in (final / "bin" / unpacked.BINARY).read_text().lower()


@pytest.mark.usefixtures("unchecked")
def test_the_script_becomes_qemu_on_its_own_libraries_whatever_the_environment_says(tmp_path: Path) -> None:
    final = fill(tmp_path, fake_qemu.packages(tmp_path, SHOWS))
    environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": "/nowhere", "QEMU_MODULE_DIR": "/another/build"}
    command = [str(final / "bin" / unpacked.BINARY), "-device", "a b,c='d'"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate(timeout=20)
    libraries, *rest = said.strip().split("|")
    own = final / "files" / fake_qemu.LIBRARIES
    assert libraries.split(":") == [str(own), str(own / "pulseaudio")]
    assert rest == ["", "", "-device a b,c='d'", str(process.pid)]


@pytest.mark.usefixtures("unchecked")
def test_every_path_that_qemu_was_built_with_leads_into_the_build(tmp_path: Path) -> None:
    final = fill(tmp_path, fake_qemu.packages(tmp_path))
    assert (final / "libexec" / "qemu-bundle" / "usr" / "share" / "qemu" / "bios.bin").is_file()
    assert (final / "libexec" / unpacked.BINARY).read_text() == fake_qemu.LOADER
    assert not (final / "files" / "usr" / "share" / "doc").exists()


def test_a_build_that_runs_code_of_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"runs code that did not come with it: /.*/(da|ba|busybox|)sh"):
        fill(tmp_path, fake_qemu.packages(tmp_path))


def test_packages_without_qemu_or_without_a_loader(tmp_path: Path) -> None:
    base_files, _, qemu = fake_qemu.packages(tmp_path)
    (tmp_path / "1").mkdir()
    with pytest.raises(MissingError, match="hold no qemu-system-x86_64: install QEMU"):
        fill(tmp_path / "1", [base_files])
    (tmp_path / "2").mkdir()
    arm = package(tmp_path, "libc6-arm", "2", {"lib/ld-linux-aarch64.so.1": ""})
    with pytest.raises(MissingError, match="only QEMUs for x86-64 hosts"):
        fill(tmp_path / "2", [qemu, arm])
