"""The drain: one thread a VM that owns its stderr, its consoles and the news of its end.

Responsible for emptying those descriptors also while nobody waits, for keeping them in bounded logs, and for waking
whoever waits for something in them; must not know what the bytes mean. Waits are on a condition: no polling.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Callable

from pytest_virtio.errors import VirtioError
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.log import Log

__all__ = ("Drain", "Stream")

CHUNK = 65536
STOP_SECONDS = 5.0


class Stream:
    """One drained descriptor: its log, whether it has ended, and, for a socket, the way to write to it."""

    def __init__(self, name: str, fd: int, peer: socket.socket | None = None) -> None:
        self.name, self.fd, self.peer = name, fd, peer
        self.log = Log()
        self.ended = False

    def close(self) -> None:
        """Close the descriptor; nothing more can come."""
        self.ended = True
        if self.peer is not None:
            self.peer.close()
        else:
            os.close(self.fd)


class Drain:
    """Owns descriptors until :meth:`close`; every wait takes a deadline."""

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._stop)
        self.changed = threading.Condition()
        self._stopping = self._closed = False
        self._streams: list[Stream] = []
        self._pidfds: set[int] = set()
        self._thread = threading.Thread(target=self._run, name=f"drain {name}", daemon=True)

    def start(self) -> None:
        """Start draining; descriptors may be added before and after."""
        self._thread.start()

    def add_pipe(self, name: str, fd: int) -> Stream:
        """Own the reading end of a pipe."""
        os.set_blocking(fd, False)
        return self._add(Stream(name, fd))

    def add_socket(self, name: str, peer: socket.socket) -> Stream:
        """Own our end of a socket pair; it may be written to by :meth:`write`."""
        peer.setblocking(False)
        return self._add(Stream(name, peer.fileno(), peer))

    def add_exit(self, pidfd: int, ended: Callable[[], None], told: Callable[[], None] = lambda: None) -> None:
        """Own a pidfd; ``ended`` is called once in the drain thread when the process has ended.

        :param told: called in the same thread when those who wait have been told of it; it may take its time.
        """

        def exited() -> None:
            self._selector.unregister(pidfd)
            self._pidfds.remove(pidfd)
            os.close(pidfd)
            with self.changed:
                ended()
                self.changed.notify_all()
            told()

        self._pidfds.add(pidfd)
        self._selector.register(pidfd, selectors.EVENT_READ, exited)

    def catch_up(self, stream: Stream) -> None:
        """Take what is in a pipe now; only for who is called in the drain thread."""
        self._read(stream)

    def write(self, stream: Stream, data: bytes, deadline: Deadline) -> int:
        """Write to a socket stream; how many bytes went before the deadline or the peer's end."""
        if stream.peer is None or stream.ended:
            return 0
        sent = 0
        with selectors.DefaultSelector() as writable:
            writable.register(stream.peer, selectors.EVENT_WRITE)
            while sent < len(data) and not stream.ended and writable.select(deadline.remaining()):
                try:
                    sent += stream.peer.send(data[sent:])
                except BlockingIOError:
                    continue
                except OSError:
                    break
        return sent

    def wait(self, predicate: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until ``predicate`` holds (evaluated after each change), the deadline, or :meth:`close`, after which
        nothing changes any more; whether it holds."""
        with self.changed:
            self.changed.wait_for(lambda: self._closed or predicate(), deadline.remaining())
            return predicate()

    def close(self) -> None:
        """Stop the thread, close what it owns and let go whoever waits. May be called again.

        :raises VirtioError: when the thread doesn't stop; then its descriptors stay open.
        """
        with self.changed:
            if self._closed:
                return
            self._closed = True
        os.write(self._wake_write, b"x")
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                raise VirtioError(f"{self._thread.name}: the thread did not stop within {STOP_SECONDS:g} s")
        with self.changed:
            self._close_descriptors()
            self.changed.notify_all()

    def _close_descriptors(self) -> None:
        self._selector.close()
        for stream in self._streams:
            stream.close()
        for fd in (*self._pidfds, self._wake_read, self._wake_write):
            os.close(fd)

    def _add(self, stream: Stream) -> Stream:
        self._streams.append(stream)
        self._selector.register(stream.fd, selectors.EVENT_READ, lambda: self._read(stream))
        return stream

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                key.data()

    def _stop(self) -> None:
        self._stopping = True

    def _read(self, stream: Stream) -> None:
        if stream.ended:
            # Somebody has caught up with it since it was selected.
            return
        try:
            data = os.read(stream.fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        with self.changed:
            stream.log.append(data)
            stream.ended = not data
            self.changed.notify_all()
        if not data:
            self._selector.unregister(stream.fd)
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        """Close a pipe at its end: processes come and go while the drain stays. A socket may be in a writer's hands."""
        if stream.peer is None:
            self._streams.remove(stream)
            stream.close()
