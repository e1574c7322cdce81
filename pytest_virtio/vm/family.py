"""A child process and whatever it starts, in sessions of their own too: found by a variable in their environment.

Responsible for signalling them all; must not know what they are. Each look is at all processes of the machine, some
milliseconds. A process that was started with another environment is none of the family.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import time
from collections.abc import Callable, Mapping

import psutil

from pytest_virtio.vm._sweeper import kill_stragglers, owned
from pytest_virtio.vm.deadline import Deadline

__all__ = ("Family",)

VARIABLE = "PYTEST_VIRTIO_FAMILY"
LOOK_SECONDS = 0.001
STOPPED = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP})


class Family:
    """The processes of one start."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(16)

    @property
    def environment(self) -> Mapping[str, str]:
        """What the first of them is to be started with."""
        return {VARIABLE: self._token}

    def kill(self) -> None:
        """Kill them, those too that they start meanwhile, within a bounded time."""
        kill_stragglers(self._token, looks=1, variable=VARIABLE)

    def stop(self, deadline: Deadline) -> bool:
        """Have them stand still, by SIGSTOP; whether all did in time."""
        return self._bring(signal.SIGSTOP, lambda status: status in STOPPED, deadline)

    def cont(self, deadline: Deadline) -> bool:
        """Let them go on, by SIGCONT; whether all did in time."""
        return self._bring(signal.SIGCONT, lambda status: status not in STOPPED, deadline)

    def _bring(self, number: signal.Signals, stands: Callable[[str], bool], deadline: Deadline) -> bool:
        """Signal those that don't stand so until a look finds none: one that was missed may start others."""
        while astray := [process for process in owned(self._token, VARIABLE) if not _stands(process, stands)]:
            if deadline.passed():
                return False
            for process in astray:
                with contextlib.suppress(psutil.Error, OSError):
                    process.send_signal(number)
            time.sleep(LOOK_SECONDS)
        return True


def _stands(process: psutil.Process, stands: Callable[[str], bool]) -> bool:
    try:
        return stands(process.status())
    except psutil.Error:
        # It has ended meanwhile.
        return True
