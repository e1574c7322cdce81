"""vhost-user messages as bytes: their frames, and what they say.

Responsible for cutting a message out of a stream and for decoding it, whatever a hostile peer sends; must not know what
is done with it. What is not known is kept: a request by its number, a payload as it is.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass, replace
from enum import IntEnum

from pytest_virtio.model.wire import Fate, Receiver, WireMessage
from pytest_virtio.spec.layout import Layout
from pytest_virtio.spec.vhost_user_messages import (
    PAYLOADS,
    BackendRequest,
    Config,
    Header,
    HeaderFlag,
    MemoryRegion,
    MemoryTable,
    Number,
    Request,
    SingleRegion,
)

__all__ = ("Frame", "receive", "send")

LONGEST_PAYLOAD = 64 * 1024
"""More than any message has: what says that it is longer is no message."""
MOST_FDS = 64
"""More than any message has: there are up to 8 memory regions ("Memory regions description")."""
MOST_REGIONS = 8
SHOWN_BYTES = 256
_VERSION = 3
_FD = struct.Struct("@i")


@dataclass(frozen=True, slots=True)
class Frame:
    """A message as it is on the wire, with the descriptors that came with its first byte.

    :param by_backend: whether it is of the connection on which the backend asks.
    """

    header: Header
    payload: bytes = b""
    fds: tuple[int, ...] = ()
    by_backend: bool = False

    @property
    def name(self) -> str:
        """Of the request, also where this is the reply."""
        requests: type[IntEnum] = BackendRequest if self.by_backend else Request
        number = self.header.request
        return requests(number).name if number in requests._value2member_map_ else f"request {number}"

    @property
    def reply(self) -> bool:
        """Whether it answers a request."""
        return bool(self.header.flags & HeaderFlag.REPLY)

    def with_payload(self, payload: bytes) -> Frame:
        """The same with another payload."""
        header = Header(request=self.header.request, flags=self.header.flags, length=len(payload))
        return replace(self, header=header, payload=payload)

    def message(self, seconds: float, to: Receiver, fate: Fate = "passed", connection: int = 0) -> WireMessage:
        """What it says."""
        return WireMessage(
            seconds=seconds,
            connection=connection,
            to=to,
            name=self.name,
            reply=self.reply,
            need_reply=bool(self.header.flags & HeaderFlag.NEED_REPLY),
            by_backend=self.by_backend,
            length=len(self.payload),
            fields=_fields(self),
            fds=len(self.fds),
            fate=fate,
        )

    def close(self) -> None:
        """Close its descriptors: whoever has it sent on has no more use for them."""
        for fd in self.fds:
            os.close(fd)


def receive(source: socket.socket, *, by_backend: bool = False) -> Frame | None:
    """Wait for a message; None at the end of the stream.

    :raises ConnectionAbortedError: when it is no message of vhost-user, or not all of its descriptors came through.
    :raises OSError: when the connection breaks.
    """
    # socket.recv_fds() ignores the flags that it is given (CPython 3.11): programs that we start would inherit them.
    room = socket.CMSG_SPACE(MOST_FDS * _FD.size)
    try:
        first, control, flags, _ = source.recvmsg(Header.size(), room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # So ends a connection whose peer closed it before it had read all that we sent.
        return None
    fds = tuple(fd for _, _, data in control for (fd,) in _FD.iter_unpack(data))
    frame = Frame(Header(request=0, flags=0, length=0), b"", fds, by_backend)
    if not first:
        return None
    try:
        _check_descriptors(flags, fds)
        header = Header.unpack(first + _receive(source, Header.size() - len(first)))
        _check(header)
        return replace(frame, header=header, payload=_receive(source, header.length))
    except BaseException:
        frame.close()
        raise


def send(target: socket.socket, frame: Frame) -> None:
    """Send a message; its descriptors go with the first byte, and stay open here.

    :raises OSError: when the connection breaks.
    """
    data = frame.header.pack() + frame.payload
    # QEMU and backends expect them in one piece with the first byte ("Communication").
    sent = socket.send_fds(target, [data], frame.fds) if frame.fds else 0
    if sent < len(data):
        target.sendall(data[sent:])


def _check_descriptors(flags: int, fds: tuple[int, ...]) -> None:
    """The kernel drops those that there is no room for: in the message, or among our own."""
    if flags & socket.MSG_CTRUNC:
        raise ConnectionAbortedError(f"of a message's descriptors only {len(fds)} came through")


def _check(header: Header) -> None:
    if header.flags & _VERSION != HeaderFlag.VERSION_1 or header.length > LONGEST_PAYLOAD:
        raise ConnectionAbortedError(f"no message of vhost-user: its header is {header.pack().hex(' ', 4)}")


def _receive(source: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        more = source.recv(length - len(received))
        if not more:
            raise ConnectionResetError(f"the stream ended {length - len(received)} bytes before a message did")
        received += more
    return received


def _fields(frame: Frame) -> dict[str, object]:
    """The payload by names; of a reply that only acknowledges, and of what is not known, what can be said."""
    layout, payload = PAYLOADS.get(frame.name), frame.payload
    acknowledges = frame.reply and not frame.name.startswith("GET_")
    if not payload:
        return {}
    if (layout is None or acknowledges) and len(payload) == Number.size():
        layout = Number
    if layout is None or len(payload) < layout.size():
        return {"bytes": _shown(payload)}
    known, rest = _plain(layout.unpack(payload)), payload[layout.size() :]
    if layout is MemoryTable:
        regions = MemoryRegion.unpack_all(rest[: MOST_REGIONS * MemoryRegion.size()])
        return {"regions": tuple(_plain(region) for region in regions)}
    if layout is SingleRegion:
        return {"regions": (_plain(MemoryRegion.unpack(payload[SingleRegion.offset("region") :])),)}
    if layout is Config:
        return {**known, "bytes": _shown(rest)}
    return known


def _plain(record: Layout) -> dict[str, object]:
    return {name: _value(value) for name, value in vars(record).items() if not name.startswith("padding")}


def _value(value: object) -> object:
    return _shown(value) if isinstance(value, bytes) else value


def _shown(data: bytes) -> str:
    return data[:SHOWN_BYTES].hex() + ("…" if len(data) > SHOWN_BYTES else "")
