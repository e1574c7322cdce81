"""The guest's shell: commands and what they wrote, over our agent on the second serial port.

Responsible for the conversation with the agent; must not know how the guest was started, nor devices. A panic and a
dead QEMU are raised at once, silence at its deadline.

The agent's messages are lines ``@pv WORD …`` of printable ASCII; what a command writes travels as base64, so nothing
that it writes, and no kernel message, can look like one, and each carries the command's own number.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import pexpect.exceptions

from pytest_virtio.errors import GuestError, GuestPanicError, GuestSilentError, GuestTimeoutError, UsageError
from pytest_virtio.guest.health import TAIL_BYTES, Health
from pytest_virtio.guest.tap import Tap
from pytest_virtio.render import escape
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain, Stream

__all__ = ("RUN_SECONDS", "CommandResult", "Shell", "decoded")

RUN_SECONDS = 30.0
COMMAND_BYTES = 32 * 1024
KILL_SECONDS = 5.0

# Whatever the agent says of any command, so that what it says of others' doesn't pile up; "ready" comes after a reset.
MESSAGE = re.compile(rb"@pv (begin|out|end|ready) (\w+)(?: ([A-Za-z0-9+/=]*))?\r?\n")


class CommandResult(NamedTuple):
    """What a command in the guest did; unpacks as ``exit_status, output``."""

    exit_status: int
    """As the shell sees it: 128 + signal number for a command that a signal ended."""
    output: bytes
    """Standard output and error, in the order in which they were written."""

    @property
    def text(self) -> str:
        """The output as text; what is not UTF-8 shows as escapes."""
        return self.output.decode(errors="backslashreplace")


class Shell:
    """Runs commands in one guest, several at a time if threads ask for them."""

    def __init__(self, drain: Drain, port: Stream, health: Health) -> None:
        self._drain, self._port, self._health = drain, port, health
        self._numbers = itertools.count(1)
        # The guest's serial port has no flow control: one command is on its way at a time.
        self._sending = threading.Lock()

    def tap(self, *, heedless: bool = False) -> Tap:
        """Follow what the agent says from now on.

        :param heedless: whether waits go on when the VM's alarm sounds: those that look, rather than work.
        """
        return Tap(self._drain, self._port, self._health.check if heedless else self._health.heed)

    def expect(self, tap: Tap, message: re.Pattern[bytes], deadline: Deadline) -> re.Match[bytes] | None:
        """The next message of a form; None at the deadline."""
        try:
            tap.expect(message, timeout=deadline.remaining())
        except pexpect.exceptions.TIMEOUT:
            return None
        except pexpect.exceptions.EOF:
            raise self._health.gone("the guest's agent") from None
        except GuestPanicError:
            self._health.await_trace()
            raise
        return cast(re.Match[bytes], tap.match)

    def run(self, command: str | bytes, timeout: float, *, heedless: bool = False) -> CommandResult:
        """Run a command; see :meth:`LinuxGuest.run`, and :meth:`tap`."""
        raw = _checked(command)
        deadline = Deadline.after(timeout)
        number = b"c%d" % next(self._numbers)
        tap = self.tap(heedless=heedless)
        with self._turn(raw, deadline):
            self._send(b"run %s %s\n" % (number, base64.b64encode(raw)), deadline)
            if self._await(tap, number, b"begin", deadline, bytearray()) is None:
                self._kill(number)
                raise GuestSilentError(
                    f"the guest's agent did not take {_shown(raw)} within {timeout:g} s; {self._health.last_words()}"
                )
        output = bytearray()
        status = self._await(tap, number, b"end", deadline, output)
        if status is None:
            raise GuestTimeoutError(self._overdue(tap, number, raw, timeout, output), bytes(output))
        return CommandResult(int(status), bytes(output))

    @contextmanager
    def _turn(self, raw: bytes, deadline: Deadline) -> Iterator[None]:
        if not self._sending.acquire(timeout=deadline.remaining()):
            seconds = f"within {deadline.seconds:g} s"
            raise GuestTimeoutError(f"{_shown(raw)} was not sent {seconds}: the guest was still taking another command")
        try:
            yield
        finally:
            self._sending.release()

    def _await(
        self, tap: Tap, number: bytes, word: bytes, deadline: Deadline, output: bytearray, *, whole: bool = True
    ) -> bytes | None:
        """What the agent says with ``word`` of a command, its output until then collected; None at the deadline.

        :param whole: whether its messages come whole: what is sent while it is being killed may be cut short.
        """
        while found := self.expect(tap, MESSAGE, deadline):
            said, of, value = found.groups(b"")
            if said == b"ready":
                raise GuestError(f"the guest started anew during a command; {self._health.last_words()}")
            if of != number:
                continue
            if said == b"out":
                output += decoded(value if whole else value[: len(value) // 4 * 4])
            elif said == word:
                return value
        return None

    def _overdue(self, tap: Tap, number: bytes, raw: bytes, seconds: float, output: bytearray) -> str:
        """End an overdue command with all its children; what to say of it."""
        self._kill(number)
        ended = self._await(tap, number, b"end", Deadline.after(KILL_SECONDS), output, whole=False) is not None
        how = "was killed" if ended else f"survived being killed for {KILL_SECONDS:g} s: the guest hangs, or is paused"
        said = (
            f"it had written:\n{escape(bytes(output[-TAIL_BYTES:]), TAIL_BYTES)}"
            if output
            else "it had written nothing"
        )
        return f"{_shown(raw)} did not end within {seconds:g} s and {how}; {said}"

    def _kill(self, number: bytes) -> None:
        """Have the agent kill a command; a guest that doesn't even take that is told of by the caller."""
        self._drain.write(self._port, b"kill %s\n" % number, Deadline.after(KILL_SECONDS))

    def _send(self, data: bytes, deadline: Deadline) -> None:
        self._health.check()
        if self._drain.write(self._port, data, deadline) < len(data):
            self._health.check()
            raise GuestSilentError(f"the guest's agent takes no input; {self._health.last_words()}")


def decoded(value: bytes) -> bytes:
    """What the agent sent as base64.

    :raises GuestError: when it isn't.
    """
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise GuestError(f"the guest's agent sent what is not base64: {escape(value, 80)}") from error


def _checked(command: str | bytes) -> bytes:
    raw = command.encode(errors="surrogateescape") if isinstance(command, str) else command
    if not isinstance(raw, bytes):
        raise UsageError(f"run(): a command is text or bytes for `sh -c`; got {command!r}")
    if not raw.strip() or b"\0" in raw or len(raw) > COMMAND_BYTES:
        raise UsageError(
            f"run(): a command is 1 to {COMMAND_BYTES} bytes without NUL; got {len(raw)} bytes: {escape(raw, 60)!r}"
        )
    return raw


def _shown(raw: bytes) -> str:
    return repr(escape(raw, 200, keep="head"))
