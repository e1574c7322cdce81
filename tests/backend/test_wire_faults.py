"""The witness between two ends that the tests hold: what it does to messages where it is told to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_virtio import Cut, Delay, Drop, Duplicate, Rewrite, UnknownNameError, UsageError
from pytest_virtio.backend.messages import Frame, receive, send
from pytest_virtio.backend.wire import Masks
from pytest_virtio.declare.wire import Fault
from pytest_virtio.spec.vhost_user_messages import Header, Request
from pytest_virtio.vm.deadline import Deadline

from .ends import REPLY, SECONDS, Wired, fail, got, number


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


def wrong(payload: bytes) -> bytes:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (fail, "a rewrite failed: Failed: not so"),
        (wrong, "a rewrite failed: TypeError"),
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
