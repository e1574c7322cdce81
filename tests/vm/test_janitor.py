"""The janitor: whatever ends the process that boots VMs, nothing of theirs stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio.errors import VirtioError
from pytest_virtio.vm import janitor, workdir

Ended = Callable[..., bool]
Owner = Callable[[str], tuple[subprocess.Popen[str], dict[str, Any]]]

PROLOGUE = """
import json, os, signal, sys
from pathlib import Path
from pytest_virtio.declare.devices import Blk, P9
from pytest_virtio.declare.spec import vm_spec
from pytest_virtio.launch import Host, launch
from pytest_virtio.vm import janitor
from pytest_virtio.vm.accelerator import Accelerator
from pytest_virtio.vm.capabilities import capabilities

program = Path(os.environ["QEMU"])
host = Host(program, capabilities(program), Accelerator("tcg", "for the test"))
spec = vm_spec([Blk(), P9()], {"transport": "mmio", "boot": False}, {})

def say(**what):
    print(json.dumps({"janitor": janitor._current.process.pid, "directories":
        [str(p) for p in Path(os.environ["TMPDIR"]).iterdir()], **what}), flush=True)
"""


@pytest.fixture
def owner(tmp_path: Path, program: Path) -> Iterator[Owner]:
    """Runs Python code in a process of its own until it has said something; that, and the process."""
    processes: list[subprocess.Popen[str]] = []
    (tmp_path / "tmp").mkdir()

    def run(body: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "QEMU": str(program)}
        command = [sys.executable, "-c", PROLOGUE + body]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())

    yield run
    for process in processes:
        process.kill()
        process.communicate(timeout=20)


def assert_nothing_is_left(said: dict[str, Any], tmp_path: Path, ended: Ended) -> None:
    """The janitor's end is the end of the sweep."""
    assert ended(said["janitor"])
    assert ended(said["qemu"], 0)
    assert said["directories"]
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.qemu
@pytest.mark.parametrize(
    "body",
    [
        pytest.param("vm = launch(spec, host); say(qemu=vm.qemu.pid); signal.pause()", id="running"),
        pytest.param(
            """
def die(group, rank):
    say(qemu=group)
    signal.pause()
janitor.adopt_group = die
launch(spec, host)
""",
            id="between-spawn-and-registration",
        ),
        pytest.param(
            """
vm = launch(spec, host)
os.kill(janitor._current.process.pid, signal.SIGKILL)
os.waitid(os.P_PID, janitor._current.process.pid, os.WEXITED | os.WNOWAIT)
other = launch(spec, host)
other.close()
say(qemu=vm.qemu.pid)
signal.pause()
""",
            id="with-a-janitor-that-was-killed-and-replaced",
        ),
        pytest.param(
            """
os.write(janitor._current.process.stdin.fileno(), b'rubbish\\n{"adopt": true}\\n') if janitor._current else 0
vm = launch(spec, host)
os.write(janitor._current.process.stdin.fileno(), b'rubbish\\n{"adopt": true')
say(qemu=vm.qemu.pid)
signal.pause()
""",
            id="with-rubbish-in-the-pipe",
        ),
        pytest.param(
            """
vm = launch(spec, host)
os.kill(vm.qemu.pid, signal.SIGSTOP)
say(qemu=vm.qemu.pid)
signal.pause()
""",
            id="with-a-stopped-qemu",
        ),
    ],
)
def test_nothing_is_left_after_sigkill(owner: Owner, tmp_path: Path, ended: Ended, body: str) -> None:
    process, said = owner(body)
    process.kill()
    assert_nothing_is_left(said, tmp_path, ended)


@pytest.mark.qemu
def test_nothing_is_left_after_an_ordinary_exit_without_close(owner: Owner, tmp_path: Path, ended: Ended) -> None:
    process, said = owner("vm = launch(spec, host); say(qemu=vm.qemu.pid)")
    assert process.wait(20) == 0
    assert_nothing_is_left(said, tmp_path, ended)


@pytest.mark.qemu
def test_a_forked_process_that_lives_on_does_not_hold_the_sweep(owner: Owner, tmp_path: Path, ended: Ended) -> None:
    process, said = owner(
        """
vm = launch(spec, host)
child = os.fork()
if child == 0:
    os.close(1)
    signal.pause()
say(qemu=vm.qemu.pid, fork=child)
signal.pause()
"""
    )
    process.kill()
    try:
        assert_nothing_is_left(said, tmp_path, ended)
        assert not ended(said["fork"], 0)
    finally:
        os.kill(said["fork"], signal.SIGKILL)


