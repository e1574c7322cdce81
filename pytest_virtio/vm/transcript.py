"""What was said over one monitor, and when: the last commands, answers and events as they went over the wire.

Responsible for keeping them in bounded memory at the cost of an append, and for one line of JSON each when asked; must
not know what any of them means. Written by the event loop's thread, read by others.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

__all__ = ("Speaker", "Transcript")

TOTAL_BYTES: Final = 256 * 1024
MESSAGE_BYTES: Final = 8 * 1024
"""Of a longer message this much is kept: query-qmp-schema alone is answered by 200 KiB and more."""
OVERHEAD_BYTES: Final = 64
"""What a short message counts as beside its bytes."""

Speaker = Literal["plugin", "QEMU", "note"]


class _Said(NamedTuple):
    moment: float
    speaker: Speaker
    kept: bytes
    size: int


class Transcript:
    """The last 256 KiB of a conversation; of each message at most 8 KiB."""

    def __init__(self) -> None:
        self._began, self._start = datetime.now(UTC), time.monotonic()
        self._said: deque[_Said] = deque()
        self._bytes = self._dropped = 0
        self._lock = threading.Lock()

    def add(self, speaker: Speaker, message: bytes) -> None:
        """Take in what was said just now.

        :param message: as it went over the wire; of ``"note"``, words of ours.
        """
        said = _Said(time.monotonic(), speaker, message[:MESSAGE_BYTES], len(message))
        with self._lock:
            self._said.append(said)
            self._bytes += len(said.kept) + OVERHEAD_BYTES
            while self._bytes > TOTAL_BYTES:
                self._bytes -= len(self._said.popleft().kept) + OVERHEAD_BYTES
                self._dropped += 1

    def lines(self) -> Iterator[str]:
        """Yield JSON: first when it began and how many older messages are not kept, then a line for each that is.

        The keys: ``seconds`` since it began, ``from`` (``"plugin"`` or ``"QEMU"``) with the ``message``; of one that
        was cut, ``begins`` with its first characters and ``bytes``, its whole length; of what went wrong, ``note``.
        """
        with self._lock:
            said, dropped = tuple(self._said), self._dropped
        yield json.dumps({"schema": 1, "began": self._began.isoformat(timespec="milliseconds"), "dropped": dropped})
        for each in said:
            yield json.dumps({"seconds": round(each.moment - self._start, 6), **_plain(each)})


def _plain(said: _Said) -> dict[str, object]:
    text = said.kept.decode(errors="backslashreplace")
    if said.speaker == "note":
        return {"note": text}
    if said.size > len(said.kept):
        return {"from": said.speaker, "begins": text, "bytes": said.size}
    try:
        return {"from": said.speaker, "message": json.loads(text)}
    except (ValueError, RecursionError):
        return {"from": said.speaker, "begins": text, "bytes": said.size}
