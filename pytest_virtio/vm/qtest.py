"""The wire of QEMU's qtest protocol: registers and ports of a running VM, read and written from outside.

Responsible for the protocol's words over an already connected socket, for sending writes together with the next read
(they are posted, as on PCI), and for a deadline on every answer; must not know which device is behind an address.
The protocol is line by line: ``readl 0xfeb00000`` is answered by ``OK 0x…``, a write by ``OK``, an unknown word by
``FAIL …``, and once interrupts are intercepted ``IRQ raise N`` may stand between answers.
"""

from __future__ import annotations

import math
import os
import socket
import string
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Literal, NamedTuple

from pytest_virtio.errors import MonitorClosedError, MonitorError, MonitorTimeoutError, UsageError
from pytest_virtio.vm.deadline import Deadline

__all__ = ("ANSWER_SECONDS", "Qtest", "Read", "Space", "Write")

Space = Literal["memory", "io"]

ANSWER_SECONDS = 10.0
"""How long an answer may take. It takes some 50 µs unless QEMU's main loop is blocked."""
MOST_POSTED = 64
"""QEMU answers each command by a send of its own, and a socket is full after some 270 of them."""
AT_ONCE_BYTES = 1024
LONGEST_LINE = 1 << 20
SHORTEST_WAIT = 0.001
MOMENT = 0.25
"""How long a push waits at the most: whoever pushes goes on to wait for something else, by a deadline of its own."""
_HEXADECIMAL = frozenset(string.hexdigits)
WAIT = "the wait for an interrupt"

_WORDS: dict[tuple[Space, int], str] = {
    **{("memory", size): letter for size, letter in ((1, "b"), (2, "w"), (4, "l"), (8, "q"))},
    **{("io", size): letter for size, letter in ((1, "b"), (2, "w"), (4, "l"))},
}


class Read(NamedTuple):
    """A read of ``size`` bytes: 1, 2, 4, or 8 of memory."""

    space: Space
    address: int
    size: int


class Write(NamedTuple):
    """A write of ``size`` bytes: 1, 2, 4, or 8 of memory."""

    space: Space
    address: int
    size: int
    value: int


_READ = {(space, size): ("in" if space == "io" else "read") + word for (space, size), word in _WORDS.items()}
_WRITE = {(space, size): ("out" if space == "io" else "write") + word for (space, size), word in _WORDS.items()}


