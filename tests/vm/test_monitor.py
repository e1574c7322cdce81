"""The QMP conversation: with a peer that the test plays, and with real QEMU."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio.errors import (
    CommandError,
    MonitorClosedError,
    MonitorError,
    MonitorTimeoutError,
    QemuExitedError,
    UsageError,
)
from pytest_virtio.vm import cmdline, monitor
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.monitor import Monitor
from pytest_virtio.vm.qemu import Qemu

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}

Answer = Callable[[dict[str, Any]], bytes | None]


class Peer:
    """The other end: greets, then answers each request; None hangs up."""

    def __init__(self, end: socket.socket, answer: Answer) -> None:
        self.end, self.answer = end, answer
        self.thread = threading.Thread(target=self._run, name="peer")
        self.thread.start()

    def _run(self) -> None:
        # A monitor that is closed without reading the rest resets the connection.
        with contextlib.suppress(ConnectionError), self.end:
            self.end.sendall(json.dumps(GREETING).encode() + b"\r\n")
            for request in self._requests():
                reply = _reply(request, {}) if request["execute"] == "qmp_capabilities" else self.answer(request)
                if reply is None:
                    return
                self.end.sendall(reply)

    def _requests(self) -> Iterator[dict[str, Any]]:
        """qemu.qmp puts nothing between its messages; QEMU's parser needs nothing there."""
        text = ""
        while data := self.end.recv(65536).decode():
            text += data
            while text:
                try:
                    request, end = json.JSONDecoder().raw_decode(text)
                except ValueError:
                    break
                text = text[end:].lstrip()
                yield request


def _reply(request: dict[str, Any], value: object) -> bytes:
    return json.dumps({"return": value, **({"id": request["id"]} if "id" in request else {})}).encode() + b"\r\n"


Connected = Callable[[Answer], Monitor]


@pytest.fixture
def connected() -> Iterator[Connected]:
    made: list[tuple[Monitor, Peer]] = []

    def connect(answer: Answer) -> Monitor:
        ours, theirs = socket.socketpair()
        made.append((Monitor(ours), Peer(theirs, answer)))
        made[-1][0].connect(Deadline.after(20))
        return made[-1][0]

    yield connect
    for session, peer in made:
        session.close()
        peer.thread.join(20)
        assert not peer.thread.is_alive()


def test_a_command_and_its_answer(connected: Connected) -> None:
    requests: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> bytes:
        requests.append(request)
        return _reply(request, {"status": "running"})

    session = connected(answer)
    assert session.execute("query-status") == {"status": "running"}
    assert session.execute("stop", {"x": 1}) == {"status": "running"}
    assert [{k: v for k, v in r.items() if k != "id"} for r in requests] == [
        {"execute": "query-status"},
        {"execute": "stop", "arguments": {"x": 1}},
    ]


def test_events_between_answers_are_passed_over(connected: Connected) -> None:
    event = b'{"event": "RESET", "timestamp": {"seconds": 1, "microseconds": 1}}\r\n'
    session = connected(lambda request: event + _reply(request, 5) + event)
    assert [session.execute("x") for _ in range(3)] == [5, 5, 5]


def test_an_error_answer(connected: Connected) -> None:
    def answer(request: dict[str, Any]) -> bytes:
        return json.dumps({"error": {"class": "GenericError", "desc": "no"}, "id": request["id"]}).encode() + b"\n"

    with pytest.raises(CommandError) as caught:
        connected(answer).execute("device_add")
    assert str(caught.value) == "device_add: no"
    assert (caught.value.command, caught.value.error_class, caught.value.description) == (
        "device_add",
        "GenericError",
        "no",
    )


def test_a_timeout_leaves_the_session_usable(connected: Connected) -> None:
    session = connected(lambda request: b"" if request["execute"] == "slow" else _reply(request, "fine"))
    with pytest.raises(MonitorTimeoutError) as caught:
        session.execute("slow", timeout=0.05)
    assert str(caught.value).startswith("slow: no answer within 0.05 s; QEMU's main loop is blocked")
    assert session.execute("fast") == "fine"


def test_a_late_answer_is_dropped_without_a_word(
    connected: Connected, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    late: list[bytes] = []

    def answer(request: dict[str, Any]) -> bytes:
        if request["execute"] == "slow":
            late.append(_reply(request, "late"))
            return b""
        return b"".join(late) + _reply(request, "now")

    session = connected(answer)
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(MonitorTimeoutError):
            session.execute("slow", timeout=0.05)
        assert session.execute("fast") == "now"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda request: None, MonitorClosedError),
        (lambda request: b"rubbish\r\n", MonitorClosedError),
        (lambda request: b"[1]\r\n", MonitorClosedError),
        (lambda request: b'{"error": {"class": "GenericError", "desc": "no id"}}\r\n', MonitorClosedError),
        (lambda request: json.dumps({"id": request["id"]}).encode() + b"\r\n", MonitorError),
        (lambda request: json.dumps({"id": request["id"], "error": {}}).encode() + b"\r\n", MonitorError),
    ],
)
def test_a_peer_that_does_not_keep_to_qmp(connected: Connected, answer: Answer, error: type[MonitorError]) -> None:
    with pytest.raises(MonitorError) as caught:
        connected(answer).execute("query-x", timeout=20)
    assert type(caught.value) is error
    assert str(caught.value).startswith("query-x: ")


