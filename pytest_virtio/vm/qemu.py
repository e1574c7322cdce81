"""A running QEMU: its process, drained streams and monitor under one owner.

Responsible for starting it over connected sockets, for telling how it ended, and for ending it; must not know what
devices it has or what its guest does.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType

from pytest_virtio.errors import (
    MonitorClosedError,
    MonitorError,
    MonitorTimeoutError,
    QemuExitedError,
    UsageError,
    VirtioError,
)
from pytest_virtio.render import escape
from pytest_virtio.vm import workdir
from pytest_virtio.vm.alarm import Alarm
from pytest_virtio.vm.cmdline import Connects, Wires
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain, Stream
from pytest_virtio.vm.event_log import EventLog
from pytest_virtio.vm.interrupts import uninterrupted
from pytest_virtio.vm.memory import GuestMemory
from pytest_virtio.vm.monitor import COMMAND_SECONDS, Command, Monitor
from pytest_virtio.vm.process import QEMU_RANK, Child
from pytest_virtio.vm.process_memory import ProcessMemory
from pytest_virtio.vm.qtest import Qtest

__all__ = ("Qemu",)

STDERR_LIMIT = 16 * 1024
GONE_SECONDS = 2.0
TIMESTAMP = re.compile(rb"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ", re.MULTILINE)


class Qemu:
    """One QEMU process; a context manager that ends it."""

    def __init__(
        self,
        directory: Path,
        child: Child,
        monitor: Monitor,
        consoles: tuple[Stream, ...],
        memory: GuestMemory | None,
        qtest: socket.socket | None,
        log: EventLog | None,
    ) -> None:
        self.directory, self.child, self.monitor, self.consoles = directory, child, monitor, consoles
        self.alarm = Alarm(child.drain.changed)
        """Ends the waits for its guest; sounded only by who watches it."""
        self._owner = os.getpid()
        self._end_is_known = False
        self._memory = memory
        self.known_ends: Mapping[int, str] = {}
        """What to do about ends that this VM is known for, by return code; whoever starts it may say."""
        self.process_memory = ProcessMemory(child.pid)
        """What its process has in memory, guest RAM too that is not ours; for reading only."""
        self.log = log
        """Where it logs trace events; None when it doesn't."""
        self._qtest = Qtest(qtest, self._gone) if qtest else None

    @classmethod
    def start(
        cls,
        build: Callable[[Wires], Sequence[str]],
        deadline: Deadline,
        *,
        label: str,
        consoles: int = 0,
        directory: Path | None = None,
        memory: int = 0,
        qtest: bool = False,
        log: bool = False,
        backends: Mapping[str, int | Connects] = MappingProxyType({}),
    ) -> Qemu:
        """Start QEMU and open its monitor.

        :param build: gives the command line for the descriptors that QEMU inherits, and makes the files it names.
        :param consoles: how many serial consoles to connect; the first only speaks.
        :param directory: a private directory that exists already. It is QEMU's from now on: it is removed with it,
            also when the start fails.
        :param memory: how much RAM the guest has, in bytes, when it is to be ours to read and write; 0 when not.
        :param qtest: whether to connect the qtest wire, which reaches registers and ports.
        :param log: whether it logs trace events.
        :param backends: by device id, connected sockets of vhost-user backends for it to inherit, or where it connects.
        :raises MissingError: when the binary can't be run.
        :raises QemuExitedError: when it exits instead of greeting, with its stderr.
        :raises MonitorClosedError: when it hangs up instead of greeting, and lives on.
        :raises MonitorTimeoutError: when it neither exits nor greets.
        """
        qemu: Qemu | None = None
        try:
            with uninterrupted():
                qemu = cls._assemble(build, label, consoles, directory, memory, qtest, log, backends)
            qemu._greet(deadline)
            if qemu.log is not None:
                qemu.log.bound()
            # Inside the block, so that Ctrl-C has no gap to slip through.
            return qemu  # noqa: TRY300
        except BaseException:
            if qemu is not None:
                qemu.close()
            raise

    @classmethod
    def _assemble(
        cls,
        build: Callable[[Wires], Sequence[str]],
        label: str,
        consoles: int,
        directory: Path | None,
        memory: int,
        qtest: bool,
        log: bool,
        backends: Mapping[str, int | Connects],
    ) -> Qemu:
        """Everything up to the running process. What was made for it is unmade if a part fails."""
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as theirs:
            directory = directory or workdir.make()
            undo.callback(workdir.remove, directory)
            drain = Drain(label)
            undo.callback(drain.close)
            monitor_end, monitor_fd = _socket_pair(undo, theirs)
            connected = [_console(n, drain, undo, theirs) for n in range(consoles)]
            ram = _ram(memory, undo) if memory else None
            events = undo.enter_context(EventLog()) if log else None
            place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            theirs.callback(os.close, place)
            qtest_end, qtest_fd = _socket_pair(undo, theirs) if qtest else (None, None)
            wires = Wires(
                directory,
                monitor_fd,
                tuple(fd for _, fd in connected),
                memory=ram.fd if ram else None,
                qtest=qtest_fd,
                log=events.fd if events else None,
                backends=backends,
                place=place,
            )
            argv = build(wires)
            streams = tuple(stream for stream, _ in connected)
            drain.start()
            monitor = Monitor(monitor_end)
            # QEMU puts snapshot overlays into TMPDIR.
            child = Child(
                argv,
                drain,
                rank=QEMU_RANK,
                pass_fds=wires.descriptors,
                environment={"TMPDIR": str(directory)},
            )
            undo.pop_all()
            return cls(directory, child, monitor, streams, ram, qtest_end, events)

    @property
    def pid(self) -> int:
        """QEMU's process id, which is its process group's too."""
        return self.child.pid

    @property
    def memory(self) -> GuestMemory:
        """Guest RAM.

        :raises UsageError: when it was not started with ``memory``.
        """
        if self._memory is None:
            raise UsageError("this VM's RAM is not shared: QEMU was not started with memory of ours")
        return self._memory

    @property
    def qtest(self) -> Qtest:
        """The wire to its registers.

        :raises UsageError: when it was not started with ``qtest``.
        """
        if self._qtest is None:
            raise UsageError("this VM has no qtest wire: QEMU was not started with one")
        return self._qtest

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self.child.running

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, timeout: float = COMMAND_SECONDS
    ) -> object:
        """Execute a QMP command.

        :param timeout: seconds.
        :raises CommandError: when QEMU answers with an error.
        :raises MonitorTimeoutError: when it doesn't answer in time.
        :raises MonitorClosedError: when it has hung up and lives on, and in a process that was forked from ours.
        :raises QemuExitedError: when it is gone.
        """
        self._flush(timeout)
        try:
            return self.monitor.execute(command, arguments, timeout)
        except MonitorError as error:
            told = self._told(command, error)
            if told is error:
                raise
            raise told from None

    def execute_all(self, commands: Sequence[Command], timeout: float = COMMAND_SECONDS) -> list[object | VirtioError]:
        """Execute QMP commands in their order, without waiting for one's answer to send the next.

        :param timeout: seconds, for all of them.
        :returns: what each gave, or the error that :meth:`execute` would raise.
        """
        self._flush(timeout)
        answers = self.monitor.execute_all(commands, timeout)
        return [
            self._told(command, answer) if isinstance(answer, MonitorError) else answer
            for (command, _), answer in zip(commands, answers, strict=True)
        ]

    def exited(self, during: str) -> QemuExitedError:
        """The error that says how QEMU ended."""
        # Our own threads that watch have nobody to tell.
        self._end_is_known = self._end_is_known or not threading.current_thread().daemon
        return QemuExitedError(self.child.how(), self.stderr_text(), during, self.remedy)

    def hear_end(self) -> None:
        """The test knows that QEMU has ended."""
        self._end_is_known = True

    @property
    def unheard_end(self) -> QemuExitedError | None:
        """How it ended, if that was a crash or an error, not our doing, and nobody was told."""
        known = self._end_is_known or self.child.killed
        return self.exited("the test") if self.child.returncode and not known else None

    @property
    def remedy(self) -> str:
        """What to do about its end; "" while it lives, and where nothing is known of such an end."""
        return self.known_ends.get(self.child.returncode, "") if self.child.returncode is not None else ""

    def stderr_text(self, limit: int = STDERR_LIMIT) -> str:
        """What QEMU wrote to its stderr, the last so many bytes, safe to print; without the time that it adds when it
        logs."""
        said = self.child.stderr.log.text()
        return escape(said if self.log is None else TIMESTAMP.sub(b"", said), limit).strip()

    def close(self) -> None:
        """Kill QEMU and whatever it started, reap it, remove its directory. May be called again.

        In a process that a test has forked this does nothing: QEMU is the parent's.

        :raises VirtioError: when it survives SIGKILL; the janitor keeps after it.
        """
        if self._owner != os.getpid():
            return
        try:
            self._end()
        except Exception:
            raise
        except BaseException:
            # Ctrl-C may have come before it was held back; what is done already is not done again.
            self._end()
            raise

    def _flush(self, timeout: float) -> None:
        """Whoever asks QEMU wants to see what was written to its devices."""
        if self._qtest is not None and self._qtest.pending:
            self._qtest.flush(timeout)

    def _told(self, command: str, error: MonitorError) -> VirtioError:
        """An error of the monitor, and what is known of the process."""
        if isinstance(error, MonitorTimeoutError) and self.child.stopped:
            error.add_note("QEMU's process is stopped by a signal (SIGSTOP, SIGTSTP) or a debugger")
        if (
            isinstance(error, MonitorClosedError)
            and self._owner == os.getpid()
            and self.child.wait(Deadline.after(GONE_SECONDS))
        ):
            return self.exited(command)
        return error

    def _gone(self, during: str) -> QemuExitedError | None:
        return self.exited(during) if self.child.wait(Deadline.after(GONE_SECONDS)) else None

    def _end(self) -> None:
        with uninterrupted(), contextlib.ExitStack() as steps:
            for shared in (self._memory, self.process_memory, self._qtest, self.log):
                if shared is not None:
                    steps.callback(shared.close)
            steps.callback(workdir.remove, self.directory)
            steps.callback(self.child.drain.close)
            steps.callback(self.monitor.close)
            self.child.kill()

    def __enter__(self) -> Qemu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _greet(self, deadline: Deadline) -> None:
        try:
            self.monitor.connect(deadline)
        except MonitorClosedError:
            if self.child.wait(Deadline.after(GONE_SECONDS)):
                raise self.exited("its start") from None
            raise
        except MonitorTimeoutError as error:
            said = self.stderr_text()
            if said:
                error.add_note(f"QEMU's stderr:\n{said}")
            raise


def _console(number: int, drain: Drain, undo: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[Stream, int]:
    """A console's stream and the descriptor to be inherited for it.

    The first is a pipe. Kernel and firmware write it by single bytes and give up on a byte that is not taken within
    10 ms; a socket is full after some 270 single bytes (each counts for its whole buffer), a pipe after 65,536.
    """
    if number:
        ours, fd = _socket_pair(undo, theirs)
        return drain.add_socket(f"console{number}", ours), fd
    read_end, write_end = os.pipe()
    theirs.callback(os.close, write_end)
    return drain.add_pipe("console0", read_end), write_end


def _ram(size: int, undo: contextlib.ExitStack) -> GuestMemory:
    memory = GuestMemory(size)
    undo.callback(memory.close)
    return memory


def _socket_pair(undo: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[socket.socket, int]:
    """Our end, which ``undo`` closes, and the descriptor to be inherited, which is closed here in any case."""
    ours, end = socket.socketpair()
    undo.callback(ours.close)
    theirs.callback(end.close)
    return ours, end.fileno()
