"""What was said over a monitor: in order, with times, within bounds, and on the monitors of real QEMUs."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from pytest_virtio import Blk, CommandError, MonitorTimeoutError, VirtioFactory
from pytest_virtio.vm import transcript
from pytest_virtio.vm.transcript import Transcript


def _entries(said: Transcript) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.lines()]


def test_what_was_said_stands_in_its_order() -> None:
    said = Transcript()
    said.add("plugin", b'{"execute": "stop", "id": "1"}')
    said.add("QEMU", '{"return": {"é": "\\ud800"}}'.encode())
    said.add("note", b"stop: no answer")
    first, command, answer, note = _entries(said)
    assert first["schema"] == 1
    assert first["dropped"] == 0
    assert "T" in first["began"]
    assert (command["from"], command["message"]) == ("plugin", {"execute": "stop", "id": "1"})
    assert (answer["from"], answer["message"]) == ("QEMU", {"return": {"é": "\ud800"}})
    assert note["note"] == "stop: no answer"
    assert 0 <= command["seconds"] <= answer["seconds"] <= note["seconds"]
    assert "".join(said.lines()).isascii()


def test_a_long_message_is_cut_and_says_how_long_it_was() -> None:
    said = Transcript()
    said.add("QEMU", b'{"return": "' + b"x" * 1_000_000 + b'"}')
    (entry,) = _entries(said)[1:]
    assert entry["bytes"] == 1_000_014
    assert entry["begins"].startswith('{"return": "xxx')
    assert len(entry["begins"]) == transcript.MESSAGE_BYTES


def test_what_is_no_json_is_kept_as_it_came() -> None:
    said = Transcript()
    said.add("QEMU", b"\x1b[31m\xff")
    assert _entries(said)[1]["begins"] == "\x1b[31m\\xff"


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_the_oldest_go_when_it_is_full(size: int) -> None:
    said = Transcript()
    for number in range(10_000):
        said.add("QEMU", f"{number}".encode().ljust(size))
    first, *entries = _entries(said)
    kept = min(size, transcript.MESSAGE_BYTES)
    assert first["dropped"] + len(entries) == 10_000
    assert len(entries) * kept <= transcript.TOTAL_BYTES
    assert len(entries) * (kept + 100) > transcript.TOTAL_BYTES / 2
    last = entries[-1]
    assert str(last.get("message", last.get("begins"))).strip() == "9999"


def test_commands_answers_errors_and_events_of_a_real_qemu(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), boot=False) as virtio:
        monitor = virtio._running.qemu.monitor
        virtio.vm.qmp("query-name")
        with pytest.raises(CommandError):
            virtio.vm.qmp("no-such-command")
        virtio.vm.cont()
        virtio.vm.qmp("query-status")
        entries = [entry for entry in _entries(monitor.transcript)[1:] if "message" in entry]
    messages = [entry["message"] for entry in entries]
    assert "QMP" in messages[0]
    asked = next(message for message in messages if message.get("execute") == "query-name")
    answer = next(message for message in messages if message.get("id") == asked["id"] and message is not asked)
    assert "return" in answer
    assert any("error" in message and "no-such-command" in message["error"]["desc"] for message in messages)
    assert any(message.get("event") == "RESUME" for message in messages)
    assert [entry["from"] for entry in entries if "execute" in entry["message"]] == ["plugin"] * sum(
        "execute" in message for message in messages
    )


def test_a_command_that_is_not_answered_is_noted(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), boot=False) as virtio:
        os.kill(virtio.vm.pid, signal.SIGSTOP)
        with pytest.raises(MonitorTimeoutError):
            virtio.vm.qmp("query-status", timeout=0.2)
        *_, command, note = _entries(virtio._running.qemu.monitor.transcript)
    assert command["message"]["execute"] == "query-status"
    assert note["note"] == "query-status: no answer within 0.2 s"
