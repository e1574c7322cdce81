"""The file that QEMU logs trace events to: a memory file of ours, which it opens by the inherited descriptor.

Responsible for its life and its bound; must not know what is logged. Neither side ever waits for the other: a pipe
would stop QEMU while nobody reads, and a plain file would grow as long as a guest makes it.
"""

from __future__ import annotations

import fcntl
import os
from types import TracebackType

__all__ = ("LIMIT", "EventLog")

LIMIT = 4 << 20
"""Bytes; what is logged later is lost. A boot takes some 10 KiB."""

# When a write fails, C's stdio keeps the line and tries again with the next, until its buffer of 4 KiB is full.
_NEARLY = 8 << 10
_PIECE = 64 << 10


class EventLog:
    """What one QEMU logs. No memory is taken for what isn't written."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("pytest-virtio-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)

    def bound(self) -> None:
        """Let the file grow no more, from now on, that is once QEMU has opened it: opening empties it.

        QEMU goes on at its own place in the file; behind that it is zeros. At the end its writes fail, which it
        ignores.
        """
        os.ftruncate(self.fd, LIMIT)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)

    def read(self) -> tuple[str, bool]:
        """All that was logged, and whether the log is full; "" once it is closed."""
        if self.fd < 0:
            return "", False
        written = bytearray()
        while piece := os.pread(self.fd, _PIECE, len(written)):
            said = piece.partition(b"\0")[0]
            written += said
            if len(said) < len(piece):
                break
        return written.decode(errors="replace"), len(written) > LIMIT - _NEARLY

    def close(self) -> None:
        """Forget it; QEMU keeps its own. May be called again."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
