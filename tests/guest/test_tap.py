"""pexpect over a drained stream, fed through a real socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from pexpect.exceptions import EOF, TIMEOUT

from pytest_virtio import GuestError, GuestPanicError
from pytest_virtio.guest import tap as module
from pytest_virtio.guest.tap import Tap
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain, Stream


class Wire:
    """A drained stream and the end that writes to it."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.drain = Drain("test")
        ours, self.peer = socket.socketpair()
        self.stream: Stream = self.drain.add_socket("console1", ours)
        self.drain.start()
        self.tap = Tap(self.drain, self.stream, check)

    def say(self, data: bytes) -> None:
        """Send, and wait until it is drained."""
        size = self.stream.log.size + len(data)
        self.peer.sendall(data)
        assert self.drain.wait(lambda: self.stream.log.size >= size, Deadline.after(30))


@pytest.fixture
def wire() -> Iterator[Wire]:
    yield from _wire(lambda: None)


def _wire(check: Callable[[], None]) -> Iterator[Wire]:
    made = Wire(check)
    yield made
    made.peer.close()
    made.drain.close()


def test_lines_come_whole(wire: Wire) -> None:
    wire.say(b"one\ntw")
    assert wire.tap.read_nonblocking() == b"one\n"
    with pytest.raises(TIMEOUT):
        wire.tap.read_nonblocking(timeout=0)
    wire.say(b"o\nthree\n")
    assert wire.tap.read_nonblocking() == b"two\nthree\n"


def test_a_long_line_comes_in_pieces(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 4)
    wire.say(b"abcdefgh\n")
    assert [wire.tap.read_nonblocking() for _ in range(3)] == [b"abcd", b"efgh", b"\n"]


def test_what_is_left_over_a_window_is_found(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 4)
    wire.say(b"a\nb\nc\nd\n")
    assert [wire.tap.read_nonblocking(timeout=0) for _ in range(2)] == [b"a\nb\n", b"c\nd\n"]


def test_the_end_gives_the_rest_and_then_eof(wire: Wire) -> None:
    wire.say(b"rest")
    wire.peer.close()
    assert wire.tap.read_nonblocking(timeout=30) == b"rest"
    with pytest.raises(EOF):
        wire.tap.read_nonblocking(timeout=30)


def test_it_starts_where_the_stream_stands(wire: Wire) -> None:
    wire.say(b"before\n")
    late = Tap(wire.drain, wire.stream, lambda: None)
    wire.say(b"after\n")
    assert late.read_nonblocking() == b"after\n"
    assert wire.tap.read_nonblocking() == b"before\nafter\n"


def test_what_is_no_longer_kept_is_told_of(wire: Wire) -> None:
    for _ in range(4):
        wire.say(b"x" * (1 << 20) + b"\n")
    with pytest.raises(GuestError, match="console1: it came faster than it was read; a part of it is lost"):
        wire.tap.read_nonblocking()


def test_a_check_that_raises_ends_the_wait() -> None:
    def check() -> None:
        raise GuestPanicError("panic")

    for wire in _wire(check):
        with pytest.raises(GuestPanicError):
            wire.tap.expect(b"never", timeout=600)
