"""Backends that are not as they should be, behind a real QEMU: each is one clear error in time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pytest_virtio import (
    BackendError,
    Daemon,
    Declaration,
    DeviceStalledError,
    Drop,
    MissingError,
    MonitorTimeoutError,
    QemuExitedError,
    UsageError,
    VhostUserBlk,
    VhostUserFs,
    VhostUserI2c,
    VhostUserNet,
    VirtioError,
    VirtioFactory,
    Wire,
)
from pytest_virtio.backend import sockets
from pytest_virtio.backend.program import BACKGROUND
from pytest_virtio.backend.running import RunningBackend
from pytest_virtio.vm.deadline import Deadline

from .real import FS, installed

Fails = Callable[..., VirtioError]
Bad = Callable[..., Daemon]

PROLOGUE = """
import os, signal, socket, struct, sys
path = sys.argv[1]
def listening():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    return listener
def answer(peer):
    assert peer.recv(12) == struct.pack('<III', 1, 1, 0)
    peer.send(struct.pack('<IIIQ', 1, 5, 8, 0x140000000))
print('my last words', file=sys.stderr, flush=True)
"""
SERVE = """
import os, sys
disk = ["--blockdev", "null-co,node-name=d,size=1048576,read-zeroes=on"]
export = f"vhost-user-blk,id=e,node-name=d,writable=on,addr.type=unix,addr.path={sys.argv[1]}"
os.execvp("qemu-storage-daemon", ["qemu-storage-daemon", *disk, "--export", export])
"""
ONE_QUEUE = (
    *("qemu-storage-daemon", "--blockdev", "null-co,node-name=d,size=1048576,read-zeroes=on"),
    *("--export", "vhost-user-blk,id=e,node-name=d,writable=on,addr.type=fd,addr.str={fd}"),
)


@pytest.fixture
def bad(tmp_path: Path) -> Bad:
    """Makes a daemon of Python code."""

    def make(body: str, *, connects: bool = False) -> Daemon:
        script = tmp_path / "daemon.py"
        script.write_text(PROLOGUE + body)
        return Daemon([sys.executable, str(script), "{socket}"], connects=connects)

    return make


@pytest.fixture
def fails(virtio_factory: VirtioFactory) -> Fails:
    """Starts a VM, which must fail; how it does."""

    def fails(device: Declaration, kind: type[VirtioError] = BackendError, timeout: float = 30) -> VirtioError:
        with pytest.raises(kind) as caught:
            virtio_factory(device, timeout=timeout).__enter__()
        return caught.value

    return fails


def notes(error: VirtioError) -> str:
    return "\n".join(error.__notes__)


# Before QEMU.


def test_a_program_that_is_not_there(fails: Fails) -> None:
    error = fails(VhostUserBlk(backend=Daemon(["no-such-daemon", "{socket}"])), MissingError)
    assert str(error).startswith("vublk0 needs a backend. no-such-daemon: no such program: install it")
    assert "--virtio-missing=skip" in str(error)


@pytest.mark.parametrize("connects", [False, True])
def test_one_that_exits_at_once(fails: Fails, bad: Bad, connects: bool) -> None:
    lines = str(fails(VhostUserBlk(backend=bad("sys.exit(3)", connects=connects)))).splitlines()
    assert lines[0].endswith(" ended (exit code 3) before it was met; its stderr:")
    assert lines[1] == "my last words"
    assert lines[2].startswith(f"its command line: {sys.executable} ")


@pytest.mark.parametrize(
    ("body", "connects", "said"),
    [
        ("signal.pause()", False, "was not met within 2 s: nobody listens at "),
        ("signal.pause()", True, "was not met within 2 s: it did not connect "),
        ("listener = listening(); signal.pause()", False, "did not answer within 2 s "),
    ],
    ids=["listens-not", "connects-not", "answers-not"],
)
def test_one_that_keeps_us_waiting(fails: Fails, bad: Bad, body: str, connects: bool, said: str) -> None:
    first, last_words, *_ = str(fails(VhostUserBlk(backend=bad(body, connects=connects)), timeout=2)).splitlines()
    assert said in first
    assert "(timeout= or --virtio-timeout gives it longer)" in first
    assert last_words == "my last words"


def test_one_that_speaks_http(fails: Fails, bad: Bad) -> None:
    speaks = "peer, _ = listening().accept(); peer.send(b'HTTP/1.1 400 Bad Request'); signal.pause()"
    assert "does not speak vhost-user: VHOST_USER_GET_FEATURES: " in (
        said := str(fails(VhostUserBlk(backend=bad(speaks))))
    )
    assert "HTTP/1.1" in said


@pytest.mark.parametrize("then", ["", "listener = listening()\n"], ids=["at-once", "listening"])
def test_one_that_goes_to_the_background(fails: Fails, bad: Bad, then: str) -> None:
    # Its parent has ended for long when it answers.
    forks = "\nif os.fork(): os._exit(0)\nos.close(2); os.close(1); import time; time.sleep(0.5)\n"
    forks += "peer, _ = listener.accept(); answer(peer); signal.pause()"
    said = str(fails(VhostUserBlk(backend=bad(then + forks))))
    assert f"ended (exit code 0: {BACKGROUND}) " in said
    assert "; its stderr:\nmy last words\n" in said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["sleep", "9"], "an argument must say where it listens, with {socket} or {fd} in it"),
        (["sleep", "{sock}", "{socket}"], "'sock': {socket}, {fd} and {directory} are known"),
        (["sleep", "{", "{socket}"], "a brace is doubled"),
    ],
    ids=["nowhere", "unknown", "brace"],
)
def test_arguments_that_can_not_be(fails: Fails, argv: list[str], said: str) -> None:
    assert said in str(fails(VhostUserBlk(backend=Daemon(argv)), UsageError))


def test_one_that_connects_is_given_a_path(fails: Fails) -> None:
    device = VhostUserBlk(backend=Daemon(ONE_QUEUE, connects=True))
    assert "one that connects is told a path: {socket}" in str(fails(device, UsageError))


# A socket of somebody else.


@pytest.fixture
def found(tmp_path: Path) -> Iterator[Path]:
    """The socket of a storage daemon that runs already."""
    path = tmp_path / "found"
    with subprocess.Popen([sys.executable, "-c", SERVE, str(path)]) as daemon:
        try:
            sockets.connect_when_there(path, lambda: daemon.poll() is None, Deadline.after(20)).close()
            yield path
        finally:
            daemon.kill()


def test_a_socket_that_nobody_serves(fails: Fails, tmp_path: Path) -> None:
    path = tmp_path / "left"
    sockets.listen(path).close()
    said = str(fails(VhostUserBlk(backend=path)))
    assert said == (
        f"vublk0: its backend {path} was not met (nobody listens at {path}); what it writes is not known here"
    )


def test_a_second_vm_on_one_backend(fails: Fails, virtio_factory: VirtioFactory, found: Path) -> None:
    with virtio_factory(VhostUserBlk(backend=found)) as virtio:
        said = str(fails(VhostUserBlk(backend=found), timeout=2))
        assert f"{found} did not answer within 2 s: a backend that serves another VM says nothing" in said
        virtio["vublk0"].assert_driver_ok()


# While QEMU sets it up.


@pytest.mark.parametrize("declare", [VhostUserBlk, VhostUserNet])
@pytest.mark.parametrize("wire", [False, True])
def test_one_that_hangs_up_after_its_features(
    fails: Fails, bad: Bad, declare: Callable[..., Declaration], wire: bool
) -> None:
    device = declare(backend=bad("peer, _ = listening().accept(); answer(peer); peer.recv(1); sys.exit(3)"), wire=wire)
    error = fails(device, QemuExitedError)
    assert "backend_init failed" in str(error)
    assert "my last words" in notes(error)
    # A network card always has a witness.
    told = "(the connection has ended: the backend hung up)" in notes(error)
    assert told is (wire or declare is VhostUserNet)


@pytest.mark.parametrize("wire", [False, True])
@pytest.mark.parametrize("connects", [False, True])
def test_one_that_falls_silent_after_its_features(fails: Fails, bad: Bad, wire: bool, connects: bool) -> None:
    meets = "peer = socket.socket(socket.AF_UNIX); peer.connect(path)" if connects else "peer, _ = listening().accept()"
    device = VhostUserBlk(backend=bad(f"{meets}; answer(peer); signal.pause()", connects=connects), wire=wire)
    error = fails(device, MonitorTimeoutError, timeout=3)
    assert ": running\nmy last words" in notes(error)
    assert ("(the last message: GET_FEATURES, to backend)" if wire else "wire=True in a backend's") in notes(error)


def test_a_reply_that_the_test_itself_drops(fails: Fails) -> None:
    error = fails(VhostUserBlk(wire=Wire(faults=(Drop("GET_CONFIG", reply=True),))), MonitorTimeoutError, timeout=3)
    assert "(the last message: GET_CONFIG, a reply, to QEMU: dropped by the test)" in notes(error)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ("VHOST_USER_F_PROTOCOL_FEATURES", "ended (exit code 1) during its start"),
        ("VHOST_USER_PROTOCOL_F_CONFIG", "expecting VHOST_USER_PROTOCOL_F_CONFIG"),
        ("VIRTIO_F_VERSION_1", "support modern mode"),
    ],
)
def test_one_that_offers_too_little(fails: Fails, mask: str, said: str) -> None:
    error = fails(VhostUserBlk(mask={mask}), QemuExitedError)
    assert said in str(error)
    assert f"(QEMU was not told of {mask}: masked by the test)" in notes(error)


def test_more_queues_than_it_has(fails: Fails) -> None:
    error = fails(VhostUserBlk(backend=Daemon(ONE_QUEUE), num_queues=8), QemuExitedError)
    assert "maximum number of queues supported by the backend is 1" in str(error)


# Not bad.


def test_one_that_takes_its_time(virtio_factory: VirtioFactory, tmp_path: Path) -> None:
    late: Sequence[str] = [
        "sh",
        "-c",
        f'sleep 1; exec "{sys.executable}" "$@"',
        "sh",
        str(tmp_path / "serve.py"),
        "{socket}",
    ]
    (tmp_path / "serve.py").write_text(SERVE)
    with virtio_factory(VhostUserBlk(backend=Daemon(late))) as virtio:
        virtio["vublk0"].assert_driver_ok()


def test_it_is_found_and_left_alone(virtio_factory: VirtioFactory, found: Path) -> None:
    for _ in range(2):
        with virtio_factory(VhostUserBlk(backend=os.path.relpath(found))) as virtio:
            virtio["vublk0"].assert_driver_ok()
    with socket.socket(socket.AF_UNIX) as again:
        again.connect(str(found))


@pytest.mark.parametrize("declare", [VhostUserI2c, VhostUserFs])
def test_a_daemon_for_another_device(fails: Fails, declare: Callable[..., Declaration]) -> None:
    said = str(fails(declare(backend=Daemon(ONE_QUEUE))))
    assert " its backend qemu-storage-daemon offers feature bits 1, 2, 6, 9, 10, " in said
    assert "it looks like VhostUserBlk. Declare it so, or have QEMU not told of them: mask={" in said


def test_a_daemon_for_another_device_that_its_bits_do_not_show(fails: Fails) -> None:
    """A network card has nearly all bits; 11.1 ends, and 7.2 and 10.0 say DRIVER_OK."""
    error = fails(VhostUserNet(backend=Daemon(ONE_QUEUE)), (DeviceStalledError, QemuExitedError))
    if isinstance(error, DeviceStalledError):
        assert str(error).endswith("\nnext: does qemu-storage-daemon serve this device type?")


def test_a_daemon_for_another_device_that_is_meant(fails: Fails) -> None:
    """It has one queue, and a file system has two: QEMU ends, or says DRIVER_OK of a device that nobody serves."""
    device = VhostUserFs(backend=Daemon(ONE_QUEUE), mask={1, 2, 6, *range(9, 15)})
    error = fails(device, (DeviceStalledError, QemuExitedError))
    told = "\n".join([str(error), *getattr(error, "__notes__", [])])
    assert "vu_panic: Invalid queue index: 1" in told


@pytest.mark.skipif(not installed(FS), reason="virtiofsd is not installed")
def test_one_that_dies_while_its_device_comes_up(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU never notices it of a file system."""
    settle = RunningBackend.settle

    def crash(backend: RunningBackend, deadline: Deadline) -> None:
        if backend.child.running:
            os.kill(backend.child.pid, signal.SIGSEGV)
            assert backend.child.wait(deadline)
        settle(backend, deadline)

    monkeypatch.setattr(RunningBackend, "settle", crash)
    error = fails(VhostUserFs(), DeviceStalledError)
    ended = "its backend has ended (killed by SIGSEGV)"
    assert str(error).startswith(f"vufs0 is at DRIVER_OK, and nobody serves its queues: {ended}\n")
