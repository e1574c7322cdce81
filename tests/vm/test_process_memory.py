"""The memory of another process: what stands in it is read, and where that can't be, it is said why."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_virtio import NotSupportedError, UsageError, VirtioError
from pytest_virtio.model.memory import RamPiece
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.foreign_memory import ForeignMemory
from pytest_virtio.vm.memory import GuestMemory
from pytest_virtio.vm.process_memory import ProcessMemory
from tests.vm.test_memory import PLACE, ROUNDS, SIZE, _write_both

WORDS = b"what stands in it"
NOBODY = 65534


@contextmanager
def process_memory(pid: int) -> Iterator[ProcessMemory]:
    memory = ProcessMemory(pid)
    try:
        yield memory
    finally:
        memory.close()


@contextmanager
def forked(body: Callable[..., object] = signal.pause, *args: object) -> Iterator[BaseProcess]:
    """A copy of this process, by default idle; it is ended with the block, if it is not before."""
    process = multiprocessing.get_context("fork").Process(target=body, args=args)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def pid_of(process: BaseProcess) -> int:
    assert process.pid is not None
    return process.pid


def address_of(memory: GuestMemory) -> int:
    """Where it is mapped, in this process and in those that are forked from it."""
    inode = os.fstat(memory.fd).st_ino
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.split()[4] == str(inode) and "pytest-virtio-ram" in line)
    return int(line.partition("-")[0], 16)


def test_what_stands_there_is_read() -> None:
    with GuestMemory(SIZE) as ours, forked() as process, process_memory(pid_of(process)) as theirs:
        ours.write(SIZE - len(WORDS), WORDS)
        assert theirs.read(address_of(ours) + SIZE - len(WORDS), len(WORDS)) == WORDS
        os.kill(theirs.pid, signal.SIGSTOP)
        assert theirs.read(address_of(ours), SIZE) == ours.read(0, SIZE)


def test_where_nothing_is_mapped() -> None:
    with process_memory(os.getpid()) as memory, pytest.raises(UsageError, match="has nothing at 0x10 of its memory"):
        memory.read(0x10, 2)


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("reaped", [False, True])
def test_a_process_that_has_ended(opened: bool, reaped: bool) -> None:
    with GuestMemory(SIZE) as ours, forked() as process, process_memory(pid_of(process)) as theirs:
        place = address_of(ours)
        if opened:
            theirs.read(place, 1)
        process.kill()
        os.waitid(os.P_PID, theirs.pid, os.WEXITED | os.WNOWAIT)
        if reaped:
            process.join()
        with pytest.raises(VirtioError, match=f"process {theirs.pid} has ended"):
            theirs.read(place, 1)


def test_after_the_end_it_says_so() -> None:
    with process_memory(os.getpid()) as memory:
        with pytest.raises(UsageError, match="has nothing"):
            memory.read(0x10, 1)
        memory.close()
        with pytest.raises(UsageError, match="the VM has ended"):
            memory.read(0x10, 1)


def test_the_memory_of_somebody_elses_process() -> None:
    if os.getuid():
        assert _refusal(1) == _expected(1)
        return
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs, forked(_as_nobody, os.getpid(), theirs):
        assert ours.poll(20)
        assert ours.recv() == _expected(os.getpid())


def _expected(pid: int) -> str:
    return (
        f"/proc/{pid}/mem: Permission denied: it is for those who may trace the process. Run as the user that QEMU "
        "runs as, with kernel.yama.ptrace_scope at most 1 (0 where something else has started QEMU), or with the "
        "capability SYS_PTRACE"
    )


def _as_nobody(pid: int, answers: Connection) -> None:
    os.setuid(NOBODY)
    answers.send(_refusal(pid))


def _refusal(pid: int) -> str:
    with process_memory(pid) as memory, pytest.raises(NotSupportedError) as caught:
        memory.read(0x10, 1)
    return str(caught.value)


def test_guest_ram_in_pieces() -> None:
    """As far apart as a machine has them; nothing beside them is read, though the process has memory there."""
    with GuestMemory(SIZE) as ours, process_memory(os.getpid()) as process:
        place, half, high = address_of(ours), SIZE // 2, 4 << 30
        ram = ForeignMemory(
            process, [RamPiece(0x1000, 0x1000, place + 0x1000, "a"), RamPiece(high, half, place + half, "b")]
        )
        ours.write(half, WORDS)
        ours.write(0x1FFE, b"\x01\x02")
        assert (ram.read(high, len(WORDS)), ram.load16(0x1FFE), ram.size) == (WORDS, 0x0201, high + half)
        assert (ram.read(0x1000, 0x1000), ram.read(high + half, 0)) == (ours.read(0x1000, 0x1000), b"")
        for address, length in ((0xFFF, 2), (0x1FFF, 2), (high + half - 1, 2), (0x1000, -1), (-1, 1), (1 << 64, 1)):
            with pytest.raises(UsageError, match=r"it is 0x1000 to 0x2000, 0x100000000 to 0x100080000 here"):
                ram.read(address, length)
        with pytest.raises(UsageError, match="16 bits at 0x1001 can't be read: they need an even address"):
            ram.load16(0x1001)


def test_no_half_of_a_halfword_is_ever_seen() -> None:
    """As in ``test_memory``; where the kernel copies both bytes at once, as here, a look alone would do too."""
    deadline, seen = Deadline.after(10), set[int]()
    with GuestMemory(SIZE) as ours, forked(_write_both, ours) as writer, process_memory(pid_of(writer)) as process:
        ram = ForeignMemory(process, [RamPiece(0, SIZE, address_of(ours), "a")])
        while not (len(seen) > 1 or deadline.passed()):
            seen |= {ram.load16(PLACE) for _ in range(ROUNDS // 10)}
    assert seen == {0, 0xFFFF}


@pytest.mark.parametrize(
    ("looks", "seen"),
    [
        ([0x00FF, 0x00FF], 0x00FF),
        # Half of 0x00ff and half of 0x0100.
        ([0x01FF, 0x0100, 0x0100], 0x0100),
        ([0x00FF, 0x0000, 0x0100, 0x0100], 0x0100),
        (range(100), 8),
    ],
)
def test_a_torn_look_is_not_believed(looks: Iterable[int], seen: int) -> None:
    look = iter(looks)
    process = SimpleNamespace(read=lambda address, length: next(look).to_bytes(length, "little"))
    ram = ForeignMemory(cast(ProcessMemory, process), [RamPiece(0, 16, 0, "a")])
    assert ram.load16(2) == seen
