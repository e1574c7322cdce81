"""``pytest-virtio info``: its output, and what it says of sockets that are no QEMU's, or a hostile one's."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio import cli
from pytest_virtio.artifact.codec import models_from_json
from tests.launch.conftest import ByHand, by_hand

__all__ = ("by_hand",)

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}\r\n'
)
VERSION = {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "Debian"}
GREETING = json.dumps({"QMP": {"version": VERSION, "capabilities": []}}).encode() + b"\r\n"
DEVICE = {"path": "/machine/peripheral/net0/virtio-backend", "name": "virtio-net"}

Said = pytest.CaptureFixture[str]
Serve = Callable[[Callable[[socket.socket], None]], Path]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Lets a function talk to whoever connects to the socket whose path it gives."""
    listener, ends = socket.socket(socket.AF_UNIX), list[socket.socket]()
    threads = list[threading.Thread]()

    def run(talk: Callable[[socket.socket], None]) -> None:
        try:
            end = listener.accept()[0]
            ends.append(end)
            talk(end)
        except OSError:
            # The one or the other has hung up.
            return

    def start(talk: Callable[[socket.socket], None]) -> Path:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        thread = threading.Thread(target=run, args=(talk,))
        thread.start()
        threads.append(thread)
        return tmp_path / "s"

    yield start
    for end in (listener, *ends):
        # It wakes who waits there; an end that was closed already can't be.
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(20)
    for end in (listener, *ends):
        end.close()


def qmp(replies: Mapping[str, object], heard: list[str] | None = None) -> Callable[[socket.socket], None]:
    """A fake QEMU: an answer for each command; bytes are said as they are. What it is asked goes into ``heard``."""

    def talk(end: socket.socket) -> None:
        end.sendall(GREETING)
        text = ""
        while data := end.recv(65536).decode():
            text = (text + data).lstrip()
            while text:
                # The client ends its commands by nothing.
                asked, length = json.JSONDecoder().raw_decode(text)
                text = text[length:].lstrip()
                if heard is not None:
                    heard.append(asked["execute"])
                end.sendall(answer(asked, {"qmp_capabilities": {}, **replies}))

    return talk


def answer(asked: dict[str, Any], replies: Mapping[str, object]) -> bytes:
    reply = replies.get(asked["execute"])
    if isinstance(reply, bytes):
        return reply
    unknown = {"error": {"class": "CommandNotFound", "desc": f"The command {asked['execute']} has not been found"}}
    said = unknown if asked["execute"] not in replies else {"return": reply}
    return json.dumps({**said, **({"id": asked["id"]} if "id" in asked else {})}).encode() + b"\r\n"


def refused(said: Said, path: Path, *more: str, status: int = 1) -> str:
    """The one line, and that JSON says the same."""
    assert cli.main(["info", str(path), *more]) == status
    captured = said.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pytest-virtio: ")
    assert captured.err.count("\n") == 1
    assert "\x1b" not in captured.err
    return captured.err


def test_paths_that_are_no_sockets(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "file").touch()
    assert "absent: No such file or directory: name a QMP socket" in refused(capsys, tmp_path / "absent")
    assert "file: not a socket: name the path that QEMU was given" in refused(capsys, tmp_path / "file")
    assert "not a socket" in refused(capsys, tmp_path)
    assert "file/s: Not a directory" in refused(capsys, tmp_path / "file" / "s")


def test_a_socket_that_nobody_listens_on_or_that_is_of_another_kind(tmp_path: Path, capsys: Said) -> None:
    with socket.socket(socket.AF_UNIX) as unheard, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        unheard.bind(str(tmp_path / "s"))
        other.bind(str(tmp_path / "d"))
        assert "nobody listens there (any more)" in refused(capsys, tmp_path / "s")
        assert "name a QMP socket of the stream kind" in refused(capsys, tmp_path / "d")


def test_a_path_longer_than_an_address(tmp_path: Path, capsys: Said) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        (tmp_path / "s").rename(deep / "s")
        assert "nobody listens there" in refused(capsys, deep / "s")


@pytest.mark.skipif(os.geteuid() != 0, reason="takes a second user")
def test_a_socket_of_another_user(tmp_path: Path, capsys: Said) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        (tmp_path / "s").chmod(0o600)
        for parent in (tmp_path, *tmp_path.parents[:-1]):
            parent.chmod(parent.stat().st_mode | 0o111)
        os.seteuid(65534)
        try:
            assert "no permission: run this as the user that QEMU runs as" in refused(capsys, tmp_path / "s")
        finally:
            os.seteuid(0)


