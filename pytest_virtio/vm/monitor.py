"""The QMP conversation with one QEMU, with a synchronous face and a deadline on every command.

Responsible for the session over an already connected socket, by way of qemu.qmp in one event loop thread for all
monitors of this process; must not know what the commands mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar

from qemu.qmp import ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError, StateError

from pytest_virtio.errors import (
    CommandError,
    MonitorClosedError,
    MonitorError,
    MonitorTimeoutError,
    UsageError,
    VirtioError,
)
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.transcript import Transcript

__all__ = ("COMMAND_SECONDS", "Command", "Execute", "Monitor", "Qmp")

P = ParamSpec("P")
T = TypeVar("T")

COMMAND_SECONDS = 10.0
"""How long a command may take unless told otherwise. Introspection takes about 1 ms."""
CLOSE_SECONDS = 2.0
STUCK_SECONDS = 2.0
"""How long after a deadline the event loop may be late before it is taken to be stuck."""

# A late answer to a command that timed out is expected, and not worth a line in the user's log. A logger outside the
# hierarchy: to those inside pytest's capture adds its handler even if they don't propagate (seen on 9.2).
_logger = logging.Logger("pytest_virtio.qmp")
_logger.disabled = True


class Execute(Protocol):
    """Executes a QMP command and gives its ``return`` member."""

    def __call__(self, command: str, arguments: Mapping[str, object] | None = None, timeout: float = ..., /) -> object:
        """Execute it; ``timeout`` in seconds."""


Command = tuple[str, Mapping[str, object] | None]
"""A QMP command and its arguments."""


class Qmp(Protocol):
    """Where QMP commands are executed, one by one or many at once."""

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, timeout: float = ..., /) -> object:
        """Execute a command and give its ``return`` member; ``timeout`` in seconds."""

    def execute_all(self, commands: Sequence[Command], timeout: float, /) -> list[object | VirtioError]:
        """Execute commands without waiting for one's answer to send the next; an answer or an error for each."""


