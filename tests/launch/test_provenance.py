"""What a VM says that it runs on, against what other ways tell; and what is made of files and programs that lie."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_virtio import Blk, Daemon, Firmware, Linux, Rng, VhostUserBlk, Virtio, VirtioFactory
from pytest_virtio.backend import version
from pytest_virtio.backend.version import version_of
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.provision.kernel_release import kernel_release
from pytest_virtio.provision.linux import linux_image
from pytest_virtio.vm.deadline import Deadline


@pytest.mark.virtio(Blk())
def test_qemu_machine_and_host(virtio: Virtio) -> None:
    known = virtio.vm.provenance
    told = virtio.vm.qmp("query-version")
    assert isinstance(told, dict)
    assert known.qemu == "{major}.{minor}.{micro}".format(**told["qemu"])
    assert known.qemu_build in told["package"]
    assert f"{known.machine}-machine" == virtio.vm.qmp("qom-get", {"path": "/machine", "property": "type"})
    assert (known.accelerator, known.guest, known.kernel, known.firmware) == ("tcg", "scripted", "", "")
    assert known.host == f"{platform.system()} {platform.release()} {platform.machine()}"
    assert known.plugin == importlib.metadata.version("pytest-virtio")


@pytest.mark.qemu
def test_a_versioned_machine_keeps_its_name(virtio_factory: VirtioFactory, program: Path) -> None:
    with virtio_factory(Rng(), boot=False) as virtio:
        name = virtio.vm.provenance.machine
    with virtio_factory(Rng(), boot=False, machine=f"{name},hpet=off") as virtio:
        assert virtio.vm.provenance.machine == name


@pytest.mark.guest
def test_kernel_and_firmware_of_linux(linux: Virtio) -> None:
    known = linux.vm.provenance
    release = linux.guest.run("uname -r").output.decode().strip()
    assert known.kernel == release
    bios = linux.guest.run("cat /sys/class/dmi/id/bios_version").output.decode().strip()
    assert known.firmware == f"SeaBIOS {bios}"


@pytest.mark.guest
def test_a_kernel_of_the_users_has_its_name_too(virtio_factory: VirtioFactory, tmp_path: Path) -> None:
    image = linux_image()
    assert image is not None
    mine = tmp_path / "mine"
    mine.symlink_to(image.kernel)
    with virtio_factory(Blk(driver=None), guest=Linux(kernel=mine)) as virtio:
        assert virtio.vm.provenance.kernel == f"{image.version} (mine)"


@pytest.mark.qemu
def test_backends_and_a_qemu_that_has_died(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk(), guest="firmware") as virtio:
        assert not isinstance(virtio.guest, ScriptedGuest)
        drain, log = virtio._running.qemu.child.drain, virtio.guest.console.log
        assert drain.wait(lambda: b")" in log.since(0), Deadline.after(10))
        os.kill(virtio.vm.pid, signal.SIGKILL)
        assert virtio._running.qemu.child.wait(Deadline.after(10))
        assert not virtio.vm.running
        known = virtio.vm.provenance
        assert known.backends == {
            "vublk0": _first_line(virtio._running.backends["vublk0"].child.argv[0]).replace(" version", "")
        }
        assert known.firmware.startswith("SeaBIOS ")
    assert virtio.vm.provenance == known


def _first_line(program: str) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, check=True, timeout=10)
    return told.stdout.decode().partition("\n")[0]


@pytest.mark.qemu
def test_firmware_of_the_users(virtio_factory: VirtioFactory, talking_rom: Callable[[bytes], Path]) -> None:
    rom = talking_rom(b"hello")
    with virtio_factory(Rng(), guest=Firmware(bios=rom, drives=frozenset())) as virtio:
        assert virtio.vm.provenance.firmware == "talking.rom"


@pytest.mark.qemu
def test_only_programs_that_are_known_to_answer_are_asked(virtio_factory: VirtioFactory, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    mine = tmp_path / "my-daemon"
    mine.write_text(f'#!/bin/sh\n[ "$1" = --version ] && touch {asked}\nexec qemu-storage-daemon "$@"\n')
    mine.chmod(0o755)
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    node = f"driver=file,node-name=disk,filename={disk}"
    export = "type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix,addr.path={socket}"
    daemon = Daemon([str(mine), "--blockdev", node, "--export", export])
    with virtio_factory(VhostUserBlk(backend=daemon)) as virtio:
        assert virtio.vm.provenance.backends == {"vublk0": "my-daemon"}
    assert not asked.exists()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo virtiofsd 1.13.2", "virtiofsd 1.13.2"),
        ("echo 'virtiofsd version 7.2.22 (Debian 1)'; echo 'using FUSE'", "virtiofsd 7.2.22 (Debian 1)"),
        ("echo virtiofsd 9; exit 1", "virtiofsd"),
        ("true", "virtiofsd"),
        ("kill -9 $$", "virtiofsd"),
        ("printf '\\033[31m\\377'", r"virtiofsd \x1b[31m\xff"),
        ("exec sleep 60", "virtiofsd"),
    ],
)
def test_what_a_daemon_says_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str) -> None:
    monkeypatch.setattr(version, "VERSION_SECONDS", 0.5)
    program = tmp_path / "virtiofsd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert version_of(str(program)) == told


def test_a_daemon_is_asked_once_and_its_words_are_bounded(tmp_path: Path) -> None:
    program = tmp_path / "passt"
    program.write_text(f"#!/bin/sh\necho x >> {tmp_path}/asked\nhead -c 3000000 /dev/zero | tr '\\0' y\n")
    program.chmod(0o755)
    assert version_of(str(program)) == version_of(str(program))
    assert len(version_of(str(program))) < 2 * version.LONGEST
    assert (tmp_path / "asked").read_text() == "x\n"


def test_a_daemon_that_is_gone_keeps_its_name() -> None:
    assert version_of("/nonexistent/virtiofsd") == "virtiofsd"


def _bzimage(text: bytes, offset: int = 0x3000) -> bytes:
    header = bytearray(0x3200)
    header[0x202:0x206] = b"HdrS"
    header[0x20E:0x210] = offset.to_bytes(2, "little")
    return bytes(header) + text


@pytest.mark.parametrize(
    ("content", "release"),
    [
        (_bzimage(b"6.18.0-rc1+ (me@here) #1 SMP\0"), "6.18.0-rc1+"),
        (_bzimage(b"\x1b[31m6.18"), ""),
        (_bzimage(b"9" * 1000), "9" * 80),
        (_bzimage(b"6.18", offset=0), ""),
        (_bzimage(b"6.18", offset=0xFFFF), ""),
        (_bzimage(b"6.18")[:0x210], ""),
        (b"\x7fELF...Linux version %s (%s)...Linux version 6.1.0-56-amd64 (debian) ...", "6.1.0-56-amd64"),
        (b"\x7fELF no banner", ""),
        (b"Linux version 6.1 (no kernel)", ""),
        (b"", ""),
    ],
)
def test_the_release_of_a_kernel_file(tmp_path: Path, content: bytes, release: str) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(content)
    assert kernel_release(path) == release


def test_a_kernel_file_that_is_gone_tells_nothing(tmp_path: Path) -> None:
    assert kernel_release(tmp_path / "none") == ""


@pytest.mark.guest
def test_the_release_of_a_real_kernel() -> None:
    image = linux_image()
    assert image is not None
    assert kernel_release(image.kernel) == image.version
