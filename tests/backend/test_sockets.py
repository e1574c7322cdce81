"""Sockets at paths: long ones, nobody there, no room, and who comes late."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_virtio.backend import sockets
from pytest_virtio.vm.deadline import Deadline


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process that lives."""
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        yield process.pid
        process.kill()


def test_a_path_longer_than_an_address(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    with sockets.listen(deep / "s") as listener, sockets.connect(deep / "s") as ours:
        theirs, _ = listener.accept()
        with theirs:
            ours.sendall(b"here")
            assert theirs.recv(4) == b"here"
        assert ours.getblocking()


def test_nobody_comes_to_listen(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match=rf"^nobody listens at {tmp_path}/s$"):
        sockets.connect_when_there(tmp_path / "s", lambda: True, Deadline.after(0.05))


def test_nobody_will(tmp_path: Path) -> None:
    with pytest.raises(ConnectionRefusedError, match="nobody listens at"):
        sockets.connect_when_there(tmp_path / "s", lambda: False, Deadline.after(60))


def test_no_room(tmp_path: Path) -> None:
    with sockets.listen(tmp_path / "s"):
        waiting = [sockets.connect(tmp_path / "s") for _ in range(2)]
        with pytest.raises(TimeoutError, match="too many wait to be accepted at"):
            sockets.connect_when_there(tmp_path / "s", lambda: True, Deadline.after(0.05))
        for connection in waiting:
            connection.close()


def test_a_plain_file(tmp_path: Path) -> None:
    """connect(2) tells it as it tells a socket that nobody listens at."""
    (tmp_path / "s").touch()
    with pytest.raises(ConnectionRefusedError, match="nobody listens at"):
        sockets.connect_when_there(tmp_path / "s", lambda: False, Deadline.after(60))


def test_one_that_comes_late(tmp_path: Path) -> None:
    listening: list[socket.socket] = []
    asked = threading.Event()

    def lives() -> bool:
        asked.set()
        return True

    def listen() -> None:
        asked.wait(20)
        listening.append(sockets.listen(tmp_path / "s"))

    thread = threading.Thread(target=listen)
    thread.start()
    sockets.connect_when_there(tmp_path / "s", lives, Deadline.after(20)).close()
    thread.join()
    listening[0].close()


def test_somebody_connects(tmp_path: Path, sleeper: int) -> None:
    with (
        sockets.listen(tmp_path / "s") as listener,
        sockets.connect(tmp_path / "s") as ours,
        sockets.accept(listener, sleeper, Deadline.after(20)) as theirs,
    ):
        ours.sendall(b"1")
        assert theirs.recv(1) == b"1"


def test_nobody_connects(tmp_path: Path, sleeper: int) -> None:
    with sockets.listen(tmp_path / "s") as listener, pytest.raises(TimeoutError, match="it did not connect"):
        sockets.accept(listener, sleeper, Deadline.after(0.05))


def test_who_was_to_connect_has_ended(tmp_path: Path) -> None:
    with (
        subprocess.Popen(["true"]) as process,
        sockets.listen(tmp_path / "s") as listener,
        pytest.raises(ConnectionRefusedError, match="it ended before it connected"),
    ):
        sockets.accept(listener, process.pid, Deadline.after(20))
