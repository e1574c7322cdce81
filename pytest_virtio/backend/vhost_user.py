"""The vhost-user protocol as a front end's first question needs it (vhost-user specification, "Message Specification").

Responsible for asking a backend for its features over a connected socket; must not know whose backend it is.
"""

from __future__ import annotations

import socket

from pytest_virtio.errors import ReplyError
from pytest_virtio.spec.vhost_user_messages import Header, HeaderFlag, Number, Request
from pytest_virtio.vm.deadline import Deadline

__all__ = ("ask_features",)

_QUESTION = Header(request=Request.GET_FEATURES, flags=HeaderFlag.VERSION_1, length=0).pack()
_ANSWER = Header(
    request=Request.GET_FEATURES, flags=HeaderFlag.VERSION_1 | HeaderFlag.REPLY, length=Number.size()
).pack()
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
        connection.sendall(_QUESTION)
        header = _receive(connection, Header.size(), deadline)
        if header != _ANSWER:
            raise ReplyError("VHOST_USER_GET_FEATURES", "header", f"{header.hex(' ', 4)} ({header!r})")
        return Number.unpack(_receive(connection, Number.size(), deadline)).u64
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
