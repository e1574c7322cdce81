"""Real vhost-user daemons: how each is declared, a round trip of data through it, and what it is known to offer.

Responsible for those facts; must not know pytest, nor what becomes of a daemon.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pytest_virtio import (
    BlkDriver,
    DriverQueue,
    NetDriver,
    VhostUserBlk,
    VhostUserFs,
    VhostUserNet,
    VhostUserVsock,
    Virtio,
    VsockDriver,
)
from pytest_virtio.backend.programs import VIRTIOFSD
from pytest_virtio.guest.scripted.drivers.vsock import Connection

ADDRESS, PEER = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
BROADCAST = b"\xff" * 6
PORT = 1234
Ended = Callable[[int], bool]


def arp(op: int, mac: bytes, address: bytes, target_mac: bytes, target: bytes) -> bytes:
    """RFC 826, for Ethernet and IPv4."""
    return bytes.fromhex("0001080006040000")[:-1] + bytes([op]) + mac + address + target_mac + target


def blk(virtio: Virtio, timeout: float | None = None) -> None:
    driver, data = virtio.guest.driver("vublk0", BlkDriver), bytes(range(256)) * 16
    driver.write(4096, data, timeout)
    driver.flush(timeout)
    assert driver.read(4096, len(data), timeout) == data


# FUSE (Linux, include/uapi/linux/fuse.h): the headers of requests and answers.
FUSE_IN, FUSE_OUT = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
INIT, WRITE, CREATE, ROOT = 26, 16, 35, 1
O_WRONLY = 1


def fuse(virtio: Virtio, opcode: int, node: int, said: bytes, answer: int, timeout: float | None) -> bytes:
    head = FUSE_IN.pack(FUSE_IN.size + len(said), opcode, 7, node, 0, 0, 0, 0)
    queue: DriverQueue = virtio.guest.driver("vufs0").queue("request0")
    told = queue.request(head + said, writable=[FUSE_OUT.size + answer], timeout=timeout).written
    length, error, unique = FUSE_OUT.unpack(told[: FUSE_OUT.size])
    assert (length, error, unique) == (len(told), 0, 7)
    return told[FUSE_OUT.size :]


def fs(virtio: Virtio, timeout: float | None = None) -> None:
    """A file that the guest writes is on the host."""
    version = fuse(virtio, INIT, ROOT, struct.pack("<IIII", 7, 31, 1 << 16, 0), 64, timeout)
    assert struct.unpack_from("<I", version) == (7,)
    made = fuse(virtio, CREATE, ROOT, struct.pack("<IIII", O_WRONLY, 0o644, 0, 0) + b"file\0", 144, timeout)
    (node,), (handle,) = struct.unpack_from("<Q", made), struct.unpack_from("<Q", made, 128)
    data = b"from the guest"
    said = struct.pack("<QQIIQII", handle, 0, len(data), 0, 0, 0, 0) + data
    assert struct.unpack_from("<I", fuse(virtio, WRITE, node, said, 8, timeout)) == (len(data),)
    assert (virtio._running.qemu.directory / "vufs0.share" / "file").read_bytes() == data


def net(virtio: Virtio, timeout: float | None = None, *, pair: int = 0) -> None:
    """Who has it? testpmd says that it has, whatever it is."""
    driver = virtio.guest.driver("vunet0", NetDriver)
    mac = driver.mac()
    asked = BROADCAST + mac + b"\x08\x06" + arp(1, mac, ADDRESS, bytes(6), PEER)
    driver.send(asked.ljust(60, b"\0"), pair=pair, timeout=timeout)
    answer = driver.receive(timeout, pair=pair)
    assert answer[:6] == mac
    assert answer[14:22] == bytes.fromhex("0001080006040002")
    assert (answer[28:32], answer[32:38], answer[38:42]) == (PEER, mac, ADDRESS)


def vsock(virtio: Virtio, timeout: float | None = None) -> None:
    """A connection from the guest, and one from the host."""
    driver, place = virtio.guest.driver("vuvsock0", VsockDriver), host_side(virtio)
    with listening(f"{place}_{PORT}") as listener, closing(driver.connect(PORT, timeout=timeout)) as ours:
        assert_talk(ours, listener.accept()[0])
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(place))
        peer.sendall(b"CONNECT %d\n" % PORT)
        with closing(driver.accept(PORT, timeout)) as ours:
            assert peer.recv(64) == b"OK %d\n" % PORT
            assert_talk(ours, peer)


def host_side(virtio: Virtio) -> Path:
    return virtio._running.qemu.directory / "vuvsock0.vsock"


@contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(10)
        listener.bind(path)
        listener.listen()
        try:
            yield listener
        finally:
            Path(path).unlink()


def assert_talk(ours: Connection, peer: socket.socket) -> None:
    with peer:
        peer.settimeout(10)
        ours.send(b"to the host")
        assert peer.recv(64) == b"to the host"
        peer.sendall(b"to the guest")
        assert ours.receive(12) == b"to the guest"


@dataclass(frozen=True)
class Daemon:
    """A real daemon: how it is declared, and a round trip through it.

    :param queue: where its requests go.
    :param notices: whether QEMU notices its end by itself.
    :param offers: some of what it offers.
    :param protocol: some of the protocol's features that it and QEMU agree on.
    """

    program: str
    id: str
    declare: Callable[..., Any]
    round_trip: Callable[..., None]
    queue: str
    notices: bool
    offers: tuple[str, ...]
    protocol: tuple[str, ...]


BLK = Daemon(
    "qemu-storage-daemon",
    "vublk0",
    VhostUserBlk,
    blk,
    queue="request0",
    notices=True,
    offers=("VIRTIO_BLK_F_FLUSH", "VIRTIO_BLK_F_DISCARD", "VIRTIO_RING_F_EVENT_IDX"),
    protocol=("MQ", "CONFIG", "REPLY_ACK", "CONFIGURE_MEM_SLOTS"),
)
FS = Daemon(
    "virtiofsd",
    "vufs0",
    VhostUserFs,
    fs,
    queue="request0",
    notices=False,
    offers=("VIRTIO_RING_F_INDIRECT_DESC", "VIRTIO_RING_F_EVENT_IDX"),
    protocol=("MQ", "REPLY_ACK", "CONFIGURE_MEM_SLOTS"),
)
NET = Daemon(
    "dpdk-testpmd",
    "vunet0",
    VhostUserNet,
    net,
    queue="tx0",
    notices=True,
    offers=("VIRTIO_NET_F_MRG_RXBUF", "VIRTIO_NET_F_MQ", "VIRTIO_F_RING_PACKED"),
    protocol=("MQ", "REPLY_ACK", "STATUS"),
)
VSOCK = Daemon(
    "vhost-device-vsock",
    "vuvsock0",
    VhostUserVsock,
    vsock,
    queue="tx",
    notices=False,
    offers=("VIRTIO_RING_F_EVENT_IDX", "VHOST_USER_F_PROTOCOL_FEATURES"),
    protocol=("MQ", "CONFIG"),
)


def installed(daemon: Daemon) -> bool:
    """Whether it can be run: qemu-storage-daemon comes with each QEMU, and virtiofsd in C is for root only."""
    *rust, in_c = VIRTIOFSD.places
    places = [*rust, *([in_c] if os.geteuid() == 0 else [])] if daemon is FS else []
    return daemon is BLK or bool(shutil.which(daemon.program)) or any(place.exists() for place in places)


@cache
def is_7_2(program: Path) -> bool:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=20)
    return "version 7.2" in told.stdout
