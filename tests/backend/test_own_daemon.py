"""A user's own daemon behind a real QEMU: what becomes of processes that it starts."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable

import pytest

from pytest_virtio import (
    BlkDriver,
    Daemon,
    RequestTimeoutError,
    Stuck,
    VhostUserBlk,
    Virtio,
    VirtioAssertionError,
    VirtioFactory,
)
from pytest_virtio.backend.program import BACKGROUND
from pytest_virtio.vm.deadline import Deadline

pytestmark = pytest.mark.qemu

SERVE = (
    "qemu-storage-daemon --blockdev null-co,node-name=d,size=1048576,read-zeroes=on "
    "--export vhost-user-blk,id=e,node-name=d,writable=on,addr.type=fd,addr.str={fd}"
)


def test_one_that_goes_into_the_background_later(virtio_factory: VirtioFactory) -> None:
    leave = f"trap 'exit 0' TERM; {SERVE} & wait"
    with virtio_factory(VhostUserBlk(backend=Daemon(["sh", "-c", leave]))) as virtio:
        device = virtio["vublk0"]
        device.assert_driver_ok()
        os.kill(device.backend.pid, signal.SIGTERM)
        assert virtio._running.backends["vublk0"].child.wait(Deadline.after(20))
        ended = f"its backend has ended (exit code 0: {BACKGROUND})"
        with pytest.raises(VirtioAssertionError, match=re.escape(f"nobody serves it: {ended}")):
            device.assert_driver_ok()
        assert f"vublk0: {ended}\n" in virtio.dump()


@pytest.mark.parametrize("restart", [False, True])
def test_a_helper_in_a_session_of_its_own_ends_with_the_vm(
    virtio_factory: VirtioFactory, ended: Callable[[int], bool], restart: bool
) -> None:
    """Of a daemon that started it and serves on; one that was started anew too."""
    start = (
        "import os, signal, sys\n"
        "told, tell = os.pipe()\n"
        "if not (helper := os.fork()): os.setsid(); os.close(tell); signal.pause()\n"
        "os.close(tell); os.read(told, 1); print('helper', helper, flush=True)\n"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    argv = [sys.executable, "-c", start, *SERVE.split()]
    with virtio_factory(VhostUserBlk(backend=Daemon(argv), reconnect=1 if restart else None)) as virtio:
        backend = virtio["vublk0"].backend
        if restart:
            backend.restart()
        helpers = [int(pid) for pid in re.findall(r"helper (\d+)", backend.stderr)]
        assert len(helpers) == 1 + restart
        assert all(os.getsid(pid) == pid for pid in helpers)
    assert all(ended(pid) for pid in helpers)


SUPERVISOR = (
    "import subprocess, sys\n"
    "child = subprocess.Popen(sys.argv[1:], start_new_session=True, close_fds=False)\n"
    "print('serves', child.pid, flush=True); child.wait()"
)
SUPERVISED = Daemon([sys.executable, "-c", SUPERVISOR, *SERVE.split()])


def serving(virtio: Virtio) -> list[int]:
    """The processes that serve, oldest first; no supervisor."""
    return [int(pid) for pid in re.findall(r"serves (\d+)", virtio["vublk0"].backend.stderr)]


def is_silent(disk: BlkDriver) -> bool:
    try:
        disk.read(0, 512, timeout=0.3)
    except RequestTimeoutError:
        return True
    return False


@pytest.mark.virtio(VhostUserBlk(backend=SUPERVISED))
def test_killing_a_supervisor_kills_what_serves(virtio: Virtio, ended: Callable[[int], bool]) -> None:
    device, disk = virtio["vublk0"], virtio.guest.driver("vublk0", BlkDriver)
    disk.read(0, 512)
    (pid,) = serving(virtio)
    assert os.getsid(pid) == pid
    device.backend.kill()
    assert ended(pid)
    assert is_silent(disk)
    assert device.queue(0).verdict().stuck is Stuck.BACKEND_ENDED


@pytest.mark.virtio(VhostUserBlk(backend=SUPERVISED))
def test_stopping_a_supervisor_stops_what_serves(virtio: Virtio) -> None:
    disk, backend = virtio.guest.driver("vublk0", BlkDriver), virtio["vublk0"].backend
    for _ in range(2):
        backend.stop()
        assert is_silent(disk)
        backend.cont()
        disk.initialise()
        disk.read(0, 512)


@pytest.mark.virtio(VhostUserBlk(backend=SUPERVISED, reconnect=1))
def test_restarting_a_supervisor_restarts_what_serves(virtio: Virtio, ended: Callable[[int], bool]) -> None:
    disk = virtio.guest.driver("vublk0", BlkDriver)
    for _ in range(2):
        virtio["vublk0"].backend.restart()
        disk.read(0, 512)
    *old, new = serving(virtio)
    assert len(old) == 2
    assert all(ended(pid) for pid in old)
    os.kill(new, 0)
