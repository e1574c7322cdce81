"""The witness between two ends that the tests hold: what it passes on, what it does to messages, how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_virtio import Cut, Delay, Drop, Duplicate, Rewrite, UnknownNameError, UsageError, Wire
from pytest_virtio.backend.messages import Frame, receive, send
from pytest_virtio.backend.wire import KEPT, Masks, Witness
from pytest_virtio.declare.wire import Fault
from pytest_virtio.model.wire import WireMessage
from pytest_virtio.spec.vhost_user_messages import BackendRequest, Header, Number, Request
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


@pytest.fixture
def wired() -> Iterator[Wired]:
    """Makes wires; each gives back its descriptors and threads."""
    before = possessions()
    made: list[Ends] = []

    def make(*faults: Fault, masks: Masks = Masks()) -> Ends:  # noqa: B008 - frozen
        made.append(Ends(*faults, masks=masks))
        return made[-1]

    yield make
    for ends in made:
        ends.close()
        ends.witness.close()
    assert possessions() == before


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


def test_masked_bits_are_not_told_to_qemu(wired: Wired) -> None:
    ends = wired(masks=Masks(features=0b10, protocol_features=0b100))
    ends.answer(Request.GET_FEATURES, 0b1111)
    ends.answer(Request.GET_PROTOCOL_FEATURES, 0b1111)
    ends.answer(Request.GET_QUEUE_NUM, 0b1111)
    assert [got(ends.qemu)[1] for _ in range(3)] == [number(0b1101), number(0b1011), number(0b1111)]
    assert [message.fate for message in ends.witness.messages()] == ["masked", "masked", "passed"]
    assert ends.witness.told.features == 0b1101


def test_a_mask_of_what_is_not_offered_changes_nothing(wired: Wired) -> None:
    ends = wired(masks=Masks(features=0b10000))
    ends.answer(Request.GET_FEATURES, 0b1111)
    assert got(ends.qemu)[1] == number(0b1111)
    assert ends.wait("GET_FEATURES").fate == "passed"


def test_what_is_longer_than_the_mask_expects_keeps_its_length(wired: Wired) -> None:
    ends = wired(masks=Masks(features=1))
    send(ends.backend, Frame(Header(request=1, flags=REPLY, length=10), number(3) + b"xy"))
    assert got(ends.qemu)[1] == number(2) + b"xy"


def test_a_dropped_message_never_arrives(wired: Wired) -> None:
    ends = wired(Drop("SET_FEATURES"))
    ends.ask(Request.SET_FEATURES, 3)
    ends.ask(Request.SET_OWNER)
    assert got(ends.backend)[0] == Request.SET_OWNER
    assert ends.wait("SET_FEATURES", "dropped").number() == 3
    assert ends.witness.told.acked_features is None


def test_only_answers_are_meant_by_reply(wired: Wired) -> None:
    ends = wired(Drop("GET_FEATURES", reply=True))
    ends.ask(Request.GET_FEATURES)
    assert got(ends.backend)[0] == Request.GET_FEATURES
    ends.answer(Request.GET_FEATURES, 3)
    ends.answer(Request.GET_QUEUE_NUM, 1)
    assert got(ends.qemu)[0] == Request.GET_QUEUE_NUM


def test_a_pattern_and_the_so_many_th(wired: Wired) -> None:
    ends = wired(Drop("SET_VRING_*", nth=2))
    for request in (Request.SET_VRING_NUM, Request.SET_OWNER, Request.SET_VRING_BASE, Request.SET_VRING_NUM):
        ends.ask(request, 0)
    arrived = [got(ends.backend)[0] for _ in range(3)]
    assert arrived == [Request.SET_VRING_NUM, Request.SET_OWNER, Request.SET_VRING_NUM]


def test_each_fault_counts_all_messages(wired: Wired) -> None:
    ends = wired(Drop("SET_OWNER", nth=1), Drop("SET_OWNER", nth=2))
    for _ in range(3):
        ends.ask(Request.SET_OWNER)
    assert got(ends.backend)[0] == Request.SET_OWNER
    ends.witness.wait(lambda _: ends.witness.count == 3, Deadline.after(SECONDS))
    assert [message.fate for message in ends.witness.messages()] == ["dropped", "dropped", "passed"]


def test_of_several_that_are_meant_the_first_happens(wired: Wired) -> None:
    ends = wired(Duplicate("SET_OWNER"), Drop("SET_*"))
    ends.ask(Request.SET_OWNER)
    assert [got(ends.backend)[0] for _ in range(2)] == [Request.SET_OWNER] * 2


def test_a_duplicate_has_no_descriptors(wired: Wired) -> None:
    ends = wired(Duplicate("SET_VRING_KICK"))
    with Path(os.devnull).open() as file:
        ends.ask(Request.SET_VRING_KICK, 0, file.fileno())
    first, second = receive(ends.backend), receive(ends.backend)
    assert first is not None
    assert second is not None
    first.close()
    assert (first.payload, len(first.fds)) == (second.payload, 1)
    assert second.fds == ()
    assert [message.fate for message in ends.witness.messages()] == ["duplicated"]


def test_a_rewrite_changes_the_payload_and_its_length(wired: Wired) -> None:
    ends = wired(Rewrite("GET_CONFIG", lambda payload: payload[::-1] + b"!", reply=True))
    send(ends.backend, Frame(Header(request=Request.GET_CONFIG, flags=REPLY, length=3), b"abc"))
    assert got(ends.qemu) == (Request.GET_CONFIG, b"cba!")
    assert ends.wait("GET_CONFIG", "rewritten").length == 4


def _fail(payload: bytes) -> bytes:
    pytest.fail("not so")


def _wrong(payload: bytes) -> bytes:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_fail, "a rewrite failed: Failed: not so"),
        (_wrong, "a rewrite failed: TypeError"),
        (len, "a rewrite failed: Ty"),
    ],
)
def test_a_rewrite_that_raises_lets_both_go(wired: Wired, change: Callable[[bytes], bytes], why: str) -> None:
    ends = wired(Rewrite("SET_FEATURES", change))
    ends.ask(Request.SET_FEATURES, 3)
    for end in (ends.qemu, ends.backend):
        with pytest.raises(EOFError):
            got(end)
    assert ends.witness.ended.startswith(why)


def test_a_cut_ends_the_connection_before_the_message(wired: Wired) -> None:
    ends = wired(Cut("SET_VRING_ENABLE"))
    ends.ask(Request.SET_OWNER)
    ends.ask(Request.SET_VRING_ENABLE, 1)
    assert got(ends.backend)[0] == Request.SET_OWNER
    for end in (ends.qemu, ends.backend):
        with pytest.raises((EOFError, ConnectionResetError)):
            got(end)
    assert ends.witness.ended == "cut at SET_VRING_ENABLE"
    assert ends.witness.messages()[-1].fate == "cut"


def test_a_delay_keeps_the_order(wired: Wired) -> None:
    ends = wired(Delay("SET_OWNER", 0.05))
    ends.ask(Request.SET_OWNER)
    ends.ask(Request.GET_FEATURES)
    assert [got(ends.backend)[0] for _ in range(2)] == [Request.SET_OWNER, Request.GET_FEATURES]
    assert ends.wait("SET_OWNER", "delayed")


def test_a_delay_does_not_outlive_the_wire(wired: Wired) -> None:
    ends = wired(Delay("SET_OWNER", 3600))
    ends.ask(Request.SET_OWNER)
    ends.qemu.close()
    ends.backend.close()
    ends.wait_end()


@pytest.mark.parametrize("wrong", ["SET_FEATURE", "get_features", "VHOST_USER_GET_FEATURES"])
def test_a_fault_of_no_request_is_the_users_mistake(wrong: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown vhost-user request"):
        Drop(wrong)


@pytest.mark.parametrize("make", [lambda: Drop("*", nth=0), lambda: Delay("*", -1), lambda: Delay("*", 1e9)])
def test_a_fault_that_can_not_be_meant_is_the_users_mistake(make: Callable[[], Fault]) -> None:
    with pytest.raises(UsageError):
        make()


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
    ends = wired(Rewrite("VRING_CALL", _fail))
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


def test_garbage_on_both_sides_at_once(wired: Wired) -> None:
    for turn in range(20):
        ends = wired()
        noise = os.urandom(500 + turn)
        with contextlib.suppress(OSError):
            ends.qemu.sendall(noise)
            ends.backend.sendall(noise[::-1])
        ends.qemu.shutdown(socket.SHUT_WR)
        assert ends.wait_end()
