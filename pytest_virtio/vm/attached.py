"""A QEMU that runs already and is not ours, reached by a QMP socket that it listens on.

Responsible for the connection, for who is at its other end and for saying what keeps us from it; must not know what is
asked. It starts, stops and ends nothing; the socket is as it was when the connection is closed.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from pytest_virtio.errors import (
    MonitorClosedError,
    MonitorError,
    MonitorTimeoutError,
    NotSupportedError,
    VirtioError,
)
from pytest_virtio.render import escape
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.monitor import COMMAND_SECONDS, Command, Monitor
from pytest_virtio.vm.process_memory import ProcessMemory

__all__ = ("AttachedQemu",)

FIRST_BYTES = 80
SECOND_MONITOR = "open a second monitor: -qmp unix:PATH,server=on,wait=off, or in pytest --virtio-monitor"


class AttachedQemu:
    """One QEMU, by its monitor. A context manager that ends the conversation, and nothing else.

    :param pid: of the process that listens, as far as this machine knows it.
    :param user: whose process that is.
    """

    def __init__(self, path: Path, monitor: Monitor, pid: int | None, user: int) -> None:
        self.path, self.pid, self.user = path, pid, user
        self._monitor = monitor
        self.process_memory = ProcessMemory(pid) if pid is not None and self.is_qemu else _Unreachable(_unlike(pid))
        """What the process has in memory, for reading only."""

    @classmethod
    def connect(cls, path: Path, deadline: Deadline) -> AttachedQemu:
        """Connect and take the greeting.

        :raises MonitorError: when that can't be, saying why and what to do.
        """
        peer = _connected(path, deadline)
        try:
            pid, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            _await_greeting(path, peer, pid or None, deadline)
        except BaseException:
            peer.close()
            raise
        monitor = Monitor(peer)
        try:
            monitor.connect(deadline)
        except MonitorTimeoutError:
            monitor.close()
            raise _hung(path, pid or None, deadline) from None
        except MonitorError as error:
            monitor.close()
            raise MonitorError(f"{path}: no QMP socket: {_line(str(error))}") from None
        except BaseException:
            monitor.close()
            raise
        # 0 is a process that this pid namespace does not see.
        return cls(path, monitor, pid or None, user)

    @property
    def program(self) -> str:
        """The path of the process's binary; "" when that can't be told."""
        return _program(self.pid)

    @property
    def running(self) -> bool:
        """It does as far as anybody knows: each question tells."""
        return True

    @property
    def is_qemu(self) -> bool:
        """Whether the process that listens is the one that answers. libvirt and others listen in QEMU's place and hand
        the socket over."""
        return "qemu" in Path(self.program).name

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, timeout: float = COMMAND_SECONDS
    ) -> object:
        """Execute a QMP command.

        :param timeout: seconds.
        :raises CommandError: when QEMU answers with an error.
        :raises MonitorTimeoutError: when it doesn't answer in time.
        :raises MonitorClosedError: when it has hung up.
        """
        return self._monitor.execute(command, arguments, timeout)

    def execute_all(self, commands: Sequence[Command], timeout: float) -> list[object | VirtioError]:
        """Execute QMP commands in their order, without waiting for one's answer to send the next.

        :param timeout: seconds, for all of them.
        :returns: what each gave, or the error that :meth:`execute` would raise.
        """
        return list(self._monitor.execute_all(commands, timeout))

    def close(self) -> None:
        """End the conversation. May be called again."""
        self.process_memory.close()
        self._monitor.close()

    def __enter__(self) -> AttachedQemu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Unreachable(ProcessMemory):
    """The memory of a process that nobody knows."""

    def __init__(self, why: str) -> None:
        super().__init__(0)
        self._why = why

    def read(self, address: int, length: int) -> bytes:
        """:raises NotSupportedError: always."""
        raise NotSupportedError(f"which process is QEMU's is not known: {self._why}")


def _unlike(pid: int | None) -> str:
    if pid is None:
        return "it is in another container, or behind a proxy; run this where QEMU runs"
    program = _program(pid)
    what = f"is {program}" if program else "does not let this user see its binary: run this as its user, or as root"
    return f"process {pid}, which listens at the socket, {what}"


def _connected(path: Path, deadline: Deadline) -> socket.socket:
    """A connection, which its kernel may have made though nobody accepts it."""
    _check(path)
    peer = socket.socket(socket.AF_UNIX)
    try:
        # So long it waits for a place in the queue of those who are to be accepted.
        seconds = max(deadline.remaining(), 0.001)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6)))
        _connect(peer, path)
    except OSError as error:
        peer.close()
        raise _refused(path, error, deadline) from None
    except BaseException:
        peer.close()
        raise
    return peer


def _connect(peer: socket.socket, path: Path) -> None:
    """By way of its directory's descriptor: an address holds 107 bytes only (unix(7)), and a path may be longer."""
    place = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        peer.connect(f"/proc/self/fd/{place}/{path.name}")
    finally:
        os.close(place)


