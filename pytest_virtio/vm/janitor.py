"""The janitor: a small process beside each pytest process that outlives it and cleans up after it.

PDEATHSIG would not do: it reaches the direct child only, fires when the spawning *thread* ends and removes no
directory. Responsible for starting the process (``_sweeper``) and for telling it what exists; must not know what the
processes and directories are for.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
from pathlib import Path

from pytest_virtio.errors import VirtioError
from pytest_virtio.vm import _sweeper

__all__ = (
    "OWNER_VARIABLE",
    "adopt_directory",
    "adopt_group",
    "close",
    "owner_token",
    "release_directory",
    "release_group",
)

OWNER_VARIABLE = "PYTEST_VIRTIO_OWNER"
"""Environment variable that marks a process as ours: children spawned too late to be registered are found by it."""

CLOSE_SECONDS = 10.0


class _Janitor:
    """The process and what is registered with it; one for each pytest process, replaced after a fork."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.token = secrets.token_hex(16)
        self.held: dict[str, dict[str, object]] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def tell(self, message: dict[str, object]) -> None:
        """Register or release, starting the process first, or again if somebody killed it."""
        key = str(message["key"])
        if message["adopt"]:
            self.held[key] = message
        else:
            self.held.pop(key, None)
        if self.process is None or self.process.poll() is not None:
            self._start()
            for held in self.held.values():
                self._write(held)
        elif not self._write(message):
            raise VirtioError("the janitor process ended while it was spoken to; what it guarded may be left behind")

    def _start(self) -> None:
        # -P: the script's own directory must not shadow the standard library.
        command = [sys.executable, "-P", _sweeper.__file__, self.token, str(self.pid)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, cwd="/"
        )

    def _write(self, message: dict[str, object]) -> bool:
        if self.process is None or self.process.stdin is None:
            return False
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def close(self) -> None:
        """Close the pipe, which is the signal to sweep what is left, and wait until that is done."""
        if self.process is None or self.process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


_lock = threading.Lock()
_current: _Janitor | None = None


def _janitor() -> _Janitor:
    global _current  # noqa: PLW0603 - one janitor a process is the point
    if _current is None or _current.pid != os.getpid():
        _current = _Janitor()
    return _current


def owner_token() -> str:
    """The value of :data:`OWNER_VARIABLE` for children of this process."""
    with _lock:
        return _janitor().token


def adopt_group(group: int, rank: int) -> None:
    """Have process group ``group`` killed if this process ends first; lower ranks go first (backends before QEMU).

    :raises VirtioError: when the janitor can't be told.
    """
    _tell({"key": f"group {group}", "adopt": True, "group": group, "rank": rank})


def release_group(group: int) -> None:
    """The group has ended and been reaped."""
    _tell({"key": f"group {group}", "adopt": False})


def adopt_directory(path: Path) -> None:
    """Have ``path`` removed with all that is in it if this process ends first."""
    _tell({"key": f"directory {path}", "adopt": True, "directory": str(path)})


def release_directory(path: Path) -> None:
    """The directory has been removed."""
    _tell({"key": f"directory {path}", "adopt": False})


def close() -> None:
    """End the janitor, unless it still guards something: then the end of this process is its signal."""
    with _lock:
        if _current is not None and _current.pid == os.getpid() and not _current.held:
            _current.close()


def _tell(message: dict[str, object]) -> None:
    with _lock:
        _janitor().tell(message)
