"""The process of a vhost-user backend, and how it and we meet.

Responsible for its processes, one after the other, for its socket and for what it says to stderr; must not know what is
said over a connection, nor which program it is.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from pytest_virtio.backend import sockets
from pytest_virtio.backend.service import HowToStart, Service
from pytest_virtio.backend.version import version_of
from pytest_virtio.errors import BackendError, MissingError, UsageError, VirtioError
from pytest_virtio.model.stuck import BackendState
from pytest_virtio.render import escape
from pytest_virtio.vm.cmdline import CommandLine
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain
from pytest_virtio.vm.family import Family
from pytest_virtio.vm.process import BACKEND_RANK, Child

__all__ = ("Program",)

STDERR_LIMIT = 16 * 1024
GONE_SECONDS = 2.0
SIGNAL_SECONDS = 5.0
LOOK_SECONDS = 0.001
BACKGROUND = "one that goes into the background can't be watched: run it in the foreground"


class Program:
    """A backend's program; of one that we did not start only its socket.

    :param directory: the VM's private one.
    :param make: makes the files that a command line names.
    """

    def __init__(self, service: Service, directory: Path, make: Callable[[CommandLine], None]) -> None:
        self._service, self._directory, self._make = service, directory, make
        self._how = service.how if isinstance(service.how, HowToStart) else None
        self._path = directory / f"{service.id}.vhost-user" if isinstance(service.how, HowToStart) else service.how
        self._drain = Drain(service.id)
        self._children: list[Child] = []
        self._family: Family | None = None
        """What the newest one may have started out of its process group; None where nothing can be."""
        self._listener: socket.socket | None = None
        self._first: socket.socket | None = None
        self.note_end: Callable[[Child], None] = lambda child: None
        """Called in another thread when a process has ended."""

    @property
    def child(self) -> Child:
        """Its process, the newest one.

        :raises UsageError: of one that we did not start.
        """
        if not self._children:
            raise UsageError(f"the backend of {self._service.id} is not ours: it was found at {self._path}")
        return self._children[-1]

    @property
    def state(self) -> BackendState | None:
        """How its process stands; None of one that we did not start."""
        if not self._children:
            return None
        if not self.child.running:
            return "ended"
        return "stopped" if self.child.stopped else "running"

    @property
    def name(self) -> str:
        """``qemu-storage-daemon``; of one that we did not start where it was found."""
        return Path(self.child.argv[0]).name if self._children else str(self._path)

    def version(self) -> str:
        """The program's name and version, as far as they are known."""
        return version_of(self.child.argv[0]) if self._children else f"not ours, found at {escape(self._path.name)}"

    def start(self) -> None:
        """Start a process, in the place of the last one if there was one; it need not be up yet.

        :raises MissingError: when the program can't be run.
        """
        try:
            self._start()
        except MissingError as error:
            raise MissingError(
                f"{self._service.id} needs a backend. {error}: install it or say where it is, or skip such tests by "
                "--virtio-missing=skip"
            ) from None

    def _start(self) -> None:
        if not self._children:
            self._drain.start()
        if self._how is None:
            return
        self._forget_sockets()
        self._path.unlink(missing_ok=True)
        with contextlib.ExitStack() as ours:
            listener = None
            if self._how.meeting != "listens":
                listener = ours.enter_context(sockets.listen(self._path))
            self._spawn(self._how, listener)
            if listener is not None and self._how.meeting == "inherits":
                # It waits with the socket that the daemon has, and ends with it.
                self._first = sockets.connect(self._path)
                if not self._service.by_path:
                    self._path.unlink()
            elif listener is not None:
                ours.pop_all()
                self._listener = listener

    def meet(self, deadline: Deadline) -> socket.socket:
        """A connection to it.

        :raises TimeoutError: when there is none in time.
        :raises OSError: when there is none, or it has ended.
        """
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._listener is not None:
            return sockets.accept(self._listener, self.child.pid, deadline)
        return sockets.connect_when_there(self._path, lambda: bool(self._children) and self.child.running, deadline)

    def kill(self) -> None:
        """Kill its process group and whatever else it started, as a crash would.

        :raises UsageError: when its process is not ours.
        :raises VirtioError: when it survives SIGKILL.
        """
        with contextlib.ExitStack() as steps:
            steps.callback(self.child.kill)
            if self._family is not None:
                # First: its last words are waited for, and what it started may hold that pipe open.
                steps.callback(self._family.kill)

    def stop(self) -> None:
        """Have all its processes stand still, by SIGSTOP; it comes back when they do.

        :raises UsageError: when its process is not ours.
        :raises VirtioError: when it has ended, or goes on.
        """
        deadline = Deadline.after(SIGNAL_SECONDS)
        self._signal(signal.SIGSTOP, "stopped", deadline)
        if self._family is not None and not self._family.stop(deadline):
            raise VirtioError(f"what {self._service.id}'s backend started goes on after SIGSTOP")

    def cont(self) -> None:
        """Let them go on, by SIGCONT; it raises what :meth:`stop` does."""
        deadline = Deadline.after(SIGNAL_SECONDS)
        self._signal(signal.SIGCONT, "running", deadline)
        if self._family is not None and not self._family.cont(deadline):
            raise VirtioError(f"what {self._service.id}'s backend started stands still after SIGCONT")

    def _signal(self, number: signal.Signals, until: BackendState, deadline: Deadline) -> None:
        if self.child.running:
            os.killpg(self.child.pid, number)
        while self.state != until:
            if self.state == "ended" or deadline.passed():
                raise VirtioError(f"{self._service.id}'s backend is {self.state} after {number.name}, not {until}")
            time.sleep(LOOK_SECONDS)

    def error(self, what: str) -> BackendError:
        """What happened to it, with its last words."""
        argv = shlex.join(self.child.argv) if self._children else ""
        return BackendError(self._service.id, f"{self.name} {what}", self.stderr_text(), argv)

    def end(self) -> str:
        """How it has ended, if it ends now; waits a moment for it. "" when it lives on, and of one that is not ours."""
        gone = bool(self._children) and self.child.wait(Deadline.after(GONE_SECONDS))
        return f"ended ({self.how_it_ended()})" if gone else ""

    def how_it_ended(self) -> str:
        """In words, of one that was not told to end: where nothing went wrong, it may go on in another process."""
        return self.child.how() + (f": {BACKGROUND}" if self.child.returncode == 0 else "")

    def stderr_text(self, limit: int = STDERR_LIMIT) -> str:
        """What its processes wrote to stdout and stderr, safe to print: the last so many bytes."""
        return escape(b"\n".join(child.stderr.log.text() for child in self._children), limit).strip()

    def account(self, limit: int = STDERR_LIMIT) -> str:
        """The program, how it ended if it has, and the last so many bytes of what it said."""
        if not self._children:
            return f"{self._path}: not started by us\n(what it writes is not known)"
        state = "stopped by a signal" if self.state == "stopped" else self.child.how()
        return f"{self.name}: {state}\n{self.stderr_text(limit) or '(it wrote nothing)'}"

    def close(self) -> None:
        """Kill it and whatever it started, and reap it. May be called again.

        :raises VirtioError: when it survives SIGKILL; the janitor keeps after it.
        """
        with contextlib.ExitStack() as steps:
            steps.callback(self._drain.close)
            steps.callback(self._forget_sockets)
            for child in self._children:
                steps.callback(child.kill)
            if self._family is not None:
                steps.callback(self._family.kill)

    def _spawn(self, how: HowToStart, listener: socket.socket | None) -> None:
        inherited = (listener.fileno(),) if listener is not None and how.meeting == "inherits" else ()
        line = how.build(self._directory, inherited[0] if inherited else self._path)
        if not self._children:
            self._make(line)
        self._family = Family() if how.may_stray else None
        child = Child(
            line.argv,
            self._drain,
            rank=BACKEND_RANK,
            pass_fds=inherited,
            environment=self._family.environment if self._family else None,
            keep_stdin=True,
            ended=self.note_end,
        )
        self._children.append(child)

    def _forget_sockets(self) -> None:
        for end in (self._first, self._listener):
            if end is not None:
                end.close()
        self._first = self._listener = None
