"""A wire whose two ends the test holds: what the tests of the witness share."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_virtio import Wire
from pytest_virtio.backend.messages import Frame, receive, send
from pytest_virtio.backend.wire import Masks, Witness
from pytest_virtio.declare.wire import Fault
from pytest_virtio.model.wire import WireMessage
from pytest_virtio.spec.vhost_user_messages import Header, Number
from pytest_virtio.vm.deadline import Deadline

SECONDS = 20.0
REPLY = 5


class Ends:
    """QEMU's and the backend's end of a wire, in the hands of the test."""

    def __init__(self, *faults: Fault, masks: Masks = Masks()) -> None:  # noqa: B008 - frozen
        self.witness = Witness(Wire(faults=faults), masks)
        self.connect()

    def connect(self) -> None:
        self.qemu, to_qemu = socket.socketpair()
        self.backend, to_backend = socket.socketpair()
        for end in (self.qemu, self.backend):
            # The kernel's own limit: Python's would make the sockets non-blocking.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(SECONDS), 0))
        self.witness.join(to_qemu, to_backend)

    def close(self) -> None:
        self.witness.close()
        self.qemu.close()
        self.backend.close()

    def ask(self, request: int, number: int | None = None, *fds: int) -> None:
        send(self.qemu, frame(request, number, 1, *fds))

    def answer(self, request: int, number: int) -> None:
        send(self.backend, frame(request, number, REPLY))

    def wait(self, name: str, fate: str = "passed") -> WireMessage:
        found = self.witness.wait(lambda m: (m.name, m.fate) == (name, fate), Deadline.after(SECONDS))
        assert found is not None
        return found

    def wait_end(self) -> str:
        assert self.witness.wait(lambda _: False, Deadline.after(SECONDS)) is None
        assert self.witness.ended
        return self.witness.ended


def frame(request: int, number: int | None = None, flags: int = 1, *fds: int) -> Frame:
    payload = b"" if number is None else Number(u64=number).pack()
    return Frame(Header(request=request, flags=flags, length=len(payload)), payload, fds)


def got(end: socket.socket) -> tuple[int, bytes]:
    """Request and payload of what came; at the end of the stream an EOFError."""
    came = receive(end)
    if came is None:
        raise EOFError
    came.close()
    return came.header.request, came.payload


def number(value: int) -> bytes:
    return Number(u64=value).pack()


def possessions() -> tuple[int, int]:
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


Wired = Callable[..., Ends]


def fail(payload: bytes) -> bytes:
    pytest.fail("not so")