def _check(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise MonitorError(
            f"{path}: {error.strerror}: name a QMP socket; `ss -xlp` lists what QEMUs listen on"
        ) from None
    if not stat.S_ISSOCK(mode):
        raise MonitorError(
            f"{path}: not a socket: name the path that QEMU was given by -qmp unix:PATH,server=on,wait=off"
        )


def _refused(path: Path, error: OSError, deadline: Deadline) -> MonitorError:
    if isinstance(error, BlockingIOError):
        said = f"no place in {deadline.seconds:g} s: another client is connected to it, and more are waiting"
        return MonitorError(f"{path}: {said}: {SECOND_MONITOR}")
    if isinstance(error, ConnectionRefusedError):
        return MonitorError(f"{path}: nobody listens there (any more): the QEMU that made it has ended")
    if isinstance(error, PermissionError):
        return MonitorError(f"{path}: no permission: run this as the user that QEMU runs as, or as root")
    return MonitorError(f"{path}: {error.strerror or error}: name a QMP socket of the stream kind")


def _await_greeting(path: Path, peer: socket.socket, pid: int | None, deadline: Deadline) -> None:
    """Wait for the first bytes and look at them; they stay to be read.

    :raises MonitorError: when they don't come, or are no QMP.
    """
    peer.settimeout(max(deadline.remaining(), 0.001))
    try:
        first = peer.recv(FIRST_BYTES, socket.MSG_PEEK)
    except TimeoutError:
        raise _silent(path, pid, deadline) from None
    except OSError as error:
        raise MonitorClosedError(f"{path}: the QMP greeting", str(error)) from None
    peer.settimeout(None)
    if not first:
        raise MonitorError(f"{path}: hung up at once: it is no QMP socket, or its QEMU is about to end")
    if not first.lstrip().startswith(b"{"):
        human = first.startswith(b"QEMU ") and b"monitor" in first
        what = "a monitor for people (-monitor)" if human else f"it says {_line(escape(first))!r}"
        raise MonitorError(f"{path}: no QMP socket but {what}: {SECOND_MONITOR}")


def _silent(path: Path, pid: int | None, deadline: Deadline) -> MonitorError:
    """Who accepts and says nothing."""
    why = _stopped(pid) or (
        f"another client is connected to it, or it is no QMP socket (a vhost-user backend's): {SECOND_MONITOR}"
    )
    return MonitorError(f"{path}{_who(pid)}: no QMP greeting within {deadline.seconds:g} s: {why}")


def _hung(path: Path, pid: int | None, deadline: Deadline) -> MonitorError:
    """Who has greeted and says no more. QEMU greets in a thread of its own, and acts on commands in its main loop."""
    why = _stopped(pid) or "its main loop is blocked (a hung vhost backend or block request)"
    said = f"it greeted, and does not answer qmp_capabilities within {deadline.seconds:g} s"
    return MonitorError(f"{path}{_who(pid)}: {said}: {why}")


def _who(pid: int | None) -> str:
    return f", process {pid} ({_program(pid) or 'not ours to see'})" if pid is not None else ""


def _stopped(pid: int | None) -> str:
    """That the process is stopped, and what to do; "" when it isn't."""
    if pid is None or not _is_stopped(pid):
        return ""
    return f"process {pid} is stopped by a signal (SIGSTOP, SIGTSTP) or a debugger: kill -CONT {pid}"


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def _program(pid: int | None) -> str:
    try:
        return str(Path(f"/proc/{pid}/exe").readlink()) if pid is not None else ""
    except OSError:
        return ""


def _line(text: str) -> str:
    return " ".join(text.split())
