"""Messages of a wire as lines of text: one each, bounded, and safe to print."""

from __future__ import annotations

from typing import Any

from pytest_virtio import WireMessage, render


def message(**fields: Any) -> WireMessage:
    known: dict[str, Any] = {"seconds": 0.11481, "to": "backend", "name": "SET_VRING_NUM"}
    return WireMessage(**{**known, **fields})


def test_a_message_on_a_line() -> None:
    assert render.wire_message(message(fields={"index": 0, "num": 128})) == (
        "0.1148 s to backend: SET_VRING_NUM index 0, num 128"
    )
    answer = message(to="QEMU", name="GET_FEATURES", reply=True, fields={"u64": 0x140000000}, fate="masked")
    assert render.wire_message(answer) == "0.1148 s to QEMU: GET_FEATURES reply u64 0x140000000 (MASKED)"


def test_what_is_unusual_is_said() -> None:
    told = render.wire_message(message(connection=1, by_backend=True, need_reply=True, fds=2, fate="delayed"))
    assert told.endswith("SET_VRING_NUM (connection 2, the backend's channel, wants a reply, 2 fds, DELAYED)")
    assert render.wire_message(message(fds=1)).endswith("(1 fd)")


def test_regions_are_a_list() -> None:
    regions = ({"guest_address": 0, "length": 0x1000}, {"guest_address": 0x100000, "length": 0x1000})
    assert render.wire_message(message(fields={"regions": regions})).endswith(
        "regions [guest_address 0 length 0x1000; guest_address 0x100000 length 0x1000]"
    )


def test_hostile_messages_stay_short_and_on_their_line() -> None:
    line = render.wire_message(message(name="request\n\x1b[2J", fields={"bytes": "\x1b[2J\n" * 1000}))
    assert len(line) < 300
    assert line.isprintable()


def test_only_the_last_ones_are_shown() -> None:
    lines = list(render.wire(1000, [message(fields={"num": n}) for n in range(100)], "QEMU hung up\n"))
    assert lines[0] == "(970 messages before these are not shown)"
    assert lines[1].endswith("num 70")
    assert lines[-2].endswith("num 99")
    assert lines[-1] == "the connection has ended: QEMU hung up\\n"
    assert len(lines) == 32


def test_no_message_at_all() -> None:
    assert list(render.wire(0, [], "")) == ["(no message)"]
