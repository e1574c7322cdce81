"""vhost-device-vsock of the rust-vmm project: connections between guest and host. Copy it into your daemon's
repository, with its command line in ``Daemon([...])``."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_virtio import Daemon, Stuck, VhostUserVsock, Virtio, VirtioFactory

PROGRAM = "vhost-device-vsock"
PORT = 1234


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The socket at which the daemon takes the host's connections; the guest's come at the same path with ``_PORT``."""
    return tmp_path / "host"


@pytest.fixture
def virtio(virtio_factory: VirtioFactory, host: Path) -> Iterator[Virtio]:
    daemon = Daemon([PROGRAM, "--guest-cid=3", "--socket={socket}", f"--uds-path={host}"])
    with virtio_factory(VhostUserVsock(backend=daemon, wire=True)) as virtio:
        yield virtio


@contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(10)
        listener.bind(path)
        listener.listen()
        yield listener


def test_negotiation(virtio: Virtio) -> None:
    vsock = virtio["vuvsock0"]
    vsock.assert_backend_offered("VIRTIO_F_VERSION_1", "VIRTIO_RING_F_EVENT_IDX")
    vsock.assert_protocol_features("MQ", "CONFIG")
    vsock.assert_conforms()


def test_the_guest_connects_to_the_host(virtio: Virtio, host: Path) -> None:
    with listening(f"{host}_{PORT}") as listener:
        ours = virtio.guest.driver("vuvsock0").connect(PORT)
        with listener.accept()[0] as peer, virtio["vuvsock0"].queue("rx").assert_progress():
            ours.send(b"ping")
            assert peer.recv(64) == b"ping"
            peer.sendall(b"pong")
            assert ours.receive(4) == b"pong"


def test_the_host_connects_to_the_guest(virtio: Virtio, host: Path) -> None:
    # Now and then a connection of the host's is lost that comes before any of the guest's; why is not found out.
    with listening(f"{host}_{PORT}"):
        virtio.guest.driver("vuvsock0").connect(PORT).close()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(host))
        peer.sendall(b"CONNECT %d\n" % PORT)
        ours = virtio.guest.driver("vuvsock0").accept(PORT)
        assert peer.recv(64) == b"OK %d\n" % PORT
        peer.sendall(b"called")
        assert ours.receive(6) == b"called"


def test_a_crash_shows_though_qemu_does_not_notice(virtio: Virtio) -> None:
    vsock = virtio["vuvsock0"]
    vsock.backend.kill()
    assert vsock.status().vhost_started
    assert vsock.queue("tx").verdict().stuck is Stuck.BACKEND_ENDED
