"""The janitor's own process: waits until pytest is gone, then ends what it left and removes its directories.

Run as a script in a session of its own, so that no signal to pytest's group reaches it. Reads registrations as lines
of JSON from standard input; its end, or the end of the pytest process, is the signal to sweep. Must stand alone:
it imports nothing of ours, for it starts beside every pytest run that boots a VM. Nothing that it reads or meets may
stop the sweep: nobody comes after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field

import psutil

OWNER_VARIABLE = "PYTEST_VIRTIO_OWNER"
"""Environment variable that marks a process as ours: children spawned too late to be registered are found by it."""

BUFFER = 65536
SWEEP_SECONDS = 5.0
PAUSE_SECONDS = 0.05


@dataclass
class Charge:
    """What is registered, and whether the owner has said good-bye."""

    groups: dict[int, tuple[int, float | None]] = field(default_factory=dict)
    """Rank and start time of each process group's leader."""
    directories: set[str] = field(default_factory=set)
    farewell: bool = False

    def take(self, line: bytes) -> None:
        """Take one registration in, or out when it has no ``adopt``; a line that is none is skipped."""
        try:
            message = json.loads(line)
            if "directory" in message:
                self._take_directory(str(message["directory"]), bool(message.get("adopt")))
            elif "group" in message:
                self._take_group(int(message["group"]), int(message.get("rank", 0)), bool(message.get("adopt")))
            else:
                self.farewell = self.farewell or bool(message.get("farewell"))
        except (ValueError, TypeError, AttributeError):
            # Half a line, or not ours.
            return

    def _take_directory(self, path: str, adopt: bool) -> None:
        if adopt:
            self.directories.add(path)
        else:
            self.directories.discard(path)

    def _take_group(self, group: int, rank: int, adopt: bool) -> None:
        # 0 is our own group, and 1 everybody's.
        if adopt and group > 1:
            self.groups[group] = (rank, started(group))
        else:
            self.groups.pop(group, None)


def read_charge(stdin: int, owner_pid: int) -> Charge:
    """Collect registrations until the owner says good-bye, closes the pipe or dies."""
    patience, owner = None, -1
    with contextlib.suppress(ProcessLookupError):
        # A process that pytest forked may hold the pipe open, so its end alone is not to be relied on.
        owner = os.pidfd_open(owner_pid)
    if owner < 0:
        # Gone already: only what it wrote is left to read.
        patience = 0
    try:
        return _read_until(stdin, owner, patience)
    finally:
        if owner >= 0:
            os.close(owner)


def _read_until(stdin: int, owner: int, patience: int | None) -> Charge:
    poller = select.poll()
    for fd in (stdin, owner):
        if fd >= 0:
            poller.register(fd, select.POLLIN)
    charge, rest = Charge(), b""
    while not charge.farewell and stdin in [fd for fd, _ in poller.poll(patience)]:
        chunk = os.read(stdin, BUFFER)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            charge.take(line)
        if not chunk:
            break
    return charge


def started(pid: int) -> float | None:
    """When the process started, which tells it from a later one with the same number; None if there is none."""
    try:
        return psutil.Process(pid).create_time()
    except (psutil.Error, OSError, ValueError):
        return None


def kill_groups(groups: dict[int, tuple[int, float | None]]) -> None:
    """Kill the process groups, lowest rank (backends) first; only those whose leader is still the same."""
    for group, (_, start) in sorted(groups.items(), key=lambda item: item[1][0]):
        if start is not None and started(group) == start:
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)


def owned(token: str, variable: str = OWNER_VARIABLE) -> list[psutil.Process]:
    """The living processes that carry our token: those spawned too late to be registered, and daemons that forked."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(variable) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_stragglers(token: str, looks: int, variable: str = OWNER_VARIABLE) -> None:
    """Kill whatever carries the token until ``looks`` looks in a row find nothing, within a bounded time."""
    end = time.monotonic() + SWEEP_SECONDS
    quiet = 0
    while time.monotonic() < end:
        processes = owned(token, variable)
        quiet = 0 if processes else quiet + 1
        if quiet >= looks:
            return
        for process in processes:
            with contextlib.suppress(psutil.Error, OSError):
                process.kill()
        time.sleep(PAUSE_SECONDS)


def remove(directories: set[str]) -> None:
    """Remove the directories; once more if something that was just dying still wrote there."""
    for _ in range(3):
        for path in directories:
            shutil.rmtree(path, ignore_errors=True)
        if not any(os.path.lexists(path) for path in directories):
            return
        time.sleep(PAUSE_SECONDS)


def main(token: str, owner_pid: int) -> None:
    """Wait for the end of the owner, then sweep."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(name, signal.SIG_IGN)
    charge = read_charge(sys.stdin.fileno(), owner_pid)
    try:
        kill_groups(charge.groups)
        # A child between fork and exec doesn't carry the token yet, so after a sudden end one look is not enough.
        kill_stragglers(token, looks=1 if charge.farewell else 3)
    finally:
        remove(charge.directories)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
