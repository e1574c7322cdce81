"""The drain against real pipes, sockets and processes."""

from __future__ import annotations

import os
import socket
import subprocess
import threading

import pytest

from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain


def soon() -> Deadline:
    return Deadline.after(20)


def test_a_pipe_is_read_until_its_end(drain: Drain) -> None:
    read_end, write_end = os.pipe()
    stream = drain.add_pipe("stderr", read_end)
    os.write(write_end, b"one ")
    assert drain.wait(lambda: stream.log.size == 4, soon())
    assert not stream.ended
    os.write(write_end, b"two")
    os.close(write_end)
    assert drain.wait(lambda: stream.ended, soon())
    assert stream.log.text() == b"one two"


def test_more_than_a_pipe_holds_is_taken_while_nobody_waits(drain: Drain) -> None:
    read_end, write_end = os.pipe()
    stream = drain.add_pipe("stderr", read_end)
    with os.fdopen(write_end, "wb") as file:
        file.write(b"x" * 1_000_000)
    assert drain.wait(lambda: stream.ended, soon())
    assert stream.log.size == 1_000_000


def test_descriptors_added_before_the_start() -> None:
    drain = Drain("test")
    read_end, write_end = os.pipe()
    stream = drain.add_pipe("stderr", read_end)
    os.write(write_end, b"early")
    drain.start()
    try:
        assert drain.wait(lambda: stream.log.size == 5, soon())
    finally:
        drain.close()
        os.close(write_end)


def test_a_socket_is_read_and_written(drain: Drain) -> None:
    ours, theirs = socket.socketpair()
    stream = drain.add_socket("console0", ours)
    with theirs:
        assert drain.write(stream, b"hello", soon()) == 5
        assert theirs.recv(100) == b"hello"
        theirs.sendall(b"back")
        assert drain.wait(lambda: stream.log.size == 4, soon())


def test_writing_to_a_peer_that_does_not_read_ends_at_the_deadline(drain: Drain) -> None:
    ours, theirs = socket.socketpair()
    stream = drain.add_socket("console0", ours)
    with theirs:
        assert 0 < drain.write(stream, b"x" * 10_000_000, Deadline.after(0.05)) < 10_000_000


def test_writing_to_a_peer_that_has_gone(drain: Drain) -> None:
    ours, theirs = socket.socketpair()
    stream = drain.add_socket("console0", ours)
    theirs.close()
    assert drain.wait(lambda: stream.ended, soon())
    assert drain.write(stream, b"hello", soon()) == 0


def test_a_pipe_is_not_written_to(drain: Drain) -> None:
    read_end, write_end = os.pipe()
    assert drain.write(drain.add_pipe("stderr", read_end), b"x", soon()) == 0
    os.close(write_end)


def test_the_end_of_a_process_is_noticed_once(drain: Drain) -> None:
    ends: list[int] = []
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        drain.add_exit(os.pidfd_open(process.pid), lambda: ends.append(process.wait()))
        assert not drain.wait(lambda: bool(ends), Deadline.after(0))
        assert process.stdin is not None
        process.stdin.close()
        assert drain.wait(lambda: bool(ends), soon())
    assert ends == [0]


def test_a_wait_ends_at_its_deadline(drain: Drain) -> None:
    assert not drain.wait(lambda: False, Deadline.after(0.01))


def test_what_a_predicate_raises_reaches_the_waiter_and_harms_nobody(drain: Drain) -> None:
    def check() -> bool:
        raise KeyError("x")

    with pytest.raises(KeyError):
        drain.wait(check, soon())
    assert drain.wait(lambda: True, Deadline.after(0))


def test_closing_lets_go_whoever_waits() -> None:
    drain = Drain("test")
    drain.start()
    ours, theirs = socket.socketpair()
    stream = drain.add_socket("console0", ours)
    waiting, results = threading.Event(), list[bool]()

    def predicate() -> bool:
        waiting.set()
        return False

    waiter = threading.Thread(target=lambda: results.append(drain.wait(predicate, Deadline.after(60))))
    waiter.start()
    assert waiting.wait(20)
    drain.close()
    waiter.join(20)
    theirs.close()
    assert results == [False]
    assert stream.ended
    assert drain.write(stream, b"x", soon()) == 0


def test_closing_twice_closes_nobody_elses_descriptors() -> None:
    drain = Drain("test")
    drain.start()
    read_end, write_end = os.pipe()
    drain.add_pipe("stderr", read_end)
    drain.close()
    # The numbers are free now and go to somebody else.
    others = [os.dup(write_end) for _ in range(8)]
    drain.close()
    for other in (*others, write_end):
        os.close(other)


def test_closing_a_drain_that_was_never_started() -> None:
    drain = Drain("test")
    read_end, write_end = os.pipe()
    drain.add_pipe("stderr", read_end)
    drain.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read_end)
    os.close(write_end)
