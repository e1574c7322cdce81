"""A running QEMU: its process, drained streams and monitor under one owner.

Responsible for starting it over connected sockets, for telling how it ended, and for ending it; must not know what
devices it has or what its guest does.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from pytest_virtio.errors import MonitorClosedError, MonitorTimeoutError, QemuExitedError, VirtioError
from pytest_virtio.render import escape
from pytest_virtio.vm import workdir
from pytest_virtio.vm.cmdline import Wires
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain, Stream
from pytest_virtio.vm.monitor import COMMAND_SECONDS, Monitor
from pytest_virtio.vm.process import QEMU_RANK, Child

__all__ = ("Qemu",)

STDERR_LIMIT = 16 * 1024
GONE_SECONDS = 2.0


class Qemu:
    """One QEMU process; a context manager that ends it."""

    def __init__(self, directory: Path, child: Child, monitor: Monitor, consoles: tuple[Stream, ...]) -> None:
        self.directory, self.child, self.monitor, self.consoles = directory, child, monitor, consoles
        self.closed = False

    @classmethod
    def start(
        cls,
        build: Callable[[Wires], Sequence[str]],
        deadline: Deadline,
        *,
        label: str,
        consoles: int = 0,
        directory: Path | None = None,
    ) -> Qemu:
        """Start QEMU and open its monitor.

        :param build: gives the command line for the descriptors that QEMU inherits.
        :param consoles: how many serial consoles to connect.
        :param directory: a private directory that exists already and is owned by the result from now on.
        :raises MissingError: when the binary can't be run.
        :raises QemuExitedError: when it exits instead of greeting, with its stderr.
        :raises MonitorTimeoutError: when it neither exits nor greets.
        """
        directory = directory or workdir.make()
        drain = Drain(label)
        pairs = [socket.socketpair() for _ in range(1 + consoles)]
        try:
            wires = Wires(directory, pairs[0][1].fileno(), tuple(theirs.fileno() for _, theirs in pairs[1:]))
            # QEMU puts snapshot overlays into TMPDIR.
            environment = {"TMPDIR": str(directory)}
            child = Child(
                build(wires),
                drain,
                rank=QEMU_RANK,
                pass_fds=[theirs.fileno() for _, theirs in pairs],
                environment=environment,
            )
        except BaseException:
            for ours, _ in pairs:
                ours.close()
            drain.close()
            workdir.remove(directory)
            raise
        finally:
            for _, theirs in pairs:
                theirs.close()
        streams = tuple(drain.add_socket(f"console{n}", ours) for n, (ours, _) in enumerate(pairs[1:]))
        drain.start()
        qemu = cls(directory, child, Monitor(pairs[0][0]), streams)
        qemu._greet(deadline)
        return qemu

    @property
    def pid(self) -> int:
        """QEMU's process id, which is its process group's too."""
        return self.child.pid

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
        :raises QemuExitedError: when it is gone.
        """
        try:
            return self.monitor.execute(command, arguments, timeout)
        except MonitorClosedError:
            if self.child.wait(Deadline.after(GONE_SECONDS)):
                raise self.exited(command) from None
            raise

    def exited(self, during: str) -> QemuExitedError:
        """The error that says how QEMU ended."""
        return QemuExitedError(self.child.how(), self.stderr_text(), during)

    def stderr_text(self) -> str:
        """What QEMU wrote to its stderr, bounded and safe to print."""
        return escape(self.child.stderr.log.text(), STDERR_LIMIT).strip()

    def close(self) -> None:
        """Kill QEMU and whatever it started, reap it, remove its directory. May be called again."""
        if self.closed:
            return
        self.closed = True
        try:
            self.child.kill()
        finally:
            self.monitor.close()
            self.child.drain.close()
            workdir.remove(self.directory)

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
            gone = self.child.wait(Deadline.after(GONE_SECONDS))
            error = self.exited("its start") if gone else None
            self.close()
            if error is None:
                raise
            raise error from None
        except MonitorTimeoutError as error:
            said = self.stderr_text()
            self.close()
            if said:
                error.add_note(f"QEMU's stderr:\n{said}")
            raise
        except BaseException:
            with contextlib.suppress(VirtioError, OSError):
                self.close()
            raise
