"""A vhost-user daemon of the VM's own: started before QEMU, connected to, asked, ended before QEMU.

Responsible for its process, its socket and what it says to stderr; must not know which program it is, nor how its
command line is written.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pytest_virtio.backend.vhost_user import ask_features
from pytest_virtio.errors import BackendError, ReplyError
from pytest_virtio.render import escape
from pytest_virtio.vm.cmdline import CommandLine
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain
from pytest_virtio.vm.interrupts import uninterrupted
from pytest_virtio.vm.process import BACKEND_RANK, Child

__all__ = ("Daemon", "Service")

STDERR_LIMIT = 16 * 1024
GONE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Service:
    """A daemon to be started.

    :param id: the device that it serves.
    :param build: gives its command line for a private directory and a socket: the descriptor of one that listens
        already, or the path of one that it makes.
    """

    id: str
    build: Callable[[Path, int | Path], CommandLine]


class Daemon:
    """A running daemon and our connection to it, which becomes QEMU's."""

    def __init__(self, id: str, child: Child, connection: socket.socket) -> None:
        self.id, self.child = id, child
        self.features = 0
        """What it offers, as bits; known once :meth:`await_answer` has come back."""
        self._connection = connection
        self._owner = os.getpid()

    @classmethod
    def start(cls, service: Service, directory: Path, make: Callable[[CommandLine], None]) -> Daemon:
        """Start it and connect to it; it need not be up yet: the connection waits with the socket that we made.

        Some daemons leave after their first client, so this connection is the only one.

        :param directory: the VM's private one.
        :param make: makes the files that the command line names.
        :raises MissingError: when the program can't be run.
        """
        with uninterrupted(), contextlib.ExitStack() as undo, contextlib.ExitStack() as theirs:
            drain = Drain(service.id)
            undo.callback(drain.close)
            listener, connection = _connected(directory)
            undo.callback(connection.close)
            theirs.callback(listener.close)
            line = service.build(directory, listener.fileno())
            make(line)
            drain.start()
            child = Child(line.argv, drain, rank=BACKEND_RANK, pass_fds=(listener.fileno(),))
            undo.pop_all()
            return cls(service.id, child, connection)

    @property
    def program(self) -> str:
        """The program's name: ``qemu-storage-daemon``."""
        return Path(self.child.argv[0]).name

    @property
    def connection(self) -> int:
        """The descriptor of the connection, for QEMU to inherit."""
        return self._connection.fileno()

    def await_answer(self, deadline: Deadline) -> None:
        """Wait until it has told its features: then it is ready.

        :raises BackendError: when it ends, hangs up, says nothing or something else.
        """
        try:
            self.features = ask_features(self._connection, deadline)
        except TimeoutError:
            raise self._error(f"{self.program} did not answer within {deadline.seconds:g} s") from None
        except ReplyError as error:
            raise self._error(f"{self.program} does not speak vhost-user: {error}") from None
        except ConnectionError:
            gone = self.child.wait(Deadline.after(GONE_SECONDS))
            what = f"ended ({self.child.how()})" if gone else "hung up"
            raise self._error(f"{self.program} {what} before it answered") from None

    def hand_over(self) -> None:
        """QEMU has inherited the connection: forget ours, so that the daemon sees when QEMU's ends."""
        self._connection.close()

    def stderr_text(self) -> str:
        """What it wrote to stdout and stderr, bounded and safe to print."""
        return escape(self.child.stderr.log.text(), STDERR_LIMIT).strip()

    def account(self) -> str:
        """The program, how it ended if it has, and what it said."""
        state = "stopped by a signal" if self.child.running and self.child.stopped else self.child.how()
        return f"{self.program}: {state}\n{self.stderr_text() or '(it wrote nothing)'}"

    def close(self) -> None:
        """Kill it and whatever it started, and reap it. May be called again; in a forked process it does nothing.

        :raises VirtioError: when it survives SIGKILL; the janitor keeps after it.
        """
        if self._owner != os.getpid():
            return
        with uninterrupted(), contextlib.ExitStack() as steps:
            steps.callback(self.child.drain.close)
            steps.callback(self._connection.close)
            self.child.kill()

    def _error(self, what: str) -> BackendError:
        return BackendError(self.id, what, self.stderr_text(), shlex.join(self.child.argv))


def _connected(directory: Path) -> tuple[socket.socket, socket.socket]:
    """A socket that listens, and a connection to it. Its path is needed only to connect, and gone by then.

    The daemon has nothing to bind, so nobody waits for a path to come up. The directory is reached through its
    descriptor: an address holds 107 bytes only (unix(7)), and a temporary directory's path may be longer.
    """
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    path = f"/proc/self/fd/{place}/vhost-user"
    listener, connection = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        listener.listen(1)
        connection.connect(path)
    except BaseException:
        listener.close()
        connection.close()
        raise
    finally:
        (directory / "vhost-user").unlink(missing_ok=True)
        os.close(place)
    return listener, connection
