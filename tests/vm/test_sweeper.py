"""The sweeper's parts, with lines and processes of the test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pytest_virtio.vm import _sweeper
from pytest_virtio.vm._sweeper import Charge, kill_groups, kill_stragglers, owned, read_charge, remove, started


@pytest.fixture
def sleeper() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes that would run for ever, each in a group of its own."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(**environment: str) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(["sleep", "600"], start_new_session=True, env={**os.environ, **environment}))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait(20)


def feed(*lines: bytes) -> Charge:
    read_end, write_end = os.pipe()
    os.write(write_end, b"".join(lines))
    os.close(write_end)
    charge = read_charge(read_end, os.getpid())
    os.close(read_end)
    return charge


def line(**message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def test_registrations_are_collected() -> None:
    me = os.getpid()
    charge = feed(
        line(adopt=True, directory="/a"),
        line(adopt=True, directory="/b"),
        line(adopt=True, group=me, rank=1),
        line(directory="/a"),
    )
    assert charge.directories == {"/b"}
    assert charge.groups == {me: (1, started(me))}
    assert not charge.farewell


def test_a_group_is_released() -> None:
    assert feed(line(adopt=True, group=os.getpid(), rank=0), line(group=os.getpid())).groups == {}


def test_after_good_bye_nothing_is_waited_for() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, line(farewell=True))
    assert read_charge(read_end, os.getpid()).farewell
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\n",
        b"rubbish\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"null\n",
        b"5\n",
        b'"directory"\n',
        b'{"adopt": true, "group": "x"}\n',
        b'{"adopt": true, "group": null, "rank": 1}\n',
        b'{"adopt": true, "group": 7, "rank": []}\n',
        b'{"adopt": true, "group": 0, "rank": 0}\n',
        b'{"adopt": true, "group": 1, "rank": 0}\n',
        b'{"adopt": true, "group": -1, "rank": 0}\n',
        b"{}\n",
        b'{"adopt": true, "dir',
    ],
)
def test_rubbish_does_not_stop_it(rubbish: bytes) -> None:
    charge = feed(line(adopt=True, directory="/a"), rubbish, b"\n", line(adopt=True, directory="/b"))
    assert charge.directories == {"/a", "/b"}
    assert charge.groups == {}


def test_half_a_line_at_the_end_is_no_registration() -> None:
    assert feed(line(adopt=True, directory="/a"), b'{"adopt": true, "directory": "/b"}').directories == {"/a"}


def test_an_owner_that_has_gone_while_somebody_holds_its_pipe() -> None:
    with subprocess.Popen(["true"]) as owner:
        pass
    read_end, write_end = os.pipe()
    os.write(write_end, line(adopt=True, directory="/a"))
    assert read_charge(read_end, owner.pid).directories == {"/a"}
    os.close(read_end)
    os.close(write_end)


def test_groups_are_killed_backends_first(
    sleeper: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu, backend, reused = sleeper(), sleeper(), sleeper()
    killed: list[int] = []
    real = os.killpg

    def killpg(group: int, number: int) -> None:
        killed.append(group)
        real(group, number)

    monkeypatch.setattr(os, "killpg", killpg)
    start = started(reused.pid)
    assert start is not None
    groups = {qemu.pid: (1, started(qemu.pid)), backend.pid: (0, started(backend.pid)), reused.pid: (0, start - 100)}
    kill_groups(groups)
    assert killed == [backend.pid, qemu.pid]
    assert {qemu.wait(20), backend.wait(20)} == {-signal.SIGKILL}
    assert reused.poll() is None


def test_stragglers_are_found_by_their_token(sleeper: Callable[..., subprocess.Popen[bytes]]) -> None:
    ours, other = sleeper(PYTEST_VIRTIO_OWNER="mine"), sleeper(PYTEST_VIRTIO_OWNER="another's")
    assert [process.pid for process in owned("mine")] == [ours.pid]
    kill_stragglers("mine", looks=1)
    assert ours.wait(20) == -signal.SIGKILL
    assert other.poll() is None


def test_the_look_for_stragglers_ends(
    sleeper: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper(PYTEST_VIRTIO_OWNER="immortal")
    monkeypatch.setattr(psutil.Process, "kill", lambda self: None)
    monkeypatch.setattr(_sweeper, "SWEEP_SECONDS", 0.05)
    kill_stragglers("immortal", looks=1)
    monkeypatch.undo()
    kill_stragglers("immortal", looks=1)


def test_directories_are_removed(tmp_path: Path) -> None:
    (tmp_path / "vm" / "deep").mkdir(parents=True)
    (tmp_path / "vm" / "deep" / "file").touch()
    remove({str(tmp_path / "vm"), str(tmp_path / "never-was")})
    assert list(tmp_path.iterdir()) == []
