"""Stretches of code that no Ctrl-C or alarm may cut in two: starting a process, and ending it.

Python runs signal handlers between any two instructions of the main thread, so KeyboardInterrupt (or what
pytest-timeout's SIGALRM raises) can come after a process was spawned and before anybody knows of it. Responsible for
holding such handlers back for a moment; must not know what is protected.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ("uninterrupted",)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back the Python-level signal handlers until the block is left; then what came is delivered.

    The block must end by itself in bounded time. In other threads than the main one no handler runs, and nothing is
    done. A signal mask would hold signals back too, but children would inherit it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    gate = _Gate()
    try:
        gate.shut()
        yield
    finally:
        gate.open()


class _Gate:
    """Stands before the handlers. Left in their place by an untimely signal, it passes everything on."""

    def __init__(self) -> None:
        known = {int(number): signal.getsignal(number) for number in signal.valid_signals()}
        self._handlers = {number: handler for number, handler in known.items() if callable(handler)}
        self._waiting: list[int] = []
        self._shut = False

    def shut(self) -> None:
        self._shut = True
        for number in self._handlers:
            signal.signal(number, self._handle)

    def open(self) -> None:
        self._shut = False
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(self._waiting):
            signal.raise_signal(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._shut:
            self._waiting.append(number)
        else:
            self._handlers[number](number, frame)
