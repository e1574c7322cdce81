"""The wire of QEMU's qtest protocol: registers and ports of a running VM, read and written from outside.

Responsible for the protocol's words over an already connected socket, for sending writes together with the next read
(they are posted, as on PCI), and for a deadline on every answer; must not know which device is behind an address.
The protocol is line by line: ``readl 0xfeb00000`` is answered by ``OK 0x…``, a write by ``OK``, an unknown word by
``FAIL …``, and once interrupts are intercepted ``IRQ raise N`` may stand between answers.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pytest_virtio.errors import MonitorClosedError, MonitorError, MonitorTimeoutError
from pytest_virtio.vm.deadline import Deadline

__all__ = ("ANSWER_SECONDS", "Qtest", "Read", "Space", "Write")

Space = Literal["memory", "io"]

ANSWER_SECONDS = 10.0
"""How long an answer may take. It takes some 50 µs unless QEMU's main loop is blocked."""
MOST_POSTED = 64
"""QEMU answers each command by a send of its own, and a socket is full after some 270 of them."""
LONGEST_LINE = 1 << 20

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
        self._owner = os.getpid()
        self.raises = 0
        """How many interrupts have been seen to rise since interception began."""

    def write(self, space: Space, address: int, size: int, value: int) -> None:
        """Post a write of ``size`` bytes: it is done before the next read, or at :meth:`flush`."""
        with self._lock:
            self._posted.append(_line(Write(space, address, size, value)))
            if len(self._posted) >= MOST_POSTED:
                self.flush()

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
        with self._lock:
            values: list[int] = []
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

    def flush(self) -> None:
        """Do all posted writes.

        :raises MonitorTimeoutError: when QEMU doesn't answer in time.
        :raises QemuExitedError: when it is gone.
        """
        self._ask([])

    def intercept(self, controller: str) -> None:
        """Have the interrupt lines into a controller reported to us instead, by its QOM path: ``"ioapic"``. QEMU
        takes one controller only, once.

        :raises MonitorError: when there is no such controller.
        """
        self._ask([f"irq_intercept_in {controller}"])

    def raised(self) -> frozenset[int]:
        """Which of the intercepted lines are high."""
        with self._lock:
            self.flush()
            # What rose is said before the answer to whatever made it rise.
            self._ask(["readb 0x0"])
            return frozenset(self._raised)

    def await_interrupt(self, seen: int, deadline: Deadline) -> bool:
        """Wait until more than ``seen`` interrupts (:attr:`raises`) have risen; whether they have in time."""
        with self._lock:
            self.flush()
            while self.raises <= seen:
                line = self._line(deadline)
                if line is None:
                    return False
                self._note(line)
            return True

    def close(self) -> None:
        """Hang up. May be called again."""
        self._peer.close()

    def _ask(self, commands: list[str]) -> list[str]:
        """Send what is posted and these commands; the answers to these."""
        with self._lock:
            posted, self._posted = self._posted, []
            lines = posted + commands
            if not lines:
                return []
            deadline = Deadline.after(ANSWER_SECONDS)
            self._send("".join(f"{line}\n" for line in lines).encode(), lines[-1], deadline)
            self._owed += len(lines)
            while self._owed > len(lines):
                # To what was asked before, and given up.
                self._answer("an earlier command", deadline)
            return [self._answer(line, deadline) for line in lines][len(posted) :]

    def _send(self, data: bytes, during: str, deadline: Deadline) -> None:
        if self._owner != os.getpid():
            raise MonitorClosedError(during, f"it is process {self._owner}'s, and this one was forked from it")
        try:
            self._peer.settimeout(max(deadline.remaining(), 0.001))
            self._peer.sendall(data)
        except TimeoutError:
            raise MonitorTimeoutError(f"qtest {during}", deadline.seconds) from None
        except OSError as error:
            raise self._closed(during, str(error)) from None

    def _answer(self, command: str, deadline: Deadline) -> str:
        while True:
            line = self._line(deadline, command)
            if line is None:
                raise MonitorTimeoutError(f"qtest {command}", deadline.seconds)
            if line.startswith("IRQ "):
                self._note(line)
                continue
            self._owed -= 1
            if line == "OK" or line.startswith("OK "):
                return line[3:]
            raise MonitorError(f"qtest {command}: QEMU answers {line[:200]!r}")

    def _line(self, deadline: Deadline, during: str = "the wait for an interrupt") -> str | None:
        """The next line; None at the deadline."""
        while b"\n" not in self._unread:
            try:
                self._peer.settimeout(max(deadline.remaining(), 0.001))
                data = self._peer.recv(65536)
            except TimeoutError:
                return None
            except OSError as error:
                raise self._closed(during, str(error)) from None
            if not data or len(self._unread) > LONGEST_LINE:
                raise self._closed(during, "end of file" if not data else "a line without end")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode("ascii", "replace").strip()

    def _note(self, line: str) -> None:
        """Take in ``IRQ raise 10`` or ``IRQ lower 10``."""
        words = line.split()
        if len(words) == 3 and words[0] == "IRQ" and words[2].isdecimal():
            if words[1] == "raise":
                self._raised.add(int(words[2]))
                self.raises += 1
            else:
                self._raised.discard(int(words[2]))

    def _closed(self, during: str, detail: str) -> Exception:
        return self._gone(f"qtest {during}") or MonitorClosedError(f"qtest {during}", detail)


def _line(operation: Read | Write) -> str:
    if isinstance(operation, Read):
        return f"{_READ[operation.space, operation.size]} {operation.address:#x}"
    return f"{_WRITE[operation.space, operation.size]} {operation.address:#x} {operation.value:#x}"


def _number(word: str) -> int:
    try:
        return int(word, 16)
    except ValueError:
        raise MonitorError(f"qtest: a number was expected; QEMU answers {word[:200]!r}") from None
