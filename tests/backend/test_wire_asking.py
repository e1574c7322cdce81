"""The witness between two ends that the tests hold: the connection on which the backend asks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_virtio import Drop, Rewrite
from pytest_virtio.backend.messages import receive, send
from pytest_virtio.spec.vhost_user_messages import BackendRequest, Request

from .ends import REPLY, SECONDS, Ends, Wired, fail, frame, got, number


class Asking:
    """The connection on which the backend asks, as both have got it."""

    def __init__(self, ends: Ends) -> None:
        self.qemu, given = socket.socketpair()
        with given:
            ends.ask(Request.SET_BACKEND_REQ_FD, None, given.fileno())
        came = receive(ends.backend)
        assert came is not None
        assert len(came.fds) == 1
        self.backend = socket.socket(fileno=came.fds[0])
        for end in (self.qemu, self.backend):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(SECONDS), 0))

    def close(self) -> None:
        self.qemu.close()
        self.backend.close()


@pytest.fixture
def asking() -> Iterator[Callable[[Ends], Asking]]:
    made: list[Asking] = []

    def make(ends: Ends) -> Asking:
        made.append(Asking(ends))
        return made[-1]

    yield make
    for channel in made:
        channel.close()


def test_what_the_backend_asks_is_seen_too(wired: Wired, asking: Callable[[Ends], Asking]) -> None:
    ends = wired(Drop("CONFIG_CHANGE_MSG", nth=2))
    channel = asking(ends)
    for _ in range(2):
        send(channel.backend, frame(BackendRequest.CONFIG_CHANGE_MSG))
    send(channel.backend, frame(BackendRequest.VRING_CALL, 0))
    assert [got(channel.qemu)[0] for _ in range(2)] == [BackendRequest.CONFIG_CHANGE_MSG, BackendRequest.VRING_CALL]
    send(channel.qemu, frame(BackendRequest.CONFIG_CHANGE_MSG, 0, REPLY))
    assert got(channel.backend) == (BackendRequest.CONFIG_CHANGE_MSG, number(0))
    asked = [(m.name, m.to, m.reply, m.fate) for m in ends.witness.messages() if m.by_backend]
    assert asked == [
        ("CONFIG_CHANGE_MSG", "QEMU", False, "passed"),
        ("CONFIG_CHANGE_MSG", "QEMU", False, "dropped"),
        ("VRING_CALL", "QEMU", False, "passed"),
        ("CONFIG_CHANGE_MSG", "backend", True, "passed"),
    ]


@pytest.mark.parametrize("which", ["qemu", "backend"])
def test_the_end_of_that_channel_is_its_own(wired: Wired, asking: Callable[[Ends], Asking], which: str) -> None:
    ends = wired()
    channel = asking(ends)
    getattr(channel, which).close()
    with pytest.raises(EOFError):
        got(channel.backend if which == "qemu" else channel.qemu)
    ends.ask(Request.SET_OWNER)
    assert got(ends.backend)[0] == Request.SET_OWNER
    assert not ends.witness.ended


def test_that_channel_ends_with_the_wire(wired: Wired, asking: Callable[[Ends], Asking]) -> None:
    ends = wired()
    channel = asking(ends)
    ends.qemu.close()
    for end in (channel.qemu, channel.backend):
        with pytest.raises(EOFError):
            got(end)


def test_a_failing_rewrite_of_what_the_backend_asks_is_told(wired: Wired, asking: Callable[[Ends], Asking]) -> None:
    ends = wired(Rewrite("VRING_CALL", fail))
    send(asking(ends).backend, frame(BackendRequest.VRING_CALL, 0))
    assert ends.wait_end() == "a rewrite failed: Failed: not so"


def test_what_is_no_socket_goes_through_as_it_is(wired: Wired) -> None:
    ends = wired()
    with Path(os.devnull).open() as file:
        ends.ask(Request.SET_BACKEND_REQ_FD, None, file.fileno())
        came = receive(ends.backend)
        assert came is not None
        with contextlib.closing(came):
            assert os.path.sameopenfile(came.fds[0], file.fileno())
            assert fcntl.fcntl(came.fds[0], fcntl.F_GETFD) & fcntl.FD_CLOEXEC