def test_arguments_that_are_no_json_harm_nobody(connected: Connected) -> None:
    session = connected(lambda request: _reply(request, 1))
    with pytest.raises(UsageError, match=r"device_add: the arguments can't be said in JSON: .*object"):
        session.execute("device_add", {"x": object()})
    assert session.execute("x") == 1


@pytest.mark.parametrize("timeout", [-1, float("inf"), None])
def test_impossible_timeouts(connected: Connected, timeout: object) -> None:
    with pytest.raises(UsageError, match="a timeout is a number of seconds"):
        connected(lambda request: _reply(request, 1)).execute("x", timeout=timeout)  # type: ignore[arg-type]


def test_commands_from_several_threads(connected: Connected) -> None:
    session = connected(lambda request: _reply(request, request["arguments"]["n"]))
    results: dict[int, object] = {}

    def ask(number: int) -> None:
        results[number] = session.execute("x", {"n": number})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == {number: number for number in range(20)}


def test_closing_while_a_command_is_under_way(connected: Connected) -> None:
    asked = threading.Event()
    caught: list[BaseException] = []

    def answer(request: dict[str, Any]) -> bytes:
        asked.set()
        return b""

    session = connected(answer)

    def ask() -> None:
        try:
            session.execute("x", timeout=60)
        except MonitorClosedError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(20)
    session.close()
    thread.join(20)
    assert len(caught) == 1


def test_after_close(connected: Connected) -> None:
    session = connected(lambda request: _reply(request, 1))
    session.close()
    session.close()
    with pytest.raises(MonitorClosedError, match="x: the QMP session has ended"):
        session.execute("x")


@pytest.mark.timeout(30)
def test_a_peer_that_never_greets(monkeypatch: pytest.MonkeyPatch) -> None:
    # The deadline is kept in the loop, and not by waiting until the loop seems to be stuck.
    monkeypatch.setattr(monitor, "STUCK_SECONDS", 600.0)
    ours, theirs = socket.socketpair()
    session = Monitor(ours)
    with theirs:
        with pytest.raises(MonitorTimeoutError, match=r"the QMP greeting: no answer within 0\.05 s"):
            session.connect(Deadline.after(0.05))
        session.close()
        assert ours.fileno() == -1
        assert theirs.recv(1) == b""


@pytest.mark.parametrize("greeting", [b"", b"rubbish\n", b"{}\n", b'{"QMP": 5}\n', b'{"QMP": {}}\n'])
def test_a_peer_that_greets_otherwise(greeting: bytes) -> None:
    ours, theirs = socket.socketpair()
    session = Monitor(ours)
    with theirs:
        theirs.sendall(greeting)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(MonitorClosedError, match="the QMP greeting: the QMP session has ended"):
            session.connect(Deadline.after(20))
    session.close()


def test_closing_what_was_never_connected() -> None:
    ours, theirs = socket.socketpair()
    Monitor(ours).close()
    assert ours.fileno() == -1
    theirs.close()


def test_a_stuck_loop_does_not_hold_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "CLOSE_SECONDS", 0.02)
    monkeypatch.setattr(monitor, "STUCK_SECONDS", 0.02)
    ours, theirs = socket.socketpair()
    session, stuck, free = Monitor(ours), threading.Event(), threading.Event()

    def block() -> None:
        stuck.set()
        free.wait(20)

    session._loop.loop.call_soon_threadsafe(block)
    assert stuck.wait(20)
    session.close()
    # The peer sees the end at once; the descriptor is still in the loop's books.
    assert theirs.recv(1) == b""
    assert ours.fileno() >= 0
    free.set()
    monkeypatch.undo()
    session.close()
    assert ours.fileno() == -1
    theirs.close()


@pytest.mark.qemu
def test_real_qemu_greets_as_the_fakes_do(program: Path) -> None:
    ours, theirs = socket.socketpair()
    command = cmdline.probe(program, cmdline.Wires(Path(), theirs.fileno()))
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process, ours, theirs:
        try:
            ours.settimeout(20)
            with ours.makefile("rb") as stream:
                greeting = json.loads(stream.readline())
        finally:
            process.kill()
    assert _shape(greeting) == _shape(GREETING)


def _shape(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shape(entry) for key, entry in value.items()}
    return type(value)


@pytest.mark.qemu
def test_a_stopped_qemu_times_out_and_lives_on(program: Path) -> None:
    with Qemu.start(lambda wires: cmdline.probe(program, wires), Deadline.after(30), label="stop") as qemu:
        os.kill(qemu.pid, signal.SIGSTOP)
        with pytest.raises(MonitorTimeoutError, match=r"query-status: no answer within 0\.05 s"):
            qemu.execute("query-status", timeout=0.05)
        os.kill(qemu.pid, signal.SIGCONT)
        status = qemu.execute("query-status", timeout=20)
        assert isinstance(status, dict)
        assert status["status"] == "prelaunch"


@pytest.mark.qemu
def test_a_killed_qemu_is_told_at_once(program: Path) -> None:
    with Qemu.start(lambda wires: cmdline.probe(program, wires), Deadline.after(30), label="kill") as qemu:
        os.kill(qemu.pid, signal.SIGKILL)
        with pytest.raises(QemuExitedError, match=r"QEMU ended \(killed by SIGKILL\) during query-status"):
            qemu.execute("query-status", timeout=20)
