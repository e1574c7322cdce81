"""What a backend was told, message after message."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.model.wire import MemoryRegion, ToldBackend, ToldQueue, WireMessage
from pytest_virtio.spec.vhost_user_messages import BackendRequest, Request

BIT_30 = 1 << 30


def message(name: str, *, reply: bool = False, fate: Any = "passed", by_backend: bool = False, **fields: Any) -> Any:
    return WireMessage(seconds=0, to="backend", name=name, reply=reply, fields=fields, fate=fate, by_backend=by_backend)


def told(*messages: WireMessage) -> ToldBackend:
    known = ToldBackend()
    for one in messages:
        known = known.after(one)
    return known


def region(address: int, length: int = 0x1000, user: int = 0x7F0000) -> dict[str, int]:
    return {"guest_address": address, "length": length, "user_address": user + address, "mmap_offset": 0}


def test_features_of_both_sides() -> None:
    known = told(
        message("GET_FEATURES", reply=True, u64=7),
        message("SET_FEATURES", u64=3),
        message("GET_PROTOCOL_FEATURES", reply=True, u64=15),
        message("SET_PROTOCOL_FEATURES", u64=5),
        message("GET_QUEUE_NUM", reply=True, u64=4),
    )
    assert (known.features, known.acked_features) == (7, 3)
    assert (known.offered_protocol_features, known.protocol_features, known.max_queues) == (15, 5, 4)


def test_a_queue_from_its_set_up_to_its_end() -> None:
    known = told(
        message("SET_VRING_NUM", index=1, num=128),
        message("SET_VRING_BASE", index=1, num=5),
        message("SET_VRING_ADDR", index=1, flags=0, descriptor=0x10, available=0x20, used=0x30, log=0),
        message("SET_VRING_CALL", u64=0x101),
        message("SET_VRING_KICK", u64=1),
        message("SET_VRING_ENABLE", index=1, num=1),
    )
    assert known.queues == {
        1: ToldQueue(
            num=128,
            base=5,
            descriptor=0x10,
            available=0x20,
            used=0x30,
            call=False,
            kick=True,
            enabled=True,
            started=True,
        )
    }
    assert not known.after(message("GET_VRING_BASE", index=1, num=0)).queues[1].started
    assert not known.after(message("RESET_OWNER")).queues


@pytest.mark.parametrize(("acked", "enabled"), [(1 << 32, True), (BIT_30, None)])
def test_without_protocol_features_a_queue_starts_enabled(acked: int, enabled: bool | None) -> None:
    known = told(message("SET_FEATURES", u64=acked), message("SET_VRING_KICK", u64=0))
    assert known.queues[0].enabled is enabled


@pytest.mark.parametrize("fate", ["dropped", "cut"])
def test_what_never_arrived_was_not_told(fate: str) -> None:
    assert told(message("SET_FEATURES", u64=3, fate=fate)) == ToldBackend()


def test_the_channel_of_the_backend_has_its_own_requests() -> None:
    assert told(message("IOTLB_MSG", by_backend=True), message("SET_FEATURES", by_backend=True, u64=1)) == ToldBackend()


def test_memory_as_a_table_and_region_by_region() -> None:
    table = message("SET_MEM_TABLE", regions=(region(0), region(0x4000)))
    more = message("ADD_MEM_REG", regions=(region(0x8000),))
    less = message("REM_MEM_REG", regions=(region(0),))
    known = told(table, more, less)
    assert known.regions == (MemoryRegion(0x4000, 0x1000, 0x7F4000), MemoryRegion(0x8000, 0x1000, 0x7F8000))
    assert known.guest_address(0x7F8010) == 0x8010
    assert known.guest_address(0x7F9000) is None
    assert known.after(table).regions[0].address == 0


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("SET_VRING_ENABLE", 1, True),
        ("SET_VRING_ENABLE", 0, False),
        ("GET_CONFIG", 1, False),
        ("SET_DEVICE_STATE_FD", 0x100, False),
        ("SET_DEVICE_STATE_FD", 0x101, True),
        ("SET_LOG_BASE", 0x1000, False),
    ],
)
def test_a_refusal_is_an_answer_that_says_so(name: str, value: int, refused: bool) -> None:
    assert told(message(name, reply=True, u64=value)).refused == ((name,) if refused else ())


VALUES = st.one_of(
    st.integers(0, 2**64 - 1),
    st.text(max_size=4),
    st.lists(st.fixed_dictionaries(dict.fromkeys(region(0), st.integers(0, 2**64 - 1))), max_size=3).map(tuple),
)
FIELDS = st.dictionaries(st.sampled_from(["u64", "index", "num", "descriptor", "used", "bytes", "other"]), VALUES)
REGIONS = st.lists(st.fixed_dictionaries(dict.fromkeys(region(0), st.integers(0, 2**64 - 1))), max_size=3).map(tuple)
MESSAGES = st.builds(
    lambda name, reply, fields, regions: message(name, reply=reply, **fields, regions=regions),
    st.sampled_from([request.name for request in (*Request, *BackendRequest)]) | st.text(max_size=5),
    st.booleans(),
    FIELDS,
    REGIONS,
)


@given(st.lists(MESSAGES, max_size=30))
def test_any_messages_tell_something(messages: list[WireMessage]) -> None:
    known = told(*messages)
    assert len(known.refused) <= 16


def test_what_a_hostile_peer_tells_is_bounded() -> None:
    known = told(
        *(message("SET_VRING_NUM", index=index, num=1) for index in range(0, 4096, 2)),
        *(message("ADD_MEM_REG", regions=(region(at << 12),)) for at in range(1000)),
        *(message("SET_VRING_ENABLE", reply=True, u64=1) for _ in range(100)),
    )
    assert (len(known.queues), len(known.regions), len(known.refused)) == (512, 512, 16)
