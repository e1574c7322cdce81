"""The witness between two ends that the tests hold: what it passes on and notes, and how it ends."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest

from pytest_virtio.backend.messages import Frame, receive, send
from pytest_virtio.backend.wire import KEPT
from pytest_virtio.model.wire import WireMessage
from pytest_virtio.spec.vhost_user_messages import Header, Request
from pytest_virtio.vm.deadline import Deadline

from .ends import SECONDS, Wired, frame, got, number, possessions


def test_messages_and_answers_go_through_and_are_noted(wired: Wired) -> None:
    ends = wired()
    ends.ask(Request.GET_FEATURES)
    assert got(ends.backend) == (Request.GET_FEATURES, b"")
    ends.answer(Request.GET_FEATURES, 0x140000000)
    assert got(ends.qemu) == (Request.GET_FEATURES, number(0x140000000))
    ask, answer = ends.witness.messages()
    assert (ask.name, ask.to, ask.reply) == ("GET_FEATURES", "backend", False)
    assert (answer.name, answer.to, answer.reply, answer.number()) == ("GET_FEATURES", "QEMU", True, 0x140000000)
    assert ask.seconds <= answer.seconds
    assert ends.witness.told.features == 0x140000000


def test_a_request_that_nobody_knows_goes_through_and_is_kept(wired: Wired) -> None:
    ends = wired()
    send(ends.qemu, Frame(Header(request=999, flags=1, length=3), b"abc"))
    assert got(ends.backend) == (999, b"abc")
    assert ends.wait("request 999").fields == {"bytes": "616263"}


def test_descriptors_go_through_with_their_message(wired: Wired) -> None:
    ends, (reader, writer) = wired(), os.pipe()
    ends.ask(Request.SET_VRING_KICK, 0, writer)
    os.close(writer)
    came = receive(ends.backend)
    assert came is not None
    os.write(came.fds[0], b"kick")
    came.close()
    assert os.read(reader, 9) == b"kick"
    # The end of the pipe: nobody has kept a copy.
    os.set_blocking(reader, False)
    ends.ask(Request.SET_OWNER)
    assert got(ends.backend)[0] == Request.SET_OWNER
    assert os.read(reader, 9) == b""
    os.close(reader)


def test_sixty_four_descriptors_and_not_one_more(wired: Wired) -> None:
    ends = wired()
    with Path(os.devnull).open() as file:
        ends.ask(Request.SET_MEM_TABLE, 0, *[file.fileno()] * 64)
        came = receive(ends.backend)
        assert came is not None
        came.close()
        assert len(came.fds) == ends.wait("SET_MEM_TABLE").fds == 64
        ends.ask(Request.SET_MEM_TABLE, 0, *[file.fileno()] * 65)
    assert ends.wait_end() == "QEMU: of a message's descriptors only 64 came through"


def test_single_bytes_arrive_as_a_message(wired: Wired) -> None:
    ends = wired()
    for byte in frame(Request.SET_FEATURES, 3).header.pack() + number(3):
        ends.qemu.send(bytes([byte]))
    assert got(ends.backend) == (Request.SET_FEATURES, number(3))


@pytest.mark.parametrize(("which", "why"), [("qemu", "QEMU hung up"), ("backend", "the backend hung up")])
def test_when_one_hangs_up_the_other_is_let_go(wired: Wired, which: str, why: str) -> None:
    ends = wired()
    ends.ask(Request.SET_OWNER)
    assert got(ends.backend)[0] == Request.SET_OWNER
    getattr(ends, which).close()
    with pytest.raises(EOFError):
        got(ends.backend if which == "qemu" else ends.qemu)
    assert ends.witness.ended == why


def test_what_was_said_before_hanging_up_still_arrives(wired: Wired) -> None:
    ends = wired()
    for _ in range(100):
        ends.ask(Request.SET_FEATURES, 3)
    ends.qemu.close()
    assert [got(ends.backend)[0] for _ in range(100)] == [Request.SET_FEATURES] * 100
    with pytest.raises(EOFError):
        got(ends.backend)


def test_what_is_no_message_ends_the_wire(wired: Wired) -> None:
    ends = wired()
    ends.backend.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises((EOFError, ConnectionResetError)):
        got(ends.qemu)
    assert ends.witness.ended.startswith("the backend: no message of vhost-user: its header is 48545450")


def test_close_frees_threads_that_wait_or_can_not_send(wired: Wired) -> None:
    ends = wired()
    ends.qemu.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            ends.qemu.send(frame(Request.SET_FEATURES, 1).header.pack() + number(1))
    ends.witness.close()
    assert ends.witness.ended == "we ended"


def test_a_new_connection_begins_anew(wired: Wired) -> None:
    ends = wired()
    ends.ask(Request.SET_FEATURES, 3)
    assert got(ends.backend)[1] == number(3)
    ends.close()
    before = possessions()
    for _ in range(20):
        ends.connect()
        ends.ask(Request.SET_OWNER)
        assert got(ends.backend)[0] == Request.SET_OWNER
        assert not ends.witness.ended
        ends.qemu.close()
        assert ends.wait_end() == "QEMU hung up"
        ends.backend.close()
    for thread in threading.enumerate():
        if thread.name == "pytest-virtio wire":
            thread.join(SECONDS)
    assert possessions() == before
    assert ends.witness.told.acked_features is None
    assert [message.connection for message in ends.witness.messages()] == list(range(21))


def test_waits_end_with_the_message_the_deadline_or_the_wire(wired: Wired) -> None:
    ends = wired()
    ends.ask(Request.SET_OWNER)
    assert ends.wait("SET_OWNER")
    assert ends.witness.wait(lambda _: False, Deadline.after(0.01)) is None
    waiting = threading.Thread(target=ends.wait_end)
    waiting.start()
    ends.qemu.close()
    waiting.join(SECONDS)
    assert not waiting.is_alive()
    assert ends.witness.wait(lambda _: False, Deadline.after(0.01), reconnects=True) is None


def test_twenty_thousand_messages_are_passed_on_and_half_of_them_kept(wired: Wired) -> None:
    ends, count = wired(), 20_000

    def ask_all() -> None:
        for n in range(count):
            ends.ask(Request.SET_FEATURES, n)

    sender = threading.Thread(target=ask_all)
    waiter: list[WireMessage | None] = []
    late = threading.Thread(
        target=lambda: waiter.append(ends.witness.wait(lambda m: m.number() == count - 1, Deadline.after(60)))
    )
    late.start()
    sender.start()
    assert all(got(ends.backend)[1] == number(n) for n in range(count))
    sender.join()
    late.join()
    kept = [message.number() for message in ends.witness.messages()]
    assert kept == [*range(KEPT // 2), *range(count - KEPT // 2, count)]
    assert ends.witness.count == count
    assert waiter[0] is not None


def test_garbage_on_both_sides_at_once(wired: Wired) -> None:
    for turn in range(20):
        ends = wired()
        noise = os.urandom(500 + turn)
        with contextlib.suppress(OSError):
            ends.qemu.sendall(noise)
            ends.backend.sendall(noise[::-1])
        ends.qemu.shutdown(socket.SHUT_WR)
        assert ends.wait_end()
