"""The janitor's own process: waits until pytest is gone, then ends what it left and removes its directories.

Run as a script in a session of its own, so that no signal to pytest's group reaches it. Reads registrations as lines
of JSON from standard input; its end, or the end of the pytest process, is the signal to sweep. Must stand alone:
it imports nothing of ours, for it starts beside every pytest run that boots a VM.
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

import psutil

BUFFER = 65536
SWEEP_SECONDS = 5.0
PAUSE_SECONDS = 0.05


def registrations(stdin: int, owner_pid: int) -> dict[str, dict[str, object]]:
    """Collect registrations until the pipe closes or the owner dies; what is still registered then is returned."""
    poller = select.poll()
    poller.register(stdin, select.POLLIN)
    with contextlib.suppress(OSError, AttributeError):
        # A process that pytest forked may hold the pipe open, so its end alone is not to be relied on.
        poller.register(os.pidfd_open(owner_pid), select.POLLIN)
    held: dict[str, dict[str, object]] = {}
    rest = b""
    while True:
        ready = [fd for fd, _ in poller.poll()]
        if stdin in ready:
            chunk = os.read(stdin, BUFFER)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                apply(held, json.loads(line))
            if not chunk:
                return held
        elif ready:
            return held


def apply(held: dict[str, dict[str, object]], message: dict[str, object]) -> None:
    """Take one registration in, or out when it has no ``adopt``."""
    key = str(message["key"])
    if message.get("adopt"):
        held[key] = message
        if "group" in message:
            message["started"] = started(int(str(message["group"])))
    else:
        held.pop(key, None)


def owned(token: str) -> list[psutil.Process]:
    """The living processes that carry our token: those spawned too late to be registered, and daemons that forked."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("PYTEST_VIRTIO_OWNER") == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def started(pid: int) -> float | None:
    """When the process started, which tells it from a later one with the same number; None if there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def kill_groups(held: dict[str, dict[str, object]]) -> None:
    """Kill the registered process groups, lowest rank (backends) first; only those whose leader is still the same."""
    groups = [m for m in held.values() if "group" in m]
    for message in sorted(groups, key=lambda m: int(str(m["rank"]))):
        group = int(str(message["group"]))
        if message["started"] is not None and started(group) == message["started"]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


def kill_stragglers(token: str) -> None:
    """Kill whatever carries the token until two looks in a row find nothing, within a bounded time."""
    end = time.monotonic() + SWEEP_SECONDS
    quiet = 0
    while quiet < 2 and time.monotonic() < end:
        processes = owned(token)
        quiet = 0 if processes else quiet + 1
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        # A child between fork and exec doesn't carry the token yet: look again.
        time.sleep(PAUSE_SECONDS)


def main(token: str, owner_pid: int) -> None:
    """Wait for the end of the owner, then sweep."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(name, signal.SIG_IGN)
    held = registrations(sys.stdin.fileno(), owner_pid)
    if held:
        kill_groups(held)
        kill_stragglers(token)
    for message in held.values():
        if "directory" in message:
            shutil.rmtree(str(message["directory"]), ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