class _Loop:
    """The event loop thread of this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="qmp", daemon=True).start()

    def run(self, seconds: float, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kw: P.kwargs) -> T:
        """Run a coroutine function in the loop and wait for its result.

        :raises TimeoutError: after ``seconds``; the coroutine has been cancelled and has cleaned up after itself,
            unless the loop itself is stuck.
        """
        future = asyncio.run_coroutine_threadsafe(_within(seconds, function, *args, **kw), self.loop)
        try:
            return future.result(seconds + STUCK_SECONDS)
        except BaseException:
            future.cancel()
            raise


async def _within(seconds: float, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kw: P.kwargs) -> T:
    # The limit is kept in the loop: cancelled from outside, connect() would still be cleaning up while close() runs.
    async with asyncio.timeout(seconds):
        return await function(*args, **kw)


_lock = threading.Lock()
_current: _Loop | None = None
_of_parents: list[_Loop] = []
"""Kept after a fork: their destructors would touch the epoll set that is shared with the parent."""


def _loop() -> _Loop:
    global _current  # noqa: PLW0603 - one loop thread a process is the point
    with _lock:
        if _current is None:
            _current = _Loop()
        return _current


def _after_fork() -> None:
    """Only the thread that forked lives on in the child: there is no loop, and the lock may be held by nobody."""
    global _current, _lock  # noqa: PLW0603
    _lock = threading.Lock()
    if _current is not None:
        _of_parents.append(_current)
    _current = None


os.register_at_fork(after_in_child=_after_fork)


class _Client(QMPClient):
    """qemu.qmp formats every message for its debug log, also when nobody reads that: a quarter of a round trip. Ours
    keeps the bytes, which the message has at hand."""

    def __init__(self, transcript: Transcript) -> None:
        super().__init__("pytest-virtio")
        self.logger = _logger
        self._transcript = transcript

    def _cb_outbound(self, msg: Message) -> Message:
        self._transcript.add("plugin", bytes(msg))
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        self._transcript.add("QEMU", bytes(msg))
        return msg


class Monitor:
    """A QMP session. It is not usable before :meth:`connect` nor after :meth:`close`."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self.transcript = Transcript()
        """What was said, and when."""
        self._client = _Client(self.transcript)
        self._loop = _loop()

    def connect(self, deadline: Deadline) -> None:
        """Take the greeting and leave the negotiation mode.

        :raises MonitorTimeoutError: when no greeting comes: a vhost-user backend that says nothing does that.
        :raises MonitorClosedError: when QEMU hangs up instead.
        """
        try:
            self._loop.run(deadline.remaining(), self._client.connect, self._peer)
        except TimeoutError:
            raise self._timed_out("the QMP greeting", deadline.seconds) from None
        except (QMPError, EOFError, OSError) as error:
            raise MonitorClosedError("the QMP greeting", str(error)) from error

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, timeout: float = COMMAND_SECONDS
    ) -> object:
        """Execute a QMP command and give its ``return`` member.

        :param timeout: seconds.
        :raises CommandError: when QEMU answers with an error.
        :raises MonitorTimeoutError: when it doesn't answer in time; the session stays usable.
        :raises MonitorClosedError: when the session has ended.
        :raises MonitorError: when the answer is no QMP.
        :raises UsageError: for arguments that JSON can't say, and for an impossible timeout.
        """
        self._refuse_forked(command)
        answer = self._answered(command, _message(command, arguments), Deadline.after(timeout))
        if isinstance(answer, MonitorError):
            raise answer
        return answer

    def execute_all(self, commands: Sequence[Command], timeout: float) -> list[object | MonitorError]:
        """Execute commands in their order, without waiting for one's answer to send the next.

        :param timeout: seconds, for all of them.
        :returns: what each ``return`` member is, or the error that :meth:`execute` would raise.
        :raises MonitorClosedError: in a process that was forked from ours.
        :raises UsageError: for arguments that JSON can't say, and for an impossible timeout.
        """
        names = [command for command, _ in commands]
        self._refuse_forked(", ".join(dict.fromkeys(names)))
        messages = [_message(command, arguments) for command, arguments in commands]
        deadline = Deadline.after(timeout)
        if len(commands) == 1:
            # The short way: what lets many go on at once takes a tenth of a round trip.
            return [self._answered(names[0], messages[0], deadline)]
        if not commands:
            return []
        try:
            return self._loop.run(deadline.remaining() + STUCK_SECONDS, self._execute_all, names, messages, deadline)
        except TimeoutError:
            return [self._timed_out(name, timeout) for name in names]

    def close(self) -> None:
        """End the session; quiet when QEMU has ended it already."""
        try:
            self._loop.run(CLOSE_SECONDS, self._disconnect)
        except TimeoutError:
            # The loop still has the descriptor in its books, so it must not be closed under it; it will see the end.
            with contextlib.suppress(OSError):
                self._peer.shutdown(socket.SHUT_RDWR)
        else:
            self._peer.close()

    def _answered(self, command: str, message: Message, deadline: Deadline) -> object | MonitorError:
        try:
            return self._loop.run(deadline.remaining(), self._execute, command, message)
        except TimeoutError:
            return self._timed_out(command, deadline.seconds)
        except MonitorError as error:
            return error

    def _timed_out(self, command: str, seconds: float) -> MonitorTimeoutError:
        self.transcript.add("note", f"{command}: no answer within {seconds:.3g} s".encode())
        return MonitorTimeoutError(command, seconds)

    def _refuse_forked(self, command: str) -> None:
        if self._loop.pid != os.getpid():
            raise MonitorClosedError(command, f"it is process {self._loop.pid}'s, and this one was forked from it")

    async def _execute_all(
        self, names: Sequence[str], messages: Sequence[Message], deadline: Deadline
    ) -> list[object | MonitorError]:
        tasks = [asyncio.create_task(self._execute(*each)) for each in zip(names, messages, strict=True)]
        try:
            await asyncio.wait(tasks, timeout=deadline.remaining())
        finally:
            late = [task for task in tasks if task.cancel()]
        # So that what is cancelled has been, and no error is left that nobody looks at.
        await asyncio.gather(*tasks, return_exceptions=True)
        return [
            self._timed_out(name, deadline.seconds) if task in late else _answer_of(task)
            for name, task in zip(names, tasks, strict=True)
        ]

    async def _execute(self, command: str, message: Message) -> object:
        try:
            return await self._client.execute_msg(message)
        except ExecuteError as error:
            raise CommandError(command, error.error_class, str(error)) from error
        except (ExecInterruptedError, StateError) as error:
            raise MonitorClosedError(command, str(error)) from error
        except QMPError as error:
            raise MonitorError(f"{command}: {error}") from error

    async def _disconnect(self) -> None:
        # qemu.qmp re-raises whatever ended its reader or writer (QEMU was killed or quit first, which is what we want,
        # or a reply was too long), and trips over its own assertion when a command is still under way.
        with contextlib.suppress(Exception):
            await self._client.disconnect()


def _answer_of(task: asyncio.Task[object]) -> object | MonitorError:
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, MonitorError):
        return error
    raise error


def _message(command: str, arguments: Mapping[str, object] | None) -> Message:
    try:
        return Message({"execute": command, **({"arguments": dict(arguments)} if arguments else {})})
    except (TypeError, ValueError) as error:
        raise UsageError(f"{command}: the arguments can't be said in JSON: {error}") from error
