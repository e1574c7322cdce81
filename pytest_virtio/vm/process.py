"""A child process with an owner: a process group of its own, known to the janitor, its end noticed at once.

Responsible for spawning, signalling and reaping; must not know which program it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import psutil

from pytest_virtio.errors import MissingError, VirtioError
from pytest_virtio.vm import janitor
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain, Stream
from pytest_virtio.vm.interrupts import uninterrupted

__all__ = ("BACKEND_RANK", "QEMU_RANK", "Child", "how_it_ended")

BACKEND_RANK = 0
"""Backends are ended first: a stopped backend makes QEMU ignore SIGTERM and ``quit``."""
QEMU_RANK = 1

KILL_SECONDS = 10.0
STDERR_SECONDS = 2.0
BUSY_SECONDS = 2.0
BUSY_PAUSE_SECONDS = 0.01

_MISSING = {
    errno.ENOENT: "no such program",
    errno.ENOTDIR: "no such program",
    errno.EACCES: "not executable by this user",
    errno.ENOEXEC: "can't be executed: Exec format error",
}


class Child:
    """A running program in a process group of its own. What it writes goes to the drain."""

    def __init__(
        self,
        argv: Sequence[str],
        drain: Drain,
        *,
        rank: int,
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        keep_stdin: bool = False,
        ended: Callable[[Child], None] = lambda child: None,
    ) -> None:
        """Spawn ``argv``.

        :param keep_stdin: whether its stdin stays open, for some programs leave at its end; else it is empty.
        :param ended: called in the drain thread when it has ended and what it wrote has been read.
        :raises MissingError: when the program is absent or is none that this user can execute.
        :raises VirtioError: when it can't be started for want of something else (memory, a file that is being written);
            or when the janitor can't be told of it: then it has been ended again.
        """
        self.argv = tuple(argv)
        self.drain = drain
        self.returncode: int | None = None
        self.killed = False
        """Whether it was us who ended it."""
        self.end_told = threading.Event()
        """Set when ``ended`` has come back."""
        self._ended = ended
        self._reaped = False
        with uninterrupted():
            self._popen, read_end = _spawn(self.argv, pass_fds, environment or {}, keep_stdin)
            self.pid = self._popen.pid
            try:
                janitor.adopt_group(self.pid, rank)
                pidfd = os.pidfd_open(self.pid)
            except BaseException:
                os.close(read_end)
                self._discard()
                raise
            self.stderr: Stream = drain.add_pipe("stderr", read_end)
            drain.add_exit(pidfd, self._note_end, self._tell_end)

    @property
    def stopped(self) -> bool:
        """Whether the process stands still, by a signal (SIGSTOP, SIGTSTP) or under a debugger."""
        try:
            return psutil.Process(self.pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        except psutil.Error:
            return False

    @property
    def running(self) -> bool:
        """Whether the process has not been seen to end."""
        return self.returncode is None

    @property
    def crashed(self) -> bool:
        """Whether a signal has ended it."""
        return self.returncode is not None and self.returncode < 0

    def wait(self, deadline: Deadline) -> bool:
        """Wait for the end and for all that was written to stderr; whether it ended in time."""
        if not self.drain.wait(lambda: self.returncode is not None, deadline):
            return False
        # A grandchild may hold the pipe open for ever; what it has to say is not waited for.
        self.drain.wait(lambda: self.stderr.ended, Deadline.after(STDERR_SECONDS))
        return True

    def kill(self) -> None:
        """Kill the whole group and reap the process. May be called again.

        :raises VirtioError: when it doesn't end: it then hangs in the kernel.
        """
        if self._reaped:
            return
        self.killed = self.killed or self.running
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if not self.wait(Deadline.after(KILL_SECONDS)):
            raise VirtioError(f"process {self.pid} ({self.argv[0]}) survived SIGKILL for {KILL_SECONDS:g} s")
        self._reap()

    def how(self) -> str:
        """How it ended, in words; ``"running"`` if it hasn't."""
        return how_it_ended(self.returncode)

    def _note_end(self) -> None:
        # WNOWAIT leaves the zombie where it is: until kill() has used it, the number of the process, which is its
        # group's too, can't become a stranger's.
        try:
            end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            end = None
        if end is None:
            # Somebody else in this process has reaped it, and knows how it ended; Popen takes 0 then.
            self.returncode = self._popen.wait()
        else:
            self.returncode = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status

    def _tell_end(self) -> None:
        try:
            self.drain.catch_up(self.stderr)
            self._ended(self)
        finally:
            self.end_told.set()

    def _reap(self) -> None:
        self._reaped = True
        self._popen.wait(KILL_SECONDS)
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        janitor.release_group(self.pid)

    def _discard(self) -> None:
        """End what was just spawned and can't be looked after."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(VirtioError):
            self._reap()


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
    argv: tuple[str, ...], pass_fds: Sequence[int], environment: Mapping[str, str], keep_stdin: bool
) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and the reading end of the pipe that takes its output."""
    read_end, write_end = os.pipe()
    try:
        return _popen(argv, write_end, pass_fds, environment, keep_stdin), read_end
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)


def _popen(
    argv: tuple[str, ...], output: int, pass_fds: Sequence[int], environment: Mapping[str, str], keep_stdin: bool
) -> subprocess.Popen[bytes]:
    owner = {janitor.OWNER_VARIABLE: janitor.owner_token()}
    deadline = Deadline.after(BUSY_SECONDS)
    while True:
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if keep_stdin else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=pass_fds,
                start_new_session=True,
                env={**os.environ, **environment, **owner},
            )
        except OSError as error:
            # A file that was just written, and that a child of somebody else's holds open until it executes its own.
            if error.errno != errno.ETXTBSY or deadline.passed():
                raise _not_started(argv[0], error) from error
            time.sleep(BUSY_PAUSE_SECONDS)


def _not_started(program: str, error: OSError) -> VirtioError:
    """Missing is only what another program in its place would mend: of the rest no test may be skipped."""
    missing = _MISSING.get(error.errno or 0)
    if missing is None:
        return VirtioError(f"{program}: can't be started: {error.strerror or error}")
    return MissingError(f"{program}: {missing}")
