"""A user's own daemon behind a real QEMU: what becomes of processes that it starts."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable

import pytest

from pytest_virtio import Daemon, VhostUserBlk, VirtioAssertionError, VirtioFactory
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
