"""UNIX sockets below a private directory, and ways to wait for a peer on one.

Responsible for addresses, which hold 107 bytes only (unix(7)) while a temporary directory's path may be longer, and for
deadlines; must not know who is at the other end.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_virtio.vm.deadline import Deadline

__all__ = ("accept", "connect", "connect_when_there", "listen")

RETRY_SECONDS = 0.002
"""There is no event for somebody else's listen(2)."""


def listen(path: Path) -> socket.socket:
    """A socket that listens at a path.

    :raises OSError: when it can't.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _address(path) as address:
            listener.bind(address)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(path: Path) -> socket.socket:
    """A connection to the socket at a path.

    :raises BlockingIOError: when so many wait to be accepted there that there is no room.
    :raises OSError: when nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setblocking(False)
        with _address(path) as address:
            connection.connect(address)
        connection.setblocking(True)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_when_there(path: Path, lives: Callable[[], bool], deadline: Deadline) -> socket.socket:
    """Likewise, as soon as somebody listens there.

    :param lives: whether somebody may still come to listen.
    :raises TimeoutError: when nobody does in time, or has no room for us.
    :raises ConnectionError: when nobody will.
    :raises OSError: when the path is no socket.
    """
    while True:
        lived = lives()
        try:
            return connect(path)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError) as error:
            if not lived:
                raise ConnectionRefusedError(f"nobody listens at {path}") from error
            if deadline.passed():
                what = "too many wait to be accepted" if isinstance(error, BlockingIOError) else "nobody listens"
                raise TimeoutError(f"{what} at {path}") from error
        time.sleep(RETRY_SECONDS)


def accept(listener: socket.socket, process: int, deadline: Deadline) -> socket.socket:
    """Wait for somebody to connect.

    :param process: who is to do so.
    :raises TimeoutError: when he doesn't in time.
    :raises ConnectionError: when he has ended.
    """
    pidfd, poll = os.pidfd_open(process), select.poll()
    try:
        for end in (listener.fileno(), pidfd):
            poll.register(end, select.POLLIN)
        ready = dict(poll.poll(deadline.remaining() * 1e3))
    finally:
        os.close(pidfd)
    if listener.fileno() in ready:
        return listener.accept()[0]
    if ready:
        raise ConnectionRefusedError("it ended before it connected")
    raise TimeoutError("it did not connect")


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """A short address of a path: its directory is reached through a descriptor."""
    place = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{place}/{path.name}"
    finally:
        os.close(place)
