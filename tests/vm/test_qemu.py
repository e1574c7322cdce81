"""A running QEMU: started over connected sockets, ended whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pytest_virtio.errors import MissingError, MonitorClosedError, MonitorTimeoutError, QemuExitedError
from pytest_virtio.vm import cmdline, process, qemu, workdir
from pytest_virtio.vm.capabilities import Capabilities
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.qemu import Qemu

Ended = Callable[..., bool]


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The process ids of what was spawned in the test."""
    pids: list[int] = []
    real = process._popen

    def spy(*args: Any) -> Any:
        popen = real(*args)
        pids.append(popen.pid)
        return popen

    monkeypatch.setattr(process, "_popen", spy)
    yield pids
    # Reaped too: the numbers are free.
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where private directories are made; none may be left."""
    parent = tmp_path / "private, directories"
    parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    yield parent
    assert list(parent.iterdir()) == []


@pytest.fixture
def warned(known: Capabilities) -> list[str]:
    """What it says of each command line: 11.1 wants ``-object monitor-qmp``, which 10.0 does not have."""
    types = "use '-object' with 'monitor-hmp' or 'monitor-qmp' types instead"
    said = f"qemu-system-x86_64: -mon chardev=monitor,mode=control: warning: '-mon' is deprecated, {types}"
    return [said] if known.version.startswith("11.") else []


def start(program: Path, *more: str, seconds: float = 30.0, **keywords: Any) -> Qemu:
    return Qemu.start(
        lambda wires: (*cmdline.probe(program, wires), *more), Deadline.after(seconds), label="test", **keywords
    )


@pytest.mark.qemu
def test_from_start_to_end(program: Path, spawned: list[int], directories: Path, warned: list[str]) -> None:
    with start(program) as running:
        assert spawned == [running.pid]
        assert running.running
        assert os.getpgid(running.pid) == running.pid
        assert [running.directory] == list(directories.iterdir())
        assert running.directory.stat().st_mode & 0o777 == 0o700
        version = running.execute("query-version")
        assert isinstance(version, dict)
        assert running.stderr_text().splitlines() == warned
    assert (running.running, running.child.how()) == (False, "killed by SIGKILL")
    running.close()


@pytest.mark.qemu
def test_it_may_end_itself(program: Path, spawned: list[int], warned: list[str]) -> None:
    with start(program) as running:
        running.execute("quit")
        assert running.child.wait(Deadline.after(20))
        with pytest.raises(QemuExitedError) as caught:
            running.execute("query-status")
    said = ["its stderr:", *warned] if warned else ["it wrote nothing to stderr"]
    assert str(caught.value) == "QEMU ended (exit code 0) during query-status; " + "\n".join(said)


@pytest.mark.qemu
def test_consoles_are_connected(program: Path, spawned: list[int]) -> None:
    """SeaBIOS speaks on the first serial port of a machine without graphics."""

    def build(wires: cmdline.Wires) -> tuple[str, ...]:
        spec = ("-machine", "q35,graphics=off", "-nodefaults", "-display", "none")
        chardev = ("-chardev", f"file,id=c,path=/proc/self/fd/{wires.consoles[0]}", "-serial", "chardev:c")
        return (str(program), *spec, *cmdline._monitor(wires.monitor), *chardev)

    with Qemu.start(build, Deadline.after(30), label="console", consoles=2) as running:
        log = running.consoles[0].log
        assert running.child.drain.wait(lambda: b"SeaBIOS" in log.since(0), Deadline.after(20))
        assert running.consoles[1].log.size == 0


@pytest.mark.qemu
def test_a_qemu_that_refuses_says_why(program: Path, spawned: list[int], warned: list[str]) -> None:
    with pytest.raises(QemuExitedError) as caught:
        start(program, "-device", "no-such-device")
    assert str(caught.value).splitlines() == [
        "QEMU ended (exit code 1) during its start; its stderr:",
        *warned,
        f"{program.name}: -device no-such-device: 'no-such-device' is not a valid device model name",
    ]


@pytest.mark.qemu
def test_a_stopped_qemu_is_ended(program: Path, spawned: list[int]) -> None:
    with start(program) as running:
        os.kill(running.pid, signal.SIGSTOP)


@pytest.mark.qemu
def test_a_stopped_qemu_is_told_from_a_slow_one(program: Path) -> None:
    with Qemu.start(lambda wires: cmdline.probe(program, wires), Deadline.after(30), label="stopped") as running:
        os.kill(running.pid, signal.SIGSTOP)
        with pytest.raises(MonitorTimeoutError, match=r"query-status: no answer within 0\.2 s") as caught:
            running.execute("query-status", timeout=0.2)
        assert caught.value.__notes__ == ["QEMU's process is stopped by a signal (SIGSTOP, SIGTSTP) or a debugger"]


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("echo rubbish; exit 0", QemuExitedError, "QEMU ended (exit code 0) during its start; its stderr:\nrubbish"),
        ("echo no >&2; exit 3", QemuExitedError, "QEMU ended (exit code 3) during its start; its stderr:\nno"),
        ("kill -SEGV $$", QemuExitedError, "QEMU ended (killed by SIGSEGV) during its start; it wrote nothing"),
        ("echo thinking; exec sleep 600", MonitorTimeoutError, "the QMP greeting: no answer within 0.3 s"),
        ("trap '' TERM INT; sleep 600", MonitorTimeoutError, "the QMP greeting: no answer within 0.3 s"),
    ],
)
def test_what_is_no_qemu(
    script: Callable[[str], Path], spawned: list[int], body: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        start(script(body), seconds=0.3 if error is MonitorTimeoutError else 20.0)
    assert str(caught.value).startswith(message)


def test_a_timeout_tells_what_was_said(script: Callable[[str], Path], spawned: list[int]) -> None:
    said = script("echo $$ > ${0}.ready; echo thinking; exec sleep 600")
    with pytest.raises(MonitorTimeoutError) as caught:
        start(said, seconds=1.0)
    assert caught.value.__notes__ == ["QEMU's stderr:\nthinking"]


def test_one_that_hangs_up_and_lives_on(
    fake_qemu: Callable[..., Path], spawned: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu, "GONE_SECONDS", 0.05)
    fake = fake_qemu(greeting="rubbish")
    fake.write_text(f"{fake.read_text()}\nimport signal\nsignal.pause()\n")
    with pytest.raises(MonitorClosedError, match="the QMP greeting: the QMP session has ended"):
        start(fake)


def test_a_program_that_can_not_be_run(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such program"):
        start(tmp_path / "none")


def test_a_command_line_that_can_not_be_built() -> None:
    def build(wires: cmdline.Wires) -> tuple[str, ...]:
        (wires.directory / "file").touch()
        raise KeyError("x")

    with pytest.raises(KeyError):
        Qemu.start(build, Deadline.after(20), label="test", consoles=2)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_too_few_descriptors(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    calls = iter(range(1, 10))
    real = socket.socketpair

    def pair() -> Any:
        if next(calls) == number:
            raise OSError(24, "Too many open files")
        return real()

    monkeypatch.setattr(socket, "socketpair", pair)
    with pytest.raises(OSError, match="Too many open files"):
        Qemu.start(lambda wires: (), Deadline.after(20), label="test", consoles=3)


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch, spawned: list[int]) -> None:
    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        start(Path("/bin/true"))


def test_a_directory_that_is_handed_over_goes_with_it(script: Callable[[str], Path], spawned: list[int]) -> None:
    directory = workdir.make()
    with pytest.raises(QemuExitedError):
        start(script("exit 1"), directory=directory)
    assert not directory.exists()


class _CtrlC:
    """Raises SIGINT at the n-th line that is run in our modules.

    The first lines of close() are spared: before them nothing could be done, and the janitor still holds everything.
    """

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if "/pytest_virtio/" not in frame.f_code.co_filename:
            return None
        if event == "line" and frame.f_code.co_name not in {"__enter__", "__exit__", "close"}:
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return self


@pytest.mark.qemu
@pytest.mark.parametrize("first", range(4))
def test_ctrl_c_at_any_line_leaves_nothing(program: Path, spawned: list[int], first: int) -> None:
    """Each of the parameters takes every 12th line; the life of a QEMU is some hundred lines of ours."""
    number, reached = 1 + first * 3, False
    old = sys.gettrace()
    while not reached:
        tracer = _CtrlC(number)
        sys.settrace(tracer)
        try:
            with start(program):
                pass
            reached = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(old)
        assert reached or tracer.left == 0
        number += 12
    assert number > 200


@pytest.mark.qemu
def test_several_at_a_time(program: Path, spawned: list[int]) -> None:
    with start(program) as one, start(program) as two:
        assert one.execute("query-name") == two.execute("query-name") == {}
        assert one.directory != two.directory
    assert len(spawned) == 2
