"""A child process with an owner: a process group of its own, known to the janitor, its end noticed at once.

Responsible for spawning, signalling and reaping; must not know which program it is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from pytest_virtio.errors import MissingError, VirtioError
from pytest_virtio.vm import janitor
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain, Stream

__all__ = ("BACKEND_RANK", "QEMU_RANK", "Child", "how_it_ended")

BACKEND_RANK = 0
"""Backends are ended first: a stopped backend makes QEMU ignore SIGTERM and ``quit``."""
QEMU_RANK = 1

KILL_SECONDS = 10.0
STDERR_SECONDS = 2.0


class Child:
    """A running program in a process group of its own. Its stderr goes to the drain; its stdin is empty."""

    def __init__(
        self,
        argv: Sequence[str],
        drain: Drain,
        *,
        rank: int,
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Spawn ``argv``.

        :raises MissingError: when the program is absent or can't be executed.
        """
        self.argv = tuple(argv)
        self.drain = drain
        self.returncode: int | None = None
        read_end, write_end = os.pipe()
        try:
            self._popen = _spawn(self.argv, write_end, pass_fds, environment or {})
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self.pid = self._popen.pid
        janitor.adopt_group(self.pid, rank)
        self.stderr: Stream = drain.add_pipe("stderr", read_end)
        drain.add_exit(os.pidfd_open(self.pid), self._reap)

    @property
    def running(self) -> bool:
        """Whether the process has not been seen to end."""
        return self.returncode is None

    def wait(self, deadline: Deadline) -> bool:
        """Wait for the end and for all that was written to stderr; whether it ended in time."""
        if not self.drain.wait(lambda: self.returncode is not None, deadline):
            return False
        # A grandchild may hold the pipe open for ever; what it has to say is not waited for.
        self.drain.wait(lambda: self.stderr.ended, Deadline.after(STDERR_SECONDS))
        return True

    def kill(self) -> None:
        """Kill the whole group and reap it.

        :raises VirtioError: when it doesn't end: it then hangs in the kernel.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if not self.wait(Deadline.after(KILL_SECONDS)):
            raise VirtioError(f"process {self.pid} ({self.argv[0]}) survived SIGKILL for {KILL_SECONDS:g} s")
        janitor.release_group(self.pid)

    def how(self) -> str:
        """How it ended, in words; ``"running"`` if it hasn't."""
        return how_it_ended(self.returncode)

    def _reap(self) -> None:
        self.returncode = self._popen.wait()


def how_it_ended(returncode: int | None) -> str:
    """``"exit code 1"``, ``"killed by SIGABRT"``, ``"running"``."""
    if returncode is None:
        return "running"
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def _spawn(
    argv: tuple[str, ...],
    stderr: int,
    pass_fds: Sequence[int],
    environment: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
            env={**os.environ, **environment, janitor.OWNER_VARIABLE: janitor.owner_token()},
        )
    except FileNotFoundError as error:
        raise MissingError(f"{argv[0]}: no such program") from error
    except PermissionError as error:
        raise MissingError(f"{argv[0]}: not executable by this user") from error
    except OSError as error:
        raise MissingError(f"{argv[0]}: can't be executed: {error.strerror}") from error
