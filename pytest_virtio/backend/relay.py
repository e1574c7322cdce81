"""A path that QEMU connects to, again and again, for backends that come and go.

Responsible for accepting QEMU there and for joining it with a connection to the backend; must not know what they say to
each other. Who comes while no backend answers is sent away, for QEMU would wait for an answer and do nothing else.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from pytest_virtio.backend import sockets
from pytest_virtio.backend.wire import Witness
from pytest_virtio.vm.deadline import Deadline

__all__ = ("Relay",)

MEET_SECONDS = 5.0


class Relay:
    """Joins QEMU and a backend.

    :param path: where QEMU connects.
    :param meet: gives a connection to the backend, or raises OSError.
    :param once: whether QEMU connects once. A network backend that loses its connection while QEMU starts connects
        again without end, unless nobody listens there any more (seen on 7.2 to 11.1).
    """

    def __init__(
        self, witness: Witness, path: Path, meet: Callable[[Deadline], socket.socket], *, once: bool = False
    ) -> None:
        self.path, self._witness, self._meet, self._once = path, witness, meet, once
        self._changed = threading.Condition()
        self._meeting = threading.Lock()
        self._serves = False
        self._next: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="pytest-virtio relay", daemon=True)
        self.joined = 0
        """How often they were joined."""

    def open(self, backend: socket.socket) -> None:
        """Serve QEMU from now on, first with this connection."""
        with self._meeting:
            self._next, self._serves = backend, True
        if self._listener is None:
            self._listener = sockets.listen(self.path)
            self._thread.start()

    def pause(self) -> None:
        """Send QEMU away until :meth:`open`."""
        with self._meeting:
            self._serves = False
            self._drop_next()

    def await_join(self, before: int, deadline: Deadline) -> bool:
        """Wait until they were joined more than ``before`` times; whether they were in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.joined > before, deadline.remaining())

    def close(self) -> None:
        """Serve nobody any more. May be called again."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            self._listener.close()
        self._drop_next()

    def _run(self) -> None:
        while (qemu := self._accepted()) is not None:
            with self._meeting:
                backend = self._met() if self._serves else None
            if backend is None:
                qemu.close()
                continue
            if self._once:
                self.path.unlink()
            self._witness.join(qemu, backend)
            with self._changed:
                self.joined += 1
                self._changed.notify_all()
            if self._once:
                return

    def _accepted(self) -> socket.socket | None:
        """Who comes next; None when nobody will any more."""
        if self._listener is None:
            return None
        try:
            return self._listener.accept()[0]
        except OSError:
            return None

    def _met(self) -> socket.socket | None:
        """A connection to the backend; None where there is none."""
        taken, self._next = self._next, None
        if taken is not None:
            return taken
        try:
            return self._meet(Deadline.after(MEET_SECONDS))
        except OSError:
            return None

    def _drop_next(self) -> None:
        if self._next is not None:
            self._next.close()
            self._next = None
