"""Child processes: spawned, watched, killed with their group, and never left behind."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_virtio.errors import MissingError, VirtioError
from pytest_virtio.vm import janitor, process
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain
from pytest_virtio.vm.process import BACKEND_RANK, Child, how_it_ended

Ended = Callable[..., bool]


def soon() -> Deadline:
    return Deadline.after(20)


def spawn(drain: Drain, command: str) -> Child:
    return Child(["/bin/sh", "-c", command], drain, rank=BACKEND_RANK)


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (None, "running"),
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-6, "killed by SIGABRT"),
        (-9, "killed by SIGKILL"),
        (-99, "killed by signal 99"),
    ],
)
def test_how_it_ended(returncode: int | None, words: str) -> None:
    assert how_it_ended(returncode) == words


@pytest.mark.parametrize(
    ("command", "words"),
    [("exit 3", "exit code 3"), ("kill -ABRT $$", "killed by SIGABRT"), ("exit 0", "exit code 0")],
)
def test_its_end_and_last_words(drain: Drain, command: str, words: str) -> None:
    child = spawn(drain, f"echo out; echo err >&2; {command}")
    assert child.wait(soon())
    assert (child.how(), child.running) == (words, False)
    assert child.stderr.log.text() == b"out\nerr\n"
    child.kill()


def test_killing_takes_the_group_along(drain: Drain, ended: Ended) -> None:
    child = spawn(drain, "sleep 600 & echo $!; trap '' TERM; wait")
    assert drain.wait(lambda: b"\n" in child.stderr.log.since(0), soon())
    grandchild = int(child.stderr.log.text())
    assert child.how() == "running"
    child.kill()
    assert child.how() == "killed by SIGKILL"
    assert ended(grandchild)
    # Reaped: the number is free.
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_killing_twice_does_not_signal_a_stranger(drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    child = spawn(drain, "exit 0")
    child.kill()
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("signalled after it was reaped"))
    child.kill()


def test_the_number_stays_taken_until_it_is_killed(drain: Drain, ended: Ended) -> None:
    child = spawn(drain, "sleep 600 & echo $!; exit 0")
    assert drain.wait(lambda: child.returncode is not None, soon())
    grandchild = int(child.stderr.log.text())
    os.kill(child.pid, 0)
    child.kill()
    assert ended(grandchild)


def test_a_stopped_process_is_killed(drain: Drain) -> None:
    child = spawn(drain, "kill -STOP $$")
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    child.kill()
    assert child.how() == "killed by SIGKILL"


def test_reaped_by_somebody_else(drain: Drain) -> None:
    child = spawn(drain, "read x; exit 3")
    os.waitpid(child.pid, 0)
    assert child.wait(soon())
    assert not child.running
    child.kill()


def test_a_wait_ends_at_its_deadline(drain: Drain) -> None:
    child = spawn(drain, "exec sleep 600")
    assert not child.wait(Deadline.after(0.01))
    child.kill()


def test_a_grandchild_that_holds_stderr_does_not_hold_the_wait(
    drain: Drain, monkeypatch: pytest.MonkeyPatch, ended: Ended
) -> None:
    monkeypatch.setattr(process, "STDERR_SECONDS", 0.01)
    child = spawn(drain, "setsid sleep 600 & echo $!; exit 0")
    assert child.wait(soon())
    assert not child.stderr.ended
    grandchild = int(child.stderr.log.text())
    child.kill()
    os.kill(grandchild, signal.SIGKILL)
    assert ended(grandchild)


def test_descriptors_and_environment_are_inherited(drain: Drain) -> None:
    read_end, write_end = os.pipe()
    child = Child(
        ["/bin/sh", "-c", f'echo "$COLOUR $PYTEST_VIRTIO_OWNER" > /proc/self/fd/{write_end}'],
        drain,
        rank=BACKEND_RANK,
        pass_fds=[write_end],
        environment={"COLOUR": "blue"},
    )
    os.close(write_end)
    with os.fdopen(read_end) as file:
        assert file.read() == f"blue {janitor.owner_token()}\n"
    child.kill()


@pytest.mark.parametrize(
    ("mode", "text", "message"),
    [
        (None, "", "no such program"),
        (0o644, "#!/bin/sh\n", "not executable by this user"),
        (0o755, "rubbish", "can't be executed: Exec format error"),
    ],
)
def test_what_can_not_be_run(drain: Drain, tmp_path: Path, mode: int | None, text: str, message: str) -> None:
    program = tmp_path / "program"
    if mode is not None:
        program.write_text(text)
        program.chmod(mode)
    with pytest.raises(MissingError) as caught:
        Child([str(program)], drain, rank=BACKEND_RANK)
    assert str(caught.value) == f"{program}: {message}"


def test_below_what_is_no_directory(drain: Drain, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingError, match="file/program: no such program"):
        Child([str(tmp_path / "file" / "program")], drain, rank=BACKEND_RANK)


@pytest.mark.parametrize(
    ("argument", "said"), [("x" * (1 << 20), "Argument list too long"), (None, "Cannot allocate memory")]
)
def test_what_is_there_and_can_not_be_started_is_not_missing(
    drain: Drain, monkeypatch: pytest.MonkeyPatch, argument: str | None, said: str
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    if argument is None:
        monkeypatch.setattr(subprocess, "Popen", no_memory)
    with pytest.raises(VirtioError, match=f"^/bin/true: can't be started: {said}$") as caught:
        Child(["/bin/true", argument or ""], drain, rank=BACKEND_RANK)
    assert not isinstance(caught.value, MissingError)


def test_a_program_that_is_being_written(drain: Drain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a linker; one that is written for good is told as it is."""
    program = Path(shutil.copy(shutil.which("sleep") or "", tmp_path / "program"))
    writer = program.open("ab")
    real = time.sleep

    def finish(seconds: float) -> None:
        writer.close()
        real(seconds)

    with monkeypatch.context() as patch:
        patch.setattr(process, "BUSY_SECONDS", 0.01)
        with pytest.raises(VirtioError, match="can't be started: Text file busy") as caught:
            Child([str(program), "600"], drain, rank=BACKEND_RANK)
        assert not isinstance(caught.value, MissingError)
    monkeypatch.setattr(time, "sleep", finish)
    Child([str(program), "600"], drain, rank=BACKEND_RANK).kill()


@pytest.mark.parametrize("broken", ["adopt_group", "pidfd_open"])
def test_what_can_not_be_looked_after_is_not_left_running(
    drain: Drain, monkeypatch: pytest.MonkeyPatch, broken: str, ended: Ended
) -> None:
    spawned: list[subprocess.Popen[bytes]] = []
    real = process._popen

    def spy(*args: object) -> subprocess.Popen[bytes]:
        spawned.append(real(*args))  # type: ignore[arg-type]
        return spawned[0]

    def fail(*_: object) -> None:
        raise VirtioError("broken")

    monkeypatch.setattr(process, "_popen", spy)
    monkeypatch.setattr(janitor if broken == "adopt_group" else os, broken, fail)
    with pytest.raises(VirtioError, match="broken"):
        spawn(drain, "exec sleep 600")
    monkeypatch.undo()
    assert ended(spawned[0].pid)
    assert spawned[0].returncode == -signal.SIGKILL


def test_one_that_survives_is_told(drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    child = spawn(drain, "exec sleep 600")
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda *_: None)
        patch.setattr(process, "KILL_SECONDS", 0.01)
        with pytest.raises(VirtioError, match=r"process \d+ \(/bin/sh\) survived SIGKILL for 0\.01 s"):
            child.kill()
    child.kill()
