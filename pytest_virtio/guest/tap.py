"""pexpect over a drained stream: it reads from the drain's copy, never from the descriptor.

Responsible for giving pexpect the lines as they come, and for raising at once when nothing more can come; must not
know what is said. Several taps may follow one stream. Only the guest room imports pexpect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pexpect.exceptions import EOF, TIMEOUT
from pexpect.spawnbase import SpawnBase

from pytest_virtio.errors import GuestError
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain, Stream

__all__ = ("Tap",)

if TYPE_CHECKING:
    _BytesBase = SpawnBase[bytes]
else:
    # Generic in its stubs only.
    _BytesBase = SpawnBase

WINDOW = 1 << 20
LONGEST_WAIT = 86400.0


class Tap(_BytesBase):
    """A pexpect object that follows one stream from where it stands now.

    :param check: called on every wake-up; raises what makes waiting pointless (a panic, a dead QEMU).
    """

    def __init__(self, drain: Drain, stream: Stream, check: Callable[[], None]) -> None:
        super().__init__(timeout=None, maxread=65536, searchwindowsize=None)
        self._drain, self._stream, self._check = drain, stream, check
        # Given to pexpect up to here; searched for the end of a line up to there.
        self._offset = self._searched = stream.log.size
        self._line_came = False
        self.closed = False

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> bytes:
        """Give the whole lines that have come since the last call, at most ``WINDOW`` bytes; wait for one.

        Whole lines, for pexpect searches everything again whenever it gets a little more, and serial lines are slow.

        :raises pexpect.TIMEOUT: when nothing comes in time.
        :raises pexpect.EOF: when the stream has ended.
        :raises GuestError: when so much came unread that a part of it is no longer kept.
        """
        deadline = Deadline.after(LONGEST_WAIT if timeout is None else max(timeout, 0.0))
        if not self._drain.wait(self._has_news, deadline):
            raise TIMEOUT("nothing came in time")
        data = self._whole_lines()
        if not data:
            raise EOF("the stream has ended")
        self._offset += len(data)
        return data

    def _has_news(self) -> bool:
        self._check()
        log = self._stream.log
        since, self._searched = self._searched, log.size
        self._line_came = self._line_came or b"\n" in log.since(since)
        return self._line_came or self._searched - self._offset >= WINDOW or self._stream.ended

    def _whole_lines(self) -> bytes:
        log = self._stream.log
        data = log.since(self._offset)[:WINDOW]
        if self._offset < log.kept_from:
            raise GuestError(f"{self._stream.name}: it came faster than it was read; a part of it is lost")
        given = data[: data.rfind(b"\n") + 1] or data
        # What is left is searched anew.
        self._searched, self._line_came = self._offset + len(given), False
        return given
