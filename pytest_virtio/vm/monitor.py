"""The QMP conversation with one QEMU, with a synchronous face and a deadline on every command.

Responsible for the session over an already connected socket, by way of qemu.qmp in one event loop thread for all
monitors of this process; must not know what the commands mean.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import socket
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from qemu.qmp import ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError, StateError

from pytest_virtio.errors import CommandError, MonitorClosedError, MonitorTimeoutError
from pytest_virtio.vm.deadline import Deadline

__all__ = ("COMMAND_SECONDS", "Monitor")

T = TypeVar("T")

COMMAND_SECONDS = 10.0
"""How long a command may take unless told otherwise. Introspection takes about 1 ms."""
CLOSE_SECONDS = 2.0


class _Loop:
    """The event loop thread; started at the first use, anew after a fork."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="qmp", daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, T], seconds: float) -> T:
        """Run in the loop and wait for the result.

        :raises TimeoutError: after ``seconds``; the coroutine is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(seconds)
        except (concurrent.futures.TimeoutError, KeyboardInterrupt):
            future.cancel()
            raise


_lock = threading.Lock()
_current: _Loop | None = None


def _loop() -> _Loop:
    global _current  # noqa: PLW0603 - one loop thread a process is the point
    with _lock:
        if _current is None or _current.pid != os.getpid():
            _current = _Loop()
        return _current


class Monitor:
    """A QMP session. It is not usable before :meth:`connect` nor after :meth:`close`."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._client = QMPClient("pytest-virtio")
        # A late answer to a command that timed out is expected, and not worth a line in the user's log.
        self._client.logger = logging.getLogger("pytest_virtio.qmp")
        self._client.logger.propagate = False
        self._client.logger.addHandler(logging.NullHandler())
        self._loop = _loop()

    def connect(self, deadline: Deadline) -> None:
        """Take the greeting and leave the negotiation mode.

        :raises MonitorTimeoutError: when no greeting comes: a vhost-user backend that says nothing does that.
        :raises MonitorClosedError: when QEMU hangs up instead.
        """
        try:
            self._loop.run(self._client.connect(self._peer), deadline.remaining())
        except TimeoutError:
            raise MonitorTimeoutError("the QMP greeting", deadline.seconds) from None
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
        """
        try:
            return self._loop.run(self._execute(command, arguments or {}), timeout)
        except TimeoutError:
            raise MonitorTimeoutError(command, timeout) from None

    def close(self) -> None:
        """End the session; quiet when QEMU has ended it already."""
        try:
            self._loop.run(self._disconnect(), CLOSE_SECONDS)
        except TimeoutError:
            self._peer.close()

    async def _execute(self, command: str, arguments: Mapping[str, object]) -> object:
        message = Message({"execute": command, **({"arguments": dict(arguments)} if arguments else {})})
        try:
            return await self._client.execute_msg(message)
        except ExecuteError as error:
            raise CommandError(command, error.error_class, str(error)) from error
        except (ExecInterruptedError, StateError) as error:
            raise MonitorClosedError(command, str(error)) from error

    async def _disconnect(self) -> None:
        try:
            await self._client.disconnect()
        except (EOFError, OSError, QMPError):
            # qemu.qmp re-raises what ended the reader: QEMU was killed or quit first, which is what we want.
            return
