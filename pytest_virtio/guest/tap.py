"""pexpect over a drained stream: it reads from the drain's copy, never from the descriptor.

Responsible for giving pexpect bytes as they come, and for raising at once when nothing more can come; must not know
what is said. Only the guest room imports pexpect.
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
        self._offset = stream.log.size
        self.closed = False

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> bytes:
        """Give what has come since the last call, at most ``WINDOW`` bytes; wait ``timeout`` seconds for some.

        :raises pexpect.TIMEOUT: when nothing comes in time.
        :raises pexpect.EOF: when the stream has ended.
        :raises GuestError: when so much came unread that a part of it is no longer kept.
        """
        stream = self._stream
        deadline = Deadline.after(LONGEST_WAIT if timeout is None else max(timeout, 0.0))

        def news() -> bool:
            self._check()
            return stream.log.size > self._offset or stream.ended

        if not self._drain.wait(news, deadline):
            raise TIMEOUT("nothing came in time")
        if self._offset < stream.log.kept_from:
            raise GuestError(f"{stream.name}: it came faster than it was read; a part of it is lost")
        data = stream.log.since(self._offset)[:WINDOW]
        if not data:
            raise EOF("the stream has ended")
        self._offset += len(data)
        return data
