"""A word from a thread that watches: what makes further waiting pointless.

Responsible for handing it to whoever waits, and for not losing it when nobody does; must not know what was seen.
"""

from __future__ import annotations

import threading

from pytest_virtio.errors import VirtioAssertionError

__all__ = ("Alarm",)


class Alarm:
    """Sounded by one thread, heard by those that wait: by each of them once, for whoever goes on after that means to.

    :param changed: what sleeping waits are on; they look again when it is notified.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._verdict = self._unheard = ""
        self._number = 0
        # Of each thread, the last that it heard. Thread numbers would not do: a new thread takes over an old one's.
        self._heard = threading.local()

    def sound(self, verdict: str) -> None:
        """End the waits that are under way, and of each thread the next, until :meth:`rest`. While it sounds, further
        words are not taken."""
        with self._changed:
            if not self._verdict:
                self._number += 1
                self._verdict = self._unheard = verdict
                self._changed.notify_all()

    @property
    def sounds(self) -> bool:
        """Whether it was sounded, and not put to rest since."""
        return bool(self._verdict)

    def rest(self) -> None:
        """Let waits be; what nobody heard stays :attr:`unheard`."""
        self._verdict = ""

    def check(self) -> None:
        """Raise if it sounds, and this thread has not heard it yet.

        :raises VirtioAssertionError: with the verdict.
        """
        verdict, number = self._verdict, self._number
        if verdict and getattr(self._heard, "number", 0) != number:
            self._heard.number = number
            self._unheard = ""
            raise VirtioAssertionError(verdict)

    @property
    def unheard(self) -> str:
        """The last verdict, if no wait has raised it."""
        return self._unheard