class Qtest:
    """One qtest session.

    :param gone: gives the error to raise when QEMU has hung up, if it knows more than that.
    """

    def __init__(self, peer: socket.socket, gone: Callable[[str], Exception | None] = lambda during: None) -> None:
        self._peer, self._gone = peer, gone
        self._posted: list[str] = []
        self._unread = b""
        self._owed = 0
        self._raised: set[int] = set()
        self._lock = threading.RLock()
        self._scopes = threading.local()
        self._owner = os.getpid()
        self.raises = 0
        """How many interrupts have been seen to rise since interception began."""

    def write(self, space: Space, address: int, size: int, value: int) -> None:
        """Post a write of ``size`` bytes: it is done before the next read, or at :meth:`flush`."""
        self._post(_line(Write(space, address, size, value)))

    def read(self, space: Space, address: int, size: int) -> int:
        """Read ``size`` bytes, after all posted writes.

        :raises MonitorTimeoutError: when QEMU doesn't answer in time.
        :raises QemuExitedError: when it is gone.
        """
        return self.exchange((Read(space, address, size),))[0]

    def exchange(self, operations: Sequence[Read | Write]) -> list[int]:
        """Do reads and writes in order and in one conversation, after all posted writes; the values read.

        :raises MonitorTimeoutError: when QEMU doesn't answer in time.
        :raises QemuExitedError: when it is gone.
        """
        values: list[int] = []
        with self._turn("an exchange"):
            for start in range(0, len(operations), MOST_POSTED):
                some = operations[start : start + MOST_POSTED]
                answers = self._ask([_line(operation) for operation in some])
                # A narrow read is answered by 64 bits all the same.
                values += [
                    _number(answer) & (1 << 8 * operation.size) - 1
                    for answer, operation in zip(answers, some, strict=True)
                    if isinstance(operation, Read)
                ]
        return values

    def at_once(self, operations: Sequence[Read | Write]) -> list[int]:
        """Do reads and writes without the guest getting a word in: what QEMU takes from the socket by one read it does
        under its big lock, which a processor needs for each access to a register. That is up to 1,024 bytes
        (qtest_can_read, seen in 7.2 to 11.1), some forty operations.

        :raises UsageError: when they are too many for that.
        :raises MonitorTimeoutError: when QEMU doesn't answer in time.
        :raises QemuExitedError: when it is gone.
        """
        lines = [_line(operation) for operation in operations]
        if sum(len(line) + 1 for line in lines) > AT_ONCE_BYTES:
            raise UsageError(f"{len(lines)} operations are too many to be done at once")
        with self._turn("an exchange"):
            # Alone: the answers to all that was sent before must have come.
            self._ask([])
            return self.exchange(operations)

    def read_block(self, address: int, length: int) -> bytes:
        """Read a stretch of memory space by one command, after all posted writes. QEMU chooses the accesses' widths.

        :raises MonitorError: when QEMU answers with another number of bytes.
        :raises MonitorTimeoutError: when QEMU doesn't answer in time.
        :raises QemuExitedError: when it is gone.
        """
        with self._turn("read"):
            (answer,) = self._ask([f"read {address:#x} {length:#x}"])
        digits = answer.removeprefix("0x")
        if len(digits) != 2 * length or not set(digits) <= _HEXADECIMAL:
            raise MonitorError(f"qtest read: {length} bytes were expected; QEMU answers {answer[:200]!r}")
        return bytes.fromhex(digits)

    def write_block(self, address: int, data: bytes) -> None:
        """Post a write of a stretch of memory space by one command. QEMU chooses the accesses' widths."""
        self._post(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    @property
    def pending(self) -> bool:
        """Whether something was written that QEMU has not been seen to have done."""
        return self._peer.fileno() >= 0 and bool(self._posted or self._owed)

    def flush(self, seconds: float = math.inf) -> None:
        """Do all posted writes.

        :param seconds: how long that may take, and no longer than :data:`ANSWER_SECONDS`.
        :raises MonitorTimeoutError: when QEMU doesn't answer in time.
        :raises QemuExitedError: when it is gone.
        """
        with self._turn("a flush"):
            self._ask([], seconds)

    def push(self) -> None:
        """Do all posted writes; but a QEMU that is busy with other things is not waited for longer than a moment.

        :raises QemuExitedError: when it is gone.
        """
        with self._turn("a push"):
            posted, self._posted = self._posted, []
            self._owed += len(posted)
            if posted:
                self._send(posted, self._deadline(math.inf))
            with suppress(MonitorTimeoutError):
                self._catch_up(self._owed, self._deadline(MOMENT))

    @contextmanager
    def within(self, deadline: Deadline, doing: str) -> Iterator[None]:
        """What is said in the block has its answers by then, and errors name what is being done."""
        outer = self._scope
        self._scopes.current = (deadline, doing)
        try:
            yield
        finally:
            self._scopes.current = outer

    def intercept(self, controller: str) -> None:
        """Have the interrupt lines into a controller reported to us instead, by its QOM path: ``"ioapic"``. QEMU
        takes one controller only, once.

        :raises MonitorError: when there is no such controller, or it is another one already.
        """
        with self._turn("irq_intercept_in"):
            self._ask([f"irq_intercept_in {controller}"])

    def raised(self) -> frozenset[int]:
        """Which of the intercepted lines are high."""
        with self._turn("raised"):
            # What rose is said before the answer to whatever made it rise.
            self._ask(["readb 0x0"])
            return frozenset(self._raised)

    def await_interrupt(self, seen: int, deadline: Deadline) -> bool:
        """Wait until more than ``seen`` interrupts (:attr:`raises`) have risen; whether they have in time."""
        with self._turn(WAIT):
            self._ask([])
            while self.raises <= seen:
                if self._line(deadline, WAIT) is None or deadline.passed():
                    break
            return self.raises > seen

    def close(self) -> None:
        """Hang up. May be called again."""
        self._peer.close()

    def _turn(self, during: str) -> AbstractContextManager[bool]:
        """The lock: one conversation at a time, and none in a forked process, whose the socket is not, nor the lock.

        :raises MonitorClosedError: in a process that was forked from ours.
        """
        if self._owner != os.getpid():
            raise MonitorClosedError(
                f"qtest {during}", f"it is process {self._owner}'s, and this one was forked from it"
            )
        return self._lock

    @property
    def _scope(self) -> tuple[Deadline | None, str]:
        """Of this thread: what another one is doing is no business of what this one says."""
        scope: tuple[Deadline | None, str] = getattr(self._scopes, "current", (None, ""))
        return scope

    def _post(self, line: str) -> None:
        with self._turn("a write"):
            self._posted.append(line)
            if len(self._posted) >= MOST_POSTED:
                self._ask([])

    def _ask(self, commands: list[str], seconds: float = math.inf) -> list[str]:
        """Send what is posted and these commands; the answers to these."""
        posted, self._posted = self._posted, []
        lines = posted + commands
        deadline = self._deadline(seconds)
        # Counted before they are sent: should an exception come from outside in between, an answer may be waited for
        # in vain, but none is taken for that to another question.
        late, self._owed = self._owed, self._owed + len(lines)
        if lines:
            self._send(lines, deadline)
        self._catch_up(late, deadline)
        return [_checked(line, self._answer(line, deadline)) for line in lines][len(posted) :]

    def _deadline(self, seconds: float) -> Deadline:
        """A scope that ends right now gives QEMU a moment all the same: that it doesn't answer is another error."""
        scope = self._scope[0]
        left = max(scope.remaining(), MOMENT) if scope else math.inf
        return Deadline.after(min(seconds, ANSWER_SECONDS, left))

    def _catch_up(self, late: int, deadline: Deadline) -> None:
        """Take the answers to what was pushed, or asked before and given up; whoever asked has had his error."""
        for _ in range(late):
            self._answer("an earlier command", deadline)

    def _send(self, lines: list[str], deadline: Deadline) -> None:
        try:
            self._peer.settimeout(max(deadline.remaining(), SHORTEST_WAIT))
            self._peer.sendall("".join(f"{line}\n" for line in lines).encode())
        except TimeoutError:
            # Half a line may be out, so nothing more can be said.
            self.close()
            raise self._silent(lines[-1], deadline) from None
        except OSError as error:
            raise self._closed(lines[-1], str(error)) from None

    def _answer(self, command: str, deadline: Deadline) -> str:
        """The next line that is an answer."""
        owed = self._owed
        while (line := self._line(deadline, command)) is not None:
            if self._owed < owed:
                return line
            if deadline.passed():
                break
        raise self._silent(command, deadline)

    def _line(self, deadline: Deadline, during: str) -> str | None:
        """The next line, taken into account; None at the deadline.

        :raises MonitorError: when it is an answer and none is due.
        """
        while b"\n" not in self._unread:
            if not self._receive(deadline, during):
                return None
        line, _, self._unread = self._unread.partition(b"\n")
        text = line.decode("ascii", "replace").strip()
        if text.startswith("IRQ "):
            self._note(text)
        elif self._owed:
            self._owed -= 1
        else:
            raise MonitorError(f"qtest: QEMU says {text[:200]!r}, and nobody has asked")
        return text

    def _receive(self, deadline: Deadline, during: str) -> bool:
        """Take in what has come; False if nothing has at the deadline."""
        remaining = deadline.remaining()
        if not remaining and self._unread:
            # Half a line: someone who goes on for ever byte by byte must not keep us.
            return False
        try:
            self._peer.settimeout(max(remaining, SHORTEST_WAIT))
            data = self._peer.recv(65536)
        except TimeoutError:
            return False
        except OSError as error:
            raise self._closed(during, str(error)) from None
        if not data or len(self._unread) > LONGEST_LINE:
            raise self._closed(during, "a line without end" if data else "end of file")
        self._unread += data
        return True

    def _note(self, line: str) -> None:
        """Take in ``IRQ raise 10`` or ``IRQ lower 10``."""
        words = line.split()
        if len(words) == 3 and words[0] == "IRQ" and words[2].isdecimal():
            if words[1] == "raise":
                self._raised.add(int(words[2]))
                self.raises += 1
            else:
                self._raised.discard(int(words[2]))

    def _closed(self, command: str, detail: str) -> Exception:
        return self._gone(self._named(command)) or MonitorClosedError(self._named(command), detail)

    def _silent(self, command: str, deadline: Deadline) -> MonitorTimeoutError:
        return MonitorTimeoutError(self._named(command), deadline.seconds)

    def _named(self, command: str) -> str:
        doing = self._scope[1]
        return f"{doing}: qtest {command}" if doing else f"qtest {command}"


def _checked(command: str, answer: str) -> str:
    """What an answer says beside OK."""
    if answer == "OK" or answer.startswith("OK "):
        return answer[3:]
    raise MonitorError(f"qtest {command}: QEMU answers {answer[:200]!r}")


def _line(operation: Read | Write) -> str:
    if isinstance(operation, Read):
        return f"{_READ[operation.space, operation.size]} {operation.address:#x}"
    return f"{_WRITE[operation.space, operation.size]} {operation.address:#x} {operation.value:#x}"


def _number(word: str) -> int:
    try:
        return int(word, 16)
    except ValueError:
        raise MonitorError(f"qtest: a number was expected; QEMU answers {word[:200]!r}") from None
