"""The far end of a network card's wire, in the test, and Ethernet frames for it.

Responsible for QEMU's stream netdev, whose frames each follow their length in 4 bytes, big-endian, and for a card that
is plugged into one; must not know what a driver does with frames.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import dpkt  # type: ignore[import-untyped]
import pytest

from pytest_virtio import Net, UnknownNameError, Virtio
from pytest_virtio.guest.scripted.drivers.net import NetDriver

from .conftest import Boot

__all__ = ("BROADCAST", "PEER", "Wire", "ethernet", "numbered", "vlan_tagged", "wired")

NEWER = {"in_order"}
"""Properties of virtio-net that QEMU 7.2 has not."""
SECONDS = 10.0
LENGTH_BYTES = 4

PEER = bytes.fromhex("020000000001")
"""Where the frames of tests come from: a locally administered address."""
BROADCAST = b"\xff" * 6
EXPERIMENTAL = 0x88B5
"""The EtherType for local experiments (IEEE 802, clause 9.2.3)."""


class Wire:
    """QEMU's connection, taken from a socket that listened before QEMU was started: so nothing races.

    Unix sockets block when they are full, on both sides: what one side sends, the other one gets.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._peer, _ = listener.accept()
        self._peer.settimeout(SECONDS)

    def close(self) -> None:
        """Hang up."""
        self._peer.close()

    def send(self, *frames: bytes) -> None:
        """Put frames on the wire."""
        self._peer.sendall(b"".join(len(frame).to_bytes(LENGTH_BYTES, "big") + frame for frame in frames))

    def receive(self) -> bytes:
        """The next frame that QEMU put on the wire."""
        return self._exactly(int.from_bytes(self._exactly(LENGTH_BYTES), "big"))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._peer.recv(count - len(data))
            if not piece:
                raise EOFError(f"QEMU hung up {count - len(data)} bytes too early")
            data += piece
        return data


@contextmanager
def wired(
    boot: Boot, directory: Path, properties: Mapping[str, Any] | None = None, **options: Any
) -> Iterator[tuple[Virtio, NetDriver, Wire]]:
    """A VM whose card ``net0`` is at the end of a wire, with both ends listening.

    :param properties: of the card.
    :param options: of the VM and its guest, as ``scripted`` takes them.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(closing(_listening(directory / "wire")))
        netdev = f"stream,server=off,addr.type=unix,addr.path={directory / 'wire'}"
        try:
            virtio = stack.enter_context(boot(Net(netdev=netdev, **properties or {}), **options))
        except UnknownNameError as error:
            if error.name not in NEWER:
                raise
            pytest.skip(str(error))
        wire = stack.enter_context(closing(Wire(listener)))
        driver = virtio.guest.driver("net0", NetDriver)
        # QEMU drops what the guest sends until it has seen to the connection, and reads nothing before either.
        hello = ethernet(BROADCAST, b"hello")
        wire.send(hello)
        assert driver.receive() == hello
        yield virtio, driver, wire


def _listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(SECONDS)
    listener.bind(str(path))
    listener.listen(1)
    return listener


def ethernet(to: bytes, payload: bytes, *, sender: bytes = PEER) -> bytes:
    """A frame with an EtherType that nothing answers."""
    return bytes(dpkt.ethernet.Ethernet(dst=to, src=sender, type=EXPERIMENTAL, data=payload))


def vlan_tagged(to: bytes, vlan: int, payload: bytes) -> bytes:
    """A frame of a VLAN (IEEE 802.1Q)."""
    tag = dpkt.ethernet.VLANtag8021Q(id=vlan, type=EXPERIMENTAL)
    frame = dpkt.ethernet.Ethernet(dst=to, src=PEER, type=EXPERIMENTAL, vlan_tags=[tag], data=payload)
    return bytes(frame)


def numbered(to: bytes, number: int, length: int) -> bytes:
    """A frame of ``length`` bytes whose contents tell its number, at any place of it."""
    payload = number.to_bytes(4, "big") * (length // 4 + 1)
    return ethernet(to, payload)[:length]