@pytest.mark.qemu
def test_a_forked_process_ends_nothing_of_its_parents(owner: Owner) -> None:
    """A test that forks may come out of its child by an exception; pytest then tears down there too."""
    _, said = owner(
        """
vm = launch(spec, host)
child = os.fork()
if child == 0:
    try:
        vm.qemu.execute("query-status")
    except Exception as error:
        words = str(error)
    vm.close()
    janitor.close()
    Path(vm.qemu.directory / "words").write_text(words)
    os._exit(0)
os.waitpid(child, 0)
status = vm.qemu.execute("query-status")["status"]
words = Path(vm.qemu.directory / "words").read_text()
vm.close()
janitor.close()
print(json.dumps([status, words, os.getpid()]), flush=True)
"""
    )
    status, words, pid = said
    assert status == "prelaunch"
    assert words == (
        f"query-status: the QMP session has ended (it is process {pid}'s, and this one was forked from it)"
    )


@pytest.mark.qemu
def test_after_close_the_janitor_is_gone_too(owner: Owner, ended: Ended, tmp_path: Path) -> None:
    _, said = owner("vm = launch(spec, host); say(qemu=vm.qemu.pid); vm.close(); janitor.close(); signal.pause()")
    assert_nothing_is_left(said, tmp_path, ended)


def test_an_orderly_end_takes_daemons_along(owner: Owner, ended: Ended, tmp_path: Path) -> None:
    """A helper that has left its process group is ours all the same."""
    process, said = owner(
        """
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain
from pytest_virtio.vm.process import Child
drain = Drain("x")
drain.start()
child = Child(["sh", "-c", "setsid sleep 600 <&- >&- 2>&- & echo $!"], drain, rank=0)
child.wait(Deadline.after(20))
child.kill()
say(daemon=int(child.stderr.log.text()))
drain.close()
janitor.close()
"""
    )
    assert process.wait(20) == 0
    assert ended(said["janitor"], 0)
    assert ended(said["daemon"])


@pytest.fixture
def own_janitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[janitor._Janitor]:
    """One of the test's own in the place of this process's."""
    own = janitor._Janitor()
    monkeypatch.setattr(janitor, "_current", own)
    yield own
    own.held.clear()
    own.close()


def test_what_was_never_registered_starts_nothing(own_janitor: janitor._Janitor, tmp_path: Path) -> None:
    janitor.release_directory(tmp_path)
    janitor.close()
    assert own_janitor.process is None


def test_it_stays_while_it_guards_something(own_janitor: janitor._Janitor, tmp_path: Path) -> None:
    janitor.adopt_directory(tmp_path / "x")
    janitor.close()
    assert own_janitor.process is not None
    janitor.release_directory(tmp_path / "x")
    janitor.close()
    assert own_janitor.process is None


def test_one_that_dies_between_the_look_and_the_word_is_replaced(
    own_janitor: janitor._Janitor, tmp_path: Path, ended: Ended
) -> None:
    janitor.owner_token()
    first = own_janitor.process
    assert first is not None
    first.kill()
    assert ended(first.pid)
    ensure = own_janitor.ensure
    calls: list[int] = []
    # The first look sees it alive.
    own_janitor.ensure = lambda: calls.append(1) if not calls else ensure()  # type: ignore[method-assign]
    janitor.adopt_directory(tmp_path / "x")
    assert own_janitor.process is not None
    assert own_janitor.process.pid != first.pid


def test_one_that_is_stopped_is_replaced_once_its_pipe_is_full(
    own_janitor: janitor._Janitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor, "TELL_SECONDS", 0.01)
    janitor.owner_token()
    first = own_janitor.process
    assert first is not None
    first.send_signal(signal.SIGSTOP)
    for number in range(2000):
        janitor.adopt_directory(tmp_path / f"{number}")
        janitor.release_directory(tmp_path / f"{number}")
    assert own_janitor.process is not None
    assert own_janitor.process.pid != first.pid


def test_one_that_can_not_be_replaced_is_told(own_janitor: janitor._Janitor, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(own_janitor, "_write", lambda message: False)
        with pytest.raises(VirtioError, match="the janitor process can't be spoken to"):
            workdir.make()


def test_a_directory_is_private_and_removed() -> None:
    path = workdir.make()
    assert path.stat().st_mode & 0o777 == 0o700
    (path / "file").touch()
    workdir.remove(path)
    assert not path.exists()
    workdir.remove(path)


def test_a_directory_that_can_not_be_removed_stays_registered(
    own_janitor: janitor._Janitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workdir.make()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        workdir.remove(path)
    assert path in own_janitor.held
    workdir.remove(path)
    assert not own_janitor.held
