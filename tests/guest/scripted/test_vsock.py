"""The socket device (virtio 1.3 section 5.10), on a vhost-user backend. The oracle is an echo: of the backend here, and
where vhost-device-vsock (rust-vmm) is installed also of a Unix socket behind that one."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from pytest_virtio import Device, RequestFailedError, RequestTimeoutError, UsageError, Virtio
from pytest_virtio.guest.scripted.drivers.vsock import BUFFER_ALLOCATION, Connection, Peer, VsockDriver
from pytest_virtio.spec.devices.vsock import VsockHdr, VsockOp, VsockShutdown
from pytest_virtio.vm.deadline import Deadline

from .conftest import Boot
from .vsock_backend import CALLED_PORT, ECHO_PORT, GUEST_CID, EchoBackend

pytestmark = pytest.mark.qemu

REAL = shutil.which("vhost-device-vsock")
MORE_THAN_A_BUFFER = bytes(range(256)) * 400
VsockBoot = Callable[..., AbstractContextManager[VsockDriver]]


def vsock(scripted: Boot, backend: Path) -> VsockBoot:
    @contextmanager
    def boot(**options: object) -> Iterator[VsockDriver]:
        chardev = ["-chardev", f"socket,id=c0,path={backend}"]
        with scripted(Device("vhost-user-vsock-pci", chardev="c0"), args=chardev, **options) as virtio:
            yield driver_of(virtio)

    return boot


def driver_of(virtio: Virtio) -> VsockDriver:
    return virtio.guest.driver("vsock0", VsockDriver)


@contextmanager
def own_backend(directory: Path) -> Iterator[Path]:
    backend = EchoBackend(directory / "vhost")
    try:
        yield directory / "vhost"
    finally:
        backend.stop()


@contextmanager
def real_backend(directory: Path) -> Iterator[Path]:
    if REAL is None:
        pytest.skip("vhost-device-vsock is not installed")
    host = directory / "host"
    command = [REAL, "--guest-cid", str(GUEST_CID), "--socket", str(directory / "vhost"), "--uds-path", str(host)]
    with socket.socket(socket.AF_UNIX) as listener, subprocess.Popen(command) as process:
        listener.bind(f"{host}_{ECHO_PORT}")
        listener.listen()
        threading.Thread(target=serve, args=(listener, host), daemon=True).start()
        deadline = Deadline.after(10)
        while not (directory / "vhost").exists():
            assert not deadline.passed()
            assert process.poll() is None
        try:
            yield directory / "vhost"
        finally:
            process.terminate()
            listener.shutdown(socket.SHUT_RDWR)


def serve(listener: socket.socket, host: Path) -> None:
    """The same echo as the backend's own."""
    with contextlib.suppress(OSError):
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=echo, args=(peer, host), daemon=True).start()


def echo(peer: socket.socket, host: Path) -> None:
    with peer, contextlib.suppress(OSError):
        while data := peer.recv(4096):
            peer.sendall(data)
            if data == b"close":
                return
            if data == b"call":
                threading.Thread(target=call, args=(host,), daemon=True).start()


def call(host: Path) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(host))
        peer.sendall(b"CONNECT %d\n" % CALLED_PORT)
        if peer.recv(64).startswith(b"OK"):
            peer.sendall(b"called")
            echo(peer, host)


@pytest.fixture(params=[own_backend, real_backend])
def boot(request: pytest.FixtureRequest, scripted: Boot, tmp_path: Path) -> Iterator[VsockBoot]:
    with request.param(tmp_path) as path:
        yield vsock(scripted, path)


@pytest.fixture
def own(scripted: Boot, tmp_path: Path) -> Iterator[VsockBoot]:
    with own_backend(tmp_path) as path:
        yield vsock(scripted, path)


def test_a_connection_from_its_request_to_its_end(boot: VsockBoot) -> None:
    """REQUEST, RESPONSE, RW both ways, SHUTDOWN, RST (5.10.6.4, 5.10.6.5)."""
    with boot() as driver:
        assert driver.guest_cid == driver.config().guest_cid == GUEST_CID
        connection = driver.connect(ECHO_PORT)
        assert connection.is_open
        connection.send(b"hello")
        assert connection.receive(5) == b"hello"
        connection.close()
        assert (connection.is_open, connection.is_reset, driver.connections) == (False, True, {})


@pytest.mark.parametrize("interrupts", ["msix", "intx", "none"])
def test_more_than_a_buffer(own: VsockBoot, interrupts: str) -> None:
    """Data flow in both directions only as far as there is credit (5.10.6.3)."""
    with own(interrupts=interrupts) as driver:
        there_and_back(driver.connect(ECHO_PORT))


def test_more_than_a_buffer_again(boot: VsockBoot) -> None:
    """Several connections don't disturb each other (5.10.6.4)."""
    with boot() as driver:
        first, second = driver.connect(ECHO_PORT), driver.connect(ECHO_PORT)
        first.send(b"first")
        there_and_back(second)
        assert first.receive(5) == b"first"


def there_and_back(connection: Connection) -> None:
    assert len(MORE_THAN_A_BUFFER) > connection.credit > 0
    connection.send(MORE_THAN_A_BUFFER)
    assert connection.receive(len(MORE_THAN_A_BUFFER)) == MORE_THAN_A_BUFFER


def test_credit_is_asked_for(boot: VsockBoot) -> None:
    """CREDIT_REQUEST is answered by CREDIT_UPDATE, by which all that was echoed is free again (5.10.6.3)."""
    with boot() as driver:
        connection = driver.connect(ECHO_PORT)
        whole = connection.credit
        connection.send(bytes(1000))
        assert connection.credit == whole - 1000
        connection.receive(1000)
        assert connection.request_credit() == whole
        assert connection.fwd_cnt == 1000


