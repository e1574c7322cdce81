"""The janitor: a small process beside each pytest process that outlives it and cleans up after it.

PDEATHSIG would not do: it reaches the direct child only, fires when the spawning *thread* ends and removes no
directory. Responsible for starting the process (``_sweeper``) and for telling it what exists; must not know what the
processes and directories are for.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
import threading
from pathlib import Path

from pytest_virtio.errors import VirtioError
from pytest_virtio.vm import _sweeper
from pytest_virtio.vm._sweeper import OWNER_VARIABLE

__all__ = (
    "OWNER_VARIABLE",
    "adopt_directory",
    "adopt_group",
    "close",
    "owner_token",
    "release_directory",
    "release_group",
)

CLOSE_SECONDS = 10.0
TELL_SECONDS = 5.0

Message = dict[str, object]


class _Janitor:
    """The process and what is registered with it; one for each pytest process."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)
        self.held: dict[object, Message] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def hold(self, key: object, message: Message) -> None:
        """Register."""
        self.held[key] = message
        self._tell(message)

    def release(self, key: object, message: Message) -> None:
        """Take a registration back; nothing is said about what was not registered."""
        if self.held.pop(key, None) is not None:
            self._tell(message)

    def ensure(self) -> None:
        """Start the process if there is none, or anew if somebody killed it."""
        if self.process is None or self.process.poll() is not None:
            self._forget_process()
            # -P: the script's own directory must not shadow the standard library.
            command = [sys.executable, "-P", _sweeper.__file__, self.token, str(os.getpid())]
            # Unbuffered: what a killed janitor did not take must not come up again later.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                bufsize=0,
            )
            for held in self.held.values():
                self._write(held)

    def close(self) -> None:
        """Say good-bye, and wait until the process has looked around and ended."""
        if self.process is None:
            return
        # The pipe's end alone would not do: a process that was forked off pytest may hold it open.
        self._write({"farewell": True})
        self._await_end()

    def abandon(self) -> None:
        """Close the pipe, which is the signal to sweep what is left, and wait until that is done."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self._await_end()

    def _await_end(self) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._forget_process()

    def _tell(self, message: Message) -> None:
        self.ensure()
        if self._write(message):
            return
        # It ended between the look and the word.
        self._restart()
        if not self._write(message):
            raise VirtioError("the janitor process can't be spoken to; what it guards could be left behind")

    def _restart(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.ensure()

    def _write(self, message: Message) -> bool:
        """Whether the message went into the pipe: not if the process is gone, or stopped with the pipe full."""
        if self.process is None or self.process.stdin is None:
            return False
        pipe = self.process.stdin.fileno()
        writable = select.poll()
        writable.register(pipe, select.POLLOUT)
        if not writable.poll(TELL_SECONDS * 1000):
            return False
        try:
            os.write(pipe, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            return False
        return True

    def _forget_process(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        self.process = None


_lock = threading.Lock()
_current: _Janitor | None = None
_of_parents: list[_Janitor] = []
"""Kept after a fork, so that no destructor touches the processes of the parent."""


def _janitor() -> _Janitor:
    global _current  # noqa: PLW0603 - one janitor a process is the point
    if _current is None:
        _current = _Janitor()
    return _current


def _after_fork() -> None:
    """The parent's janitor guards the parent's things; and another thread of it may have held the lock."""
    global _current, _lock  # noqa: PLW0603
    _lock = threading.Lock()
    if _current is not None:
        _of_parents.append(_current)
    _current = None


def _at_exit() -> None:
    """Have swept what is still held, while this process can wait for it: nobody has closed it, or Ctrl-C came."""
    if _current is not None:
        _current.abandon()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


def owner_token() -> str:
    """The value of :data:`OWNER_VARIABLE` for children of this process; a janitor that looks for it runs from now."""
    with _lock:
        _janitor().ensure()
        return _janitor().token


def adopt_group(group: int, rank: int) -> None:
    """Have process group ``group`` killed if this process ends first; lower ranks go first (backends before QEMU).

    :raises VirtioError: when the janitor can't be told.
    """
    with _lock:
        _janitor().hold(group, {"adopt": True, "group": group, "rank": rank})


def release_group(group: int) -> None:
    """The group has ended and been reaped."""
    with _lock:
        _janitor().release(group, {"group": group})


def adopt_directory(path: Path) -> None:
    """Have ``path`` removed with all that is in it if this process ends first.

    :raises VirtioError: when the janitor can't be told.
    """
    with _lock:
        _janitor().hold(path, {"adopt": True, "directory": str(path)})


def release_directory(path: Path) -> None:
    """The directory has been removed."""
    with _lock:
        _janitor().release(path, {"directory": str(path)})


def close() -> None:
    """End the janitor, unless it still guards something: then the end of this process is its signal."""
    with _lock:
        if _current is not None and not _current.held:
            _current.close()
