"""A word from a thread that watches: what makes further waiting pointless.

Responsible for handing it to whoever waits, and for not losing it when nobody does; must not know what was seen.
"""

from __future__ import annotations

import threading
from typing import cast

from pytest_virtio.errors import VirtioAssertionError

__all__ = ("Alarm",)


class Alarm:
    """Sounded by threads that watch, each about something else; heard by those that wait: by each of them once, for
    whoever goes on after that means to.

    :param changed: what sleeping waits are on; they look again when it is notified.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._words: dict[str, tuple[int, str]] = {}
        self._unheard: dict[str, str] = {}
        self._number = 0
        # Of each thread, what it heard. Thread numbers would not do: a new thread takes over an old one's.
        self._heard = threading.local()

    def sound(self, verdict: str, about: str = "") -> None:
        """End the waits that are under way, and of each thread the next, until :meth:`rest`. While it sounds, further
        words about the same are not taken.

        :param about: a backend, by its device's id; "" for queues and wires.
        """
        with self._changed:
            if about not in self._words:
                self._number += 1
                self._words[about] = self._number, verdict
                self._unheard[about] = verdict
                self._changed.notify_all()

    def sounds(self, about: str = "") -> bool:
        """Whether it was sounded about that, and not put to rest since."""
        return about in self._words

    def rest(self, about: str = "") -> None:
        """Let waits be; what nobody heard stays :attr:`unheard`."""
        with self._changed:
            self._words.pop(about, None)

    def hear(self, about: str) -> None:
        """This thread has learnt it another way, or knows of it beforehand."""
        with self._changed:
            if about in self._words:
                self._heard_here.add(self._words[about][0])
            self._unheard.pop(about, None)
            self._changed.notify_all()

    def check(self) -> None:
        """Raise if it sounds, and this thread has not heard it yet.

        :raises VirtioAssertionError: with the verdict, or several.
        """
        if not self._words:
            return
        with self._changed:
            news = {about: word for about, (number, word) in self._words.items() if number not in self._heard_here}
            for about in news:
                self.hear(about)
        if news:
            raise VirtioAssertionError("\n".join(news.values()))

    @property
    def unheard(self) -> str:
        """The last verdict about each, if no wait has raised it."""
        with self._changed:
            return "\n".join(self._unheard.values())

    @property
    def _heard_here(self) -> set[int]:
        """The numbers of what this thread has heard."""
        if not hasattr(self._heard, "numbers"):
            self._heard.numbers = set[int]()
        return cast("set[int]", self._heard.numbers)
