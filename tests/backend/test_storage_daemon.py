"""``VhostUserBlk``: a real ``qemu-storage-daemon`` behind a real QEMU, its image as the oracle."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio import (
    BackendError,
    Blk,
    BlkDriver,
    Daemon,
    MissingError,
    NotSupportedError,
    QemuExitedError,
    Scripted,
    VhostUserBlk,
    Virtio,
    VirtioFactory,
)
from pytest_virtio.backend.image import overlay
from pytest_virtio.backend.running import RunningBackend
from pytest_virtio.backend.storage_daemon import find_program
from pytest_virtio.vm.deadline import Deadline

from .conftest import made

Ended = Callable[[int], bool]

SECTOR = 512
SIZE = 8 << 20
NULL_DISK = ("qemu-storage-daemon", "--blockdev", "null-co,node-name=d,size=1048576,read-zeroes=on", "--export")
NULL_EXPORT = "vhost-user-blk,id=e,node-name=d,writable=on"


def backend_of(virtio: Virtio, id: str = "vublk0") -> RunningBackend:
    return virtio._running.backends[id]


def directory_of(virtio: Virtio) -> Path:
    return virtio._running.qemu.directory


def section(virtio: Virtio, title: str) -> str:
    return next(section.text for section in virtio.report() if section.title == title)


def assert_serves(virtio: Virtio, id: str = "vublk0") -> None:
    """What is in the image is read, and what is written is in the image after a flush."""
    driver = virtio.guest.driver(id, BlkDriver)
    image = directory_of(virtio) / f"{id}.img"
    with image.open("r+b") as file:
        file.seek(SIZE - SECTOR)
        file.write(b"last sector".ljust(SECTOR, b"."))
    assert driver.read(SIZE - SECTOR, SECTOR) == b"last sector".ljust(SECTOR, b".")
    driver.write(3 * SECTOR, b"w" * 2 * SECTOR)
    driver.flush()
    assert image.read_bytes()[2 * SECTOR : 6 * SECTOR] == bytes(SECTOR) + b"w" * 2 * SECTOR + bytes(SECTOR)


# Its data.


@pytest.mark.parametrize(
    "options",
    [{}, {"transport": "pci-transitional"}, {"transport": "mmio"}, {"machine": "pc"}, {"cpus": 3}, {"memory": "3G"}],
    ids=str,
)
def test_its_rings_are_served_from_the_image(virtio_factory: VirtioFactory, options: dict[str, Any]) -> None:
    with virtio_factory(VhostUserBlk(size=SIZE), **options) as virtio:
        assert virtio["vublk0"].type.startswith("vhost-user-blk")
        assert_serves(virtio)
        assert backend_of(virtio).features & 1 << 32, "VIRTIO_F_VERSION_1"


def test_each_device_has_its_own(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk(size=SIZE), Blk(), VhostUserBlk(size=SIZE, num_queues=3)) as virtio:
        assert [device.id for device in virtio] == ["vublk0", "blk0", "vublk1"]
        assert len(virtio["vublk1"].queues) == 3
        assert_serves(virtio)
        assert_serves(virtio, "vublk1")
        assert backend_of(virtio).child.pid != backend_of(virtio, "vublk1").child.pid


@pytest.mark.guest
def test_linux_drives_it(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk(size=SIZE), guest="linux", cpus=2, timeout=120) as virtio:
        (directory_of(virtio) / "vublk0.img").write_bytes(os.urandom(SIZE))
        virtio.guest.run("tr '\\0' U </dev/zero | dd of=/dev/vda bs=4k seek=7 count=1 conv=fsync", timeout=60)
        seen = virtio.guest.run("echo 3 >/proc/sys/vm/drop_caches; md5sum </dev/vda", timeout=60).output.split()[0]
        image = directory_of(virtio) / "vublk0.img"
        assert image.read_bytes()[7 << 12 : 8 << 12] == b"U" * 4096
        oracle = subprocess.run(["md5sum", image], capture_output=True, check=True, timeout=60)
        assert seen == oracle.stdout.split()[0]


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_users_image_is_not_changed(virtio_factory: VirtioFactory, tmp_path: Path, format: str) -> None:
    image = tmp_path / "my, image"
    text = b"mine".ljust(SIZE, b"\0") if format == "raw" else made(overlay(image, SIZE))
    image.write_bytes(text)
    with virtio_factory(VhostUserBlk(image)) as virtio:
        driver = virtio.guest.driver("vublk0", BlkDriver)
        assert driver.config().capacity == SIZE // SECTOR
        assert driver.read(0, SECTOR) == (text[:SECTOR] if format == "raw" else bytes(SECTOR))
        driver.write(0, b"t" * SECTOR)
        driver.write(SIZE - SECTOR, b"e" * SECTOR)
        driver.flush()
        assert driver.read(0, 2 * SECTOR) == b"t" * SECTOR + bytes(SECTOR)
        assert driver.read(SIZE - SECTOR, SECTOR) == b"e" * SECTOR
    assert image.read_bytes() == text


# What can't be.


@pytest.mark.parametrize(
    "options",
    [{"transport": "pci-legacy"}, {"transport": "pci-transitional", "guest": Scripted(legacy=True)}],
    ids=["device", "driver"],
)
def test_it_has_no_legacy_interface(virtio_factory: VirtioFactory, options: dict[str, Any]) -> None:
    with pytest.raises(NotSupportedError, match="vublk0: qemu-storage-daemon serves no legacy driver"):
        virtio_factory(VhostUserBlk(), **options).__enter__()


def test_a_daemon_that_refuses(virtio_factory: VirtioFactory) -> None:
    with pytest.raises(BackendError, match=r"vublk0: its backend qemu-storage-daemon ended \(exit code 1\)") as caught:
        virtio_factory(VhostUserBlk(num_queues=77777)).__enter__()
    assert "num-queues" in caught.value.stderr
    assert "--export type=vhost-user-blk" in caught.value.command_line


def test_a_qemu_that_refuses_tells_of_the_backend_too(virtio_factory: VirtioFactory) -> None:
    with pytest.raises(QemuExitedError, match="queue size") as caught:
        virtio_factory(VhostUserBlk(queue_size=0)).__enter__()
    account, further, by_hand = caught.value.__notes__
    assert further.startswith("wire=True in a backend's declaration ")
    assert account.startswith("vublk0's backend, qemu-storage-daemon: ")
    assert "addr.path=virtio-repro/vublk0.sock &" in by_hand


def test_the_daemon_beside_qemu_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def program(path: Path) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o755)
        return path

    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    qemu = tmp_path / "build" / "qemu"
    with pytest.raises(
        MissingError, match=r"v0 needs qemu-storage-daemon, which is neither beside .*/build/qemu nor in"
    ):
        find_program(qemu, "v0")
    for place in ("path", "build/storage-daemon", "build"):
        (tmp_path / "build").mkdir(exist_ok=True)
        found = program(tmp_path / place / "qemu-storage-daemon")
        assert find_program(qemu, "v0") == found
    (tmp_path / "link").symlink_to(qemu)
    assert find_program(tmp_path / "link", "v0") == found


def test_a_missing_daemon_can_skip(inner_runs: pytest.Pytester, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = inner_runs.path / "qemu"
    wrapper.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
    wrapper.chmod(0o755)
    shutil.copy(shutil.which("sh") or "/bin/sh", inner_runs.path / "sh")
    monkeypatch.setenv("PATH", str(inner_runs.path))
    inner_runs.makepyfile("""
        import pytest
        from pytest_virtio import VhostUserBlk
        @pytest.mark.virtio(VhostUserBlk())
        def test_it(virtio):
            pass
    """)
    options = ("-p", "no:hypothesispytest", "-p", "no:cacheprovider", f"--virtio-qemu={wrapper}")
    inner_runs.runpytest_inprocess(*options).assert_outcomes(errors=1)
    result = inner_runs.runpytest_inprocess(*options, "--virtio-missing=skip", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*vublk0 needs qemu-storage-daemon*"])


# Its end.


def test_killed_while_the_test_runs(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk(size=SIZE)) as virtio:
        daemon = backend_of(virtio)
        os.kill(daemon.child.pid, signal.SIGKILL)
        assert daemon.child.wait(Deadline.after(20))
        assert section(virtio, "vublk0 backend stderr").startswith("qemu-storage-daemon: killed by SIGKILL\n")
        assert virtio["vublk0"].backend.state == "ended"
        assert virtio.vm.running


def test_stopped_it_keeps_nobody_from_ending(virtio_factory: VirtioFactory, ended: Ended) -> None:
    with virtio_factory(VhostUserBlk(size=SIZE)) as virtio:
        daemon, qemu, directory = backend_of(virtio).child, virtio.vm.pid, directory_of(virtio)
        os.kill(daemon.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, daemon.pid, os.WSTOPPED | os.WNOWAIT)
        assert section(virtio, "vublk0 backend stderr").startswith("qemu-storage-daemon: stopped by a signal\n")
    assert daemon.how() == "killed by SIGKILL"
    assert ended(qemu)
    assert not directory.exists()


def test_it_is_ended_before_qemu(virtio_factory: VirtioFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    with virtio_factory(VhostUserBlk(size=SIZE)) as virtio:
        daemon, qemu = backend_of(virtio).child, virtio._running.qemu
        close = qemu.close
        was: list[str] = []

        def spied() -> None:
            was.append(daemon.how())
            close()

        monkeypatch.setattr(qemu, "close", spied)
    assert was == ["killed by SIGKILL"]


@pytest.mark.parametrize("backend", [None, Daemon([*NULL_DISK, f"{NULL_EXPORT},addr.type=fd,addr.str={{fd}}"])])
def test_by_hand(virtio_factory: VirtioFactory, tmp_path: Path, backend: Daemon | None) -> None:
    """The script starts the daemon, then QEMU, whose monitor is on the terminal; and ends the daemon with itself."""
    with virtio_factory(VhostUserBlk(backend=backend)) as virtio:
        script = section(virtio, "reproduce")
    words = b"\x01cinfo chardev\ninfo memdev\nquit\n"
    with subprocess.Popen(
        ["sh", "-uc", script],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as done:
        try:
            said, _ = done.communicate(words, timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(done.pid, signal.SIGKILL)
    assert done.returncode == 0, said
    assert b"vublk0.vhost-user: filename=unix:" in said
    assert b"share: true" in said
    files = {path.name for path in (tmp_path / "virtio-repro").iterdir()}
    assert files >= {"halt.rom", *({"vublk0.img"} if backend is None else set())}
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(OSError, match=r"refused|No such file"):
        late.connect(os.path.relpath(tmp_path / "virtio-repro" / "vublk0.sock"))


def test_nothing_is_left_when_pytest_is_killed(inner_runs: pytest.Pytester, ended: Ended) -> None:
    inner_runs.makepyfile("""
        import os, signal, pytest
        from pathlib import Path
        from pytest_virtio import VhostUserBlk
        from pytest_virtio.vm import janitor
        @pytest.mark.virtio(VhostUserBlk())
        def test_it(virtio):
            daemon = virtio._running.backends["vublk0"].child.pid
            os.kill(daemon, signal.SIGSTOP)
            sweeper = janitor._current.process.pid
            Path("left").write_text(f"{sweeper} {daemon} {virtio.vm.pid} {virtio._running.qemu.directory}")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    result = inner_runs.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret == -signal.SIGKILL
    *processes, directory = (inner_runs.path / "left").read_text().split()
    assert [pid for pid in processes if not ended(int(pid))] == []
    assert not Path(directory).exists()
