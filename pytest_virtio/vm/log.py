"""A bounded record of a byte stream that others may read while it grows.

Responsible for keeping the beginning and the end of what a console or stderr said, in bounded memory, and for letting
readers in other threads follow it; must not know where the bytes come from or what they mean.
"""

from __future__ import annotations

import threading

__all__ = ("Log",)

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 1024 * 1024


class Log:
    """The first 64 KiB and the last 1 MiB of a stream. Offsets count from the start of the stream, kept or not."""

    def __init__(self, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES) -> None:
        self._head_bytes, self._tail_bytes = head_bytes, tail_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0
        # Size and tail change one after the other; a reader between the two would see a stretch that is not there.
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """How many bytes the stream has had so far."""
        return self._size

    @property
    def kept_from(self) -> int:
        """The offset from which on everything is still kept."""
        with self._lock:
            return self._kept_from()

    def append(self, data: bytes) -> None:
        """Take in what came next."""
        with self._lock:
            room = self._head_bytes - len(self._head)
            self._head += data[:room] if room > 0 else b""
            self._tail += data
            self._size += len(data)
            # Cut rarely: deleting from the front moves the whole buffer.
            if len(self._tail) > 2 * self._tail_bytes:
                del self._tail[: -self._tail_bytes]

    def since(self, offset: int) -> bytes:
        """What is kept of the stream from ``offset`` on; what was dropped is left out without a mark."""
        with self._lock:
            kept_from = self._kept_from()
            if offset >= kept_from:
                return bytes(self._tail[offset - kept_from :])
            return bytes(self._head[offset:kept_from]) + bytes(self._tail)

    def text(self) -> bytes:
        """Head and tail, with a line between them that says how much is missing."""
        with self._lock:
            tail = self._tail[-self._tail_bytes :]
            missing = self._size - len(tail) - len(self._head)
            if missing <= 0:
                return bytes(self._head[: self._size - len(tail)]) + bytes(tail)
            return bytes(self._head) + f"\n[... {missing} bytes not kept ...]\n".encode() + bytes(tail)

    def _kept_from(self) -> int:
        return self._size - len(self._tail)
