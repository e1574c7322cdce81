"""The vhost-user protocol as a front end's first question needs it (vhost-user specification, "Message Specification").

Responsible for asking a backend for its features over a connected socket; must not know whose backend it is.
"""

from __future__ import annotations

import socket
import struct

from pytest_virtio.errors import ReplyError
from pytest_virtio.vm.deadline import Deadline

__all__ = ("ask_features",)

_HEADER = struct.Struct("<III")
"""Request, flags, size of what follows; in the machine's own byte order, which is little-endian on x86."""
_GET_FEATURES = 1
_VERSION, _REPLY = 1, 1 << 2
_FEATURES = struct.Struct("<Q")
_AT_ONCE = 0.001
"""0 would not mean no time, but a socket that never waits."""


def ask_features(connection: socket.socket, deadline: Deadline) -> int:
    """Send VHOST_USER_GET_FEATURES and wait for the answer: bits that the backend offers.

    The question changes nothing in the backend, and a front end may ask it again.

    :raises TimeoutError: when there is no answer in time.
    :raises ConnectionError: when the backend hangs up.
    :raises ReplyError: when what it answers is something else.
    """
    try:
        connection.settimeout(deadline.remaining() or _AT_ONCE)
        connection.sendall(_HEADER.pack(_GET_FEATURES, _VERSION, 0))
        header = _receive(connection, _HEADER.size, deadline)
        if header != _HEADER.pack(_GET_FEATURES, _VERSION | _REPLY, _FEATURES.size):
            raise ReplyError("VHOST_USER_GET_FEATURES", "header", f"{header.hex(' ', 4)} ({header!r})")
        return int(_FEATURES.unpack(_receive(connection, _FEATURES.size, deadline))[0])
    finally:
        # A time limit makes the socket non-blocking for everybody who has it; QEMU gets it as it was.
        connection.settimeout(None)


def _receive(connection: socket.socket, length: int, deadline: Deadline) -> bytes:
    received = b""
    while len(received) < length:
        connection.settimeout(deadline.remaining() or _AT_ONCE)
        more = connection.recv(length - len(received))
        if not more:
            raise ConnectionResetError("the backend has hung up")
        received += more
    return received
