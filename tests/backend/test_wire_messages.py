"""vhost-user messages from bytes, whatever comes: nothing raises that should not, and no descriptor is left open."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_virtio.backend.messages import LONGEST_PAYLOAD, SHOWN_BYTES, Frame, receive, send
from pytest_virtio.spec.vhost_user_messages import (
    PAYLOADS,
    BackendRequest,
    Header,
    HeaderFlag,
    MemoryRegion,
    MemoryTable,
    Number,
    Request,
    VringAddress,
    VringState,
)

Pair = tuple[socket.socket, socket.socket]

REQUESTS = st.one_of(st.sampled_from([*Request, *BackendRequest]).map(int), st.integers(0, 2**32 - 1))


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def frame(request: int, payload: bytes = b"", flags: int = 1, fds: tuple[int, ...] = ()) -> Frame:
    return Frame(Header(request=request, flags=flags, length=len(payload)), payload, fds)


def said(request: int, payload: bytes = b"", *, flags: int = 1, by_backend: bool = False) -> dict[str, object]:
    whole = Frame(Header(request=request, flags=flags, length=len(payload)), payload, (), by_backend)
    return dict(whole.message(0, "backend").fields)


def test_payloads_belong_to_requests() -> None:
    names = {request.name for request in (*Request, *BackendRequest)}
    assert PAYLOADS.keys() <= names


@pytest.mark.parametrize("name", sorted(PAYLOADS))
def test_each_payload_is_read_from_its_own_bytes(name: str) -> None:
    requests = Request if name in Request.__members__ else BackendRequest
    layout = PAYLOADS[name]
    fields = said(requests[name].value, bytes(layout.size()), by_backend=requests is BackendRequest)
    assert fields
    assert fields.keys() != {"bytes"}


def test_known_payloads_are_read_by_their_names() -> None:
    assert said(Request.SET_FEATURES, Number(u64=1 << 32).pack()) == {"u64": 1 << 32}
    assert said(Request.SET_VRING_NUM, VringState(index=1, num=128).pack()) == {"index": 1, "num": 128}
    address = VringAddress(index=0, flags=1, descriptor=2, used=3, available=4, log=5)
    assert said(Request.SET_VRING_ADDR, address.pack()) == vars(address)
    assert said(Request.SET_VRING_ENABLE, Number(u64=1).pack(), flags=5) == {"u64": 1}


def test_memory_is_a_list_of_regions() -> None:
    region = MemoryRegion(guest_address=1, length=2, user_address=3, mmap_offset=4)
    table = MemoryTable(regions=2).pack() + region.pack() * 2
    assert said(Request.SET_MEM_TABLE, table) == {"regions": (vars(region), vars(region))}
    assert said(Request.ADD_MEM_REG, bytes(8) + region.pack()) == {"regions": (vars(region),)}


def test_what_is_not_known_is_kept() -> None:
    message = frame(77, b"\1\2\3").message(1.5, "backend")
    assert (message.name, message.fields, message.seconds) == ("request 77", {"bytes": "010203"}, 1.5)


@given(REQUESTS, st.integers(0, 2**32 - 1), st.binary(max_size=1000), st.booleans())
def test_any_payload_says_something_bounded(request: int, flags: int, payload: bytes, by_backend: bool) -> None:
    whole = Frame(Header(request=request, flags=flags, length=len(payload)), payload, (), by_backend)
    message = whole.message(0, "QEMU")
    assert message.length == len(payload)
    assert len(repr(message.fields)) < 16 * SHOWN_BYTES


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3))
def test_any_bytes_end_or_are_messages(data: bytes, fds: int) -> None:
    before = descriptors()
    one, other = socket.socketpair()
    with one, other, Path(os.devnull).open() as file:
        if data:
            socket.send_fds(one, [data], [file.fileno()] * fds)
        one.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while (came := receive(other)) is not None:
                came.close()
    assert descriptors() == before


@settings(deadline=None)
@given(REQUESTS, st.sampled_from([1, 5, 9, 13]), st.binary(max_size=300), st.integers(0, 8))
def test_a_message_is_received_as_it_was_sent(request: int, flags: int, payload: bytes, fds: int) -> None:
    one, other = socket.socketpair()
    with one, other, Path(os.devnull).open() as file:
        send(one, frame(request, payload, flags, (file.fileno(),) * fds))
        came = receive(other)
        assert came is not None
        with contextlib.closing(came):
            assert (came.header.request, came.header.flags, came.payload, len(came.fds)) == (
                request,
                flags,
                payload,
                fds,
            )


def test_single_bytes_make_a_message_with_its_descriptor(pair: Pair, tmp_path: Path) -> None:
    one, other = pair
    (tmp_path / "file").write_text("it")
    data = Header(request=Request.SET_VRING_KICK, flags=1, length=8).pack() + Number(u64=0).pack()
    with (tmp_path / "file").open() as file:
        socket.send_fds(one, [data[:1]], [file.fileno()])
    sender = threading.Thread(target=lambda: [one.send(bytes([byte])) for byte in data[1:]])
    sender.start()
    came = receive(other)
    sender.join()
    assert came is not None
    with contextlib.closing(came):
        assert os.pread(came.fds[0], 9, 0) == b"it"
        assert came.message(0, "backend").number() == 0


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0" * 12,
        Header(request=1, flags=2, length=0).pack(),
        Header(request=1, flags=1, length=LONGEST_PAYLOAD + 1).pack(),
    ],
    ids=["HTTP", "zeros", "version 2", "too long"],
)
def test_what_is_no_message_is_refused(pair: Pair, data: bytes) -> None:
    before = descriptors()
    with Path(os.devnull).open() as file:
        socket.send_fds(pair[0], [data], [file.fileno()])
    with pytest.raises(ConnectionAbortedError, match="no message of vhost-user"):
        receive(pair[1])
    assert descriptors() == before


@pytest.mark.parametrize("length", [1, 11, 12, 19])
def test_an_end_within_a_message_is_told(pair: Pair, length: int) -> None:
    data = Header(request=Request.SET_FEATURES, flags=HeaderFlag.VERSION_1, length=8).pack() + bytes(8)
    before = descriptors()
    with Path(os.devnull).open() as file:
        socket.send_fds(pair[0], [data[:length]], [file.fileno()])
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError, match=r"ended \d+ bytes before a message did"):
        receive(pair[1])
    assert descriptors() == before


def test_the_end_between_messages_is_no_error(pair: Pair) -> None:
    pair[0].shutdown(socket.SHUT_WR)
    assert receive(pair[1]) is None


@pytest.mark.parametrize("count", [64, 65])
def test_descriptors_are_all_there_or_the_message_is_refused(pair: Pair, count: int) -> None:
    before = descriptors()
    with Path(os.devnull).open() as file:
        send(pair[0], frame(Request.SET_MEM_TABLE, bytes(8), fds=(file.fileno(),) * count))
    if count == 64:
        came = receive(pair[1])
        assert came is not None
        assert len(came.fds) == 64
        came.close()
    else:
        with pytest.raises(ConnectionAbortedError, match="only 64 came through"):
            receive(pair[1])
    assert descriptors() == before