def test_nobody_accepts(tmp_path: Path, capsys: Said) -> None:
    """The first of us stays in the queue behind the other client, and there is no place for a second."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        other.connect(str(tmp_path / "s"))
        said = refused(capsys, tmp_path / "s", "--timeout", "0.2")
        assert "no QMP greeting within 0.2 s: another client is connected to it" in said
        assert "-qmp unix:PATH,server=on,wait=off, or in pytest --virtio-monitor" in said
        said = refused(capsys, tmp_path / "s", "--timeout", "0.2")
        assert "no place in 0.2 s: another client is connected to it" in said


@pytest.mark.parametrize(
    ("bytes", "said"),
    [
        (b"QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ", "but a monitor for people (-monitor)"),
        (b"\x1b[2J\x00 SSH-2.0\n", r"it says '\\x1b[2J\\x00 SSH-2.0'"),
        (b"", "hung up at once"),
        (b'{"hello": 1}\n', "no QMP socket: "),
        (b'{"QMP"\x1b[2J\n', "no QMP socket: "),
        (b"{" + b"[" * 100_000 + b"\n", "no QMP socket: "),
        (b"{" * (11 << 20), "no QMP socket: "),
    ],
)
def test_no_qmp(serve: Serve, capsys: Said, bytes: bytes, said: str) -> None:
    def talk(end: socket.socket) -> None:
        end.sendall(bytes)
        end.close()

    assert said in refused(capsys, serve(talk))


def test_a_backend_that_listens_silently(serve: Serve, capsys: Said) -> None:
    def talk(end: socket.socket) -> None:
        end.recv(1)

    path = serve(talk)
    assert f"process {os.getpid()} (" in refused(capsys, path, "--timeout", "0.2")


def test_one_that_greets_and_then_hangs(serve: Serve, capsys: Said) -> None:
    def talk(end: socket.socket) -> None:
        end.sendall(GREETING)
        while end.recv(100):
            pass

    said = refused(capsys, serve(talk), "--timeout", "0.5")
    assert "it greeted, and does not answer qmp_capabilities within 0.5 s: its main loop is blocked" in said


def test_of_many_devices_those_that_are_shown_are_asked(serve: Serve, capsys: Said) -> None:
    asked = list[str]()

    devices = [{**DEVICE, "path": f"/machine/peripheral/d{n}/virtio-backend"} for n in range(50_000)]
    replies = {"query-version": VERSION, "x-query-virtio": devices, "qom-get": "virtio-rng-pci"}
    path = serve(qmp(replies, asked))
    assert cli.main(["info", str(path), "--timeout", "60"]) == 1
    assert "and 49936 more devices, not shown" in capsys.readouterr().out
    assert asked.count("qom-get") == 64


def test_endless_output(serve: Serve, capsys: Said) -> None:
    def talk(end: socket.socket) -> None:
        while True:
            end.sendall(b"{" * 65536)

    assert "no QMP" in refused(capsys, serve(talk), "--timeout", "5")


HUGE = b'{"return": "' + b"x" * (100 << 20) + b'"}\r\n'


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ({}, "query-version: The command query-version has not been found"),
        ({"query-version": 7}, "query-version: reply key 'return': an object is wanted, not int"),
        ({"query-version": VERSION}, "QEMU 10.0.2 has no x-query-virtio: QEMU 7.2 was the first"),
        ({"query-version": VERSION, "x-query-virtio": {"a": 1}}, "x-query-virtio: reply key 'return'"),
        ({"query-version": VERSION, "x-query-virtio": [DEVICE, 7]}, "x-query-virtio: reply key"),
        ({"query-version": HUGE}, "query-version: "),
        ({"query-version": b"[" * 100_000 + b"\n"}, "query-version: "),
        ({"query-version": b'{"return": ' + b"9" * 5000 + b"}\n"}, "query-version: "),
        ({"query-version": b'"\x1b[2J"\n'}, "query-version: "),
    ],
)
def test_a_hostile_qemu(serve: Serve, capsys: Said, replies: Mapping[str, object], said: str) -> None:
    assert said in refused(capsys, serve(qmp(replies)), "--timeout", "20")


def test_a_hostile_qemus_devices(serve: Serve, capsys: Said) -> None:
    """Names with what a terminal acts on, wrong types everywhere else."""
    evil = {"path": "/machine/peripheral/\x1b[2J\n\u202e/virtio-backend", "name": "\x1b]0;x\x07"}
    status = {"name": "\x1b", "device-id": 1, "status": {"statuses": ["\x1b[2J"]}, "num-vqs": 1 << 60}
    features = {"transports": ["\x1b[2J"], "dev-features": ["x" * 1000]}
    replies = {
        "query-version": {**VERSION, "package": "\x1b[2J"},
        "x-query-virtio": [DEVICE, evil],
        "qom-get": "virtio-net-pci",
        "human-monitor-command": "\x1b[2J",
        "x-query-virtio-status": {**status, "host-features": features, "guest-features": features},
        "x-query-virtio-queue-status": [],
        "x-query-virtio-vhost-queue-status": None,
        "query-status": 7,
        "query-pci": "\x1b",
    }
    path = serve(qmp(replies))
    assert cli.main(["info", str(path), "--timeout", "20"]) == 1
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out
    assert "\u202e" not in captured.out
    assert "bug of pytest-virtio" not in captured.out
    assert "net0: no answer: x-query-virtio-status: reply key 'num-vqs': 0 to 65535 is wanted" in captured.out


def test_trouble_as_json(tmp_path: Path, capsys: Said) -> None:
    assert cli.main(["info", str(tmp_path / "absent"), "--json"]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["schema"], document["socket"]) == (1, str(tmp_path / "absent"))
    assert document["devices"] == {}
    assert captured.err == f"pytest-virtio: {document['error']}\n"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_wrong_arguments(seconds: str, capsys: Said) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["info", "s", "--timeout", seconds])
    assert "a number of seconds above 0 is expected" in capsys.readouterr().err


@pytest.mark.qemu
def test_a_real_one(by_hand: ByHand, capsys: Said) -> None:
    with by_hand("-device", "virtio-rng-pci,id=rng", "-S") as path:
        assert cli.main(["info", str(path), "rng"]) == 0
        said = capsys.readouterr().out
        assert said.startswith("---- virtio: verdict ----\nthe VM stands still: prelaunch\nrng: reset: no driver has")
        assert cli.main(["info", str(path), "--json"]) == 0
        said = capsys.readouterr().out
        assert json.loads(said)["devices"]["rng"]["status"]["status"] == []
        assert models_from_json(said).state == ("the VM stands still: prelaunch",)
        assert "Did you mean 'rng'?" in refused(capsys, path, "rng0", status=2)