def test_the_peer_ends_the_connection(boot: VsockBoot) -> None:
    """After the peer's SHUTDOWN there is an end of the data, and nothing more to send (5.10.6.5)."""
    with boot() as driver:
        connection = driver.connect(ECHO_PORT)
        connection.send(b"close")
        assert connection.receive(100) == b"close"
        assert connection.is_reset
        with pytest.raises(RequestFailedError, match="RST"):
            connection.send(b"more")


def test_the_host_connects(boot: VsockBoot) -> None:
    """The other direction: the device's REQUEST, the driver's RESPONSE (5.10.6.4)."""
    with boot() as driver:
        driver.connect(ECHO_PORT).send(b"call")
        called = driver.accept(CALLED_PORT)
        assert called.receive(6) == b"called"
        called.send(b"answer")
        assert called.receive(6) == b"answer"


def test_nobody_listens(own: VsockBoot) -> None:
    """RST in answer to a REQUEST (5.10.6.4). vhost-device-vsock 0.3 owes it: rust-vmm/vhost-device pull request 943."""
    with own() as driver:
        with pytest.raises(RequestFailedError, match="RST"):
            driver.connect(ECHO_PORT + 1)
        with pytest.raises(RequestTimeoutError, match=f"REQUEST for port {CALLED_PORT}"):
            driver.accept(CALLED_PORT, timeout=0.05)
        assert driver.connections == {}


def test_a_timeout_loses_no_data(own: VsockBoot) -> None:
    with own() as driver:
        connection = driver.connect(ECHO_PORT)
        connection.send(b"abc")
        with pytest.raises(RequestTimeoutError, match="data"):
            connection.receive(4, timeout=0.2)
        connection.send(b"d")
        assert connection.receive(4) == b"abcd"


def test_a_reset_is_the_end(own: VsockBoot) -> None:
    """RST ends a connection at once; a packet of it is answered by RST (5.10.6.5)."""
    with own() as driver:
        connection = driver.connect(ECHO_PORT)
        connection.reset()
        again = driver.connections[connection.peer] = Connection(driver, connection.peer)
        with pytest.raises(RequestFailedError, match="RST"):
            again.request_credit()


MISTAKES: dict[str, Callable[[VsockDriver], object]] = {
    "dst_port: 4294967296": lambda driver: driver.connect(1 << 32),
    "dst_cid: -1": lambda driver: driver.connect(ECHO_PORT, cid=-1),
    "port=-1: a number of 32 bits": lambda driver: driver.accept(-1),
}


def test_what_fits_no_field_is_the_users_mistake(own: VsockBoot) -> None:
    """The error names what was seen, and no connection is left over."""
    with own() as driver:
        for complaint, mistake in MISTAKES.items():
            with pytest.raises(UsageError, match=complaint):
                mistake(driver)
        assert (driver.connections, driver.queue("tx").completed) == ({}, 0)


GOOD = {"src_cid": 2, "dst_cid": GUEST_CID, "src_port": ECHO_PORT, "dst_port": 1024, "len": 0, "type": 1}
HOSTILE = {
    "nothing": b"",
    "used length": bytes(VsockHdr.size() - 1),
    "dst_cid": VsockHdr(**{**GOOD, "dst_cid": 4}, op=VsockOp.RW).pack(),
    "type": VsockHdr(**{**GOOD, "type": 9}, op=VsockOp.RW).pack(),
    "len": VsockHdr(**{**GOOD, "len": 5}, op=VsockOp.RW).pack() + b"1234",
    "room": VsockHdr(**{**GOOD, "len": BUFFER_ALLOCATION + 1}, op=VsockOp.RW).pack() + bytes(BUFFER_ALLOCATION + 1),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_packets_are_refused(own: VsockBoot, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """The header is checked (5.10.6), and a peer that does not mind its credit is found out (5.10.6.3)."""
    with own() as driver:
        connection = driver.connect(ECHO_PORT)
        connection.tell(VsockOp.CREDIT_REQUEST)
        monkeypatch.setattr("pytest_virtio.guest.scripted.queue.Request.written", HOSTILE[case])
        with pytest.raises(RequestFailedError, match="expected"):
            connection.receive(1)


def test_packets_of_nobody_are_answered(own: VsockBoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """RST for a connection that isn't there, none for an RST (5.10.6.4); RST after SHUTDOWN of both directions, though
    one came after the other (5.10.6.5); unknown operations are let pass."""
    with own() as driver:
        connection = driver.connect(ECHO_PORT)
        sent: list[tuple[int, int]] = []
        monkeypatch.setattr(driver, "transmit", lambda header, *_: sent.append((header.op, header.src_port)))
        for op in VsockOp.RW, VsockOp.RST:
            driver._take(VsockHdr(**{**GOOD, "dst_port": 9}, op=op).pack())
        driver._take(VsockHdr(**GOOD, op=99).pack())
        assert sent == [(VsockOp.RST, 9)]
        driver._take(VsockHdr(**GOOD, op=VsockOp.SHUTDOWN, flags=VsockShutdown.RECEIVE).pack())
        assert (connection.peer_shutdown, connection.is_open) == (VsockShutdown.RECEIVE, True)
        assert driver.connections == {Peer(1024, 2, ECHO_PORT): connection}
        driver._take(VsockHdr(**GOOD, op=VsockOp.SHUTDOWN, flags=VsockShutdown.SEND).pack())
        assert sent == [(VsockOp.RST, 9), (VsockOp.RST, 1024)]
