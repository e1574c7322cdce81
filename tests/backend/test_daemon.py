"""A daemon that is started, asked and ended: programs that answer, that don't, and that answer something else."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from pytest_virtio.backend.running import RunningBackend
from pytest_virtio.backend.service import HowToStart, Service
from pytest_virtio.errors import BackendError, MissingError
from pytest_virtio.spec.devices import BLK
from pytest_virtio.vm.cmdline import CommandLine
from pytest_virtio.vm.deadline import Deadline

Ended = Callable[[int], bool]
Start = Callable[[str], RunningBackend]

PROLOGUE = "import os, signal, socket, struct, sys; listener = socket.socket(fileno=int(sys.argv[1]))\n"
ANSWER = """
peer, _ = listener.accept()
assert peer.recv(100) == struct.pack('<III', 1, 1, 0)
"""
IN_TWO = """
answer = struct.pack('<IIIQ', 1, 5, 8, 0x140000020)
peer.send(answer[:15])
peer.send(answer[15:])
print('ready', file=sys.stderr, flush=True)
signal.pause()
"""


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Each test gives back its descriptors and threads."""
    before = _possessions()
    yield
    assert _possessions() == before


def _possessions() -> tuple[int, set[str]]:
    # The janitor's pipe stays for the next process.
    return len(list(Path("/proc/self/fd").iterdir())), {thread.name for thread in threading.enumerate()}


@pytest.fixture(scope="module", autouse=True)
def _janitor() -> None:
    from pytest_virtio.vm import janitor

    janitor.owner_token()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts Python code as a daemon."""
    started: list[RunningBackend] = []

    def start(body: str, directory: Path = tmp_path) -> RunningBackend:
        def build(where: Path, listener: int | Path) -> CommandLine:
            assert where == directory
            return CommandLine((sys.executable, "-c", PROLOGUE + body, str(listener)), ())

        started.append(
            RunningBackend.start(
                Service(id="dev0", type=BLK, how=HowToStart("inherits", build)), directory, lambda line: None
            )
        )
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()
        daemon.close()


def test_it_is_ready_when_it_has_told_its_features(start: Start, tmp_path: Path) -> None:
    daemon = start(ANSWER + IN_TWO)
    daemon.await_answer(Deadline.after(30))
    assert daemon.features == 0x140000020
    assert list(tmp_path.iterdir()) == [], "nobody else can connect"
    assert os.get_blocking(cast(int, daemon.connection)), "as QEMU expects it"
    assert daemon.child.drain.wait(lambda: b"ready" in daemon.child.stderr.log.text(), Deadline.after(20))
    assert daemon.account() == f"{Path(sys.executable).name}: running\nready"


def test_it_sees_the_end_of_whom_the_connection_was_handed_to(start: Start) -> None:
    daemon = start(ANSWER + IN_TWO.replace("signal.pause()", "print(peer.recv(1), file=sys.stderr)"))
    daemon.await_answer(Deadline.after(30))
    daemon.hand_over()
    assert daemon.child.wait(Deadline.after(20))
    assert daemon.account().splitlines() == [f"{Path(sys.executable).name}: exit code 0", "ready", "b''"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit('no such disk')", r"ended \(exit code 1\) before it answered; its stderr:\nno such disk\n"),
        ("os.abort()", r"ended \(killed by SIGABRT\) before it answered; it wrote nothing to stderr\n"),
        (ANSWER + "peer.close(); signal.pause()", "hung up before it answered"),
        (ANSWER + "peer.send(b'HTTP/1.1 400 Bad Request'); signal.pause()", "does not speak vhost-user: .*48545450"),
        (ANSWER + "peer.send(struct.pack('<III', 1, 5, 8)); peer.close(); signal.pause()", "hung up before it"),
    ],
    ids=["ends", "crashes", "hangs-up", "speaks-http", "says-half"],
)
def test_one_that_does_not_get_ready(start: Start, body: str, said: str) -> None:
    daemon = start(body)
    with pytest.raises(BackendError, match=rf"^dev0: its backend python\S* {said}") as caught:
        daemon.await_answer(Deadline.after(30))
    assert caught.value.id == "dev0"
    assert str(caught.value).splitlines()[-1 - PROLOGUE.count("\n") - body.count("\n")].startswith("its command line: ")


@pytest.mark.parametrize(
    "body", ["signal.pause()", ANSWER + "signal.pause()", ANSWER + "peer.send(b'1'); signal.pause()"]
)
def test_one_that_says_nothing(start: Start, body: str) -> None:
    with pytest.raises(BackendError, match=r"dev0: its backend python\S* did not answer within 0\.5 s"):
        start(body).await_answer(Deadline.after(0.5))


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    how = HowToStart("inherits", lambda directory, listener: CommandLine((str(tmp_path / "none"),), ()))
    service = Service("dev0", BLK, how)
    with pytest.raises(MissingError, match="none: no such program"):
        RunningBackend.start(service, tmp_path, lambda line: None)


def test_a_directory_whose_path_is_longer_than_an_address(
    start: Callable[[str, Path], RunningBackend], tmp_path: Path
) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    daemon = start(ANSWER + IN_TWO, deep)
    daemon.await_answer(Deadline.after(30))
    assert daemon.features


def test_a_stopped_one_is_said_to_be_and_can_be_ended(start: Start, ended: Ended) -> None:
    daemon = start("print('here', flush=True); os.kill(os.getpid(), signal.SIGSTOP)")
    with pytest.raises(BackendError, match=r"did not answer within 2 s"):
        daemon.await_answer(Deadline.after(2))
    assert daemon.account() == f"{Path(sys.executable).name}: stopped by a signal\nhere"
    daemon.close()
    assert ended(daemon.child.pid)
