"""Whether drivers leave their devices' selectors alone just now, so that we may move one and put it back.

Responsible for telling by QEMU's trace events when a device status was written last; must not know registers. To move a
selector and put it back takes two conversations, the first of which finds out where it stood. A driver that begins anew
in between selects another word, finds ours, and writes its features over others': seen on 11.1, once in some 10,000
looks at a driver that was bound and unbound all the time. A driver whose device's status nobody has written for a while
does not get that far in the 0.1 ms between the two.
"""

from __future__ import annotations

import time
from typing import Protocol

from pytest_virtio.qapi.trace import SetStatus, parse_trace
from pytest_virtio.vm.deadline import Deadline

__all__ = ("Calm", "Log")

CALM_SECONDS = 0.1
PATIENCE_SECONDS = 0.5
_TAIL = 16 << 10


class Log(Protocol):
    """What QEMU has logged so far."""

    def read(self) -> tuple[str, bool]:
        """The text, and whether there was no room for more."""


class Calm:
    """Watches one VM's drivers.

    :param log: of the device statuses; None where QEMU doesn't log them.
    :param idle: whether no processor of the guest runs: then nobody is in the way, ever.
    """

    def __init__(self, log: Log | None, *, idle: bool) -> None:
        self._log, self.idle = log, idle

    @property
    def mark(self) -> int | None:
        """A number that is another one when a device status has been written since; None where nobody knows."""
        if self._log is None or self.idle:
            return None
        text, full = self._log.read()
        return None if full else len(text)

    def wait(self, deadline: Deadline) -> bool:
        """Wait a moment for calm; whether there is."""
        if self.idle:
            return True
        if self._log is None:
            return False
        patience = Deadline.after(min(PATIENCE_SECONDS, deadline.remaining()))
        while (left := self._restless()) > 0:
            if left > patience.remaining():
                return False
            time.sleep(left)
        return True

    def _restless(self) -> float:
        """Seconds until there is calm, if nobody does anything."""
        text, full = self._log.read() if self._log is not None else ("", True)
        if full:
            return PATIENCE_SECONDS * 2
        events = [event for event in parse_trace(text[-_TAIL:]) if isinstance(event, SetStatus)]
        return max(0.0, events[-1].time + CALM_SECONDS - time.time()) if events else 0.0
