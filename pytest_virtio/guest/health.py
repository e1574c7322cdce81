"""Whether a Linux guest can still answer: a panic and a dead QEMU are known at once, and end every wait.

Responsible for telling these two, and the VM's alarm, from silence, and for the guest's last words; must not know what
is waited for.
"""

from __future__ import annotations

import re

from pytest_virtio.errors import GuestError, GuestPanicError
from pytest_virtio.render import escape
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Stream
from pytest_virtio.vm.qemu import Qemu

__all__ = ("Health",)

PANIC = re.compile(rb"(Kernel panic - not syncing[^\r\n]*)[\r\n]")
TRACE_END = b"end Kernel panic"
TRACE_SECONDS = 1.0
LONGEST_PANIC_LINE = 1200
"""The kernel's own limit is 1024, with a time stamp before it."""
TAIL_BYTES = 2000
GONE_SECONDS = 5.0


class Health:
    """The state of one guest, as its console and QEMU's process tell it."""

    def __init__(self, qemu: Qemu, console: Stream) -> None:
        self._qemu, self._console = qemu, console
        self._searched = 0
        self._panic: str | None = None

    def check(self) -> None:
        """Raise what makes any waiting pointless.

        :raises GuestPanicError: when the kernel has panicked.
        :raises QemuExitedError: when QEMU has ended.
        """
        if self._panicked():
            raise GuestPanicError(f"the guest's kernel panicked: {self._panic}")
        if not self._qemu.running:
            raise self._qemu.exited("the guest's run")

    def heed(self) -> None:
        """Raise what makes a wait of the test's pointless: that, and the VM's alarm.

        :raises VirtioAssertionError: when a queue stands still that is watched.
        """
        self.check()
        self._qemu.alarm.check()

    def gone(self, who: str) -> Exception:
        """The error for a serial port that has closed: QEMU is going."""
        if self._qemu.child.wait(Deadline.after(GONE_SECONDS)):
            return self._qemu.exited(f"the wait for {who}")
        return GuestError(f"{who}: its serial port closed, and QEMU still runs")

    def await_trace(self) -> None:
        """Let a panicking kernel finish its trace, so that the console shows it; it takes a moment, or nothing more."""
        start = max(0, self._console.log.size - TAIL_BYTES)
        self._qemu.child.drain.wait(
            lambda: TRACE_END in self._console.log.since(start) or not self._qemu.running, Deadline.after(TRACE_SECONDS)
        )

    def last_words(self) -> str:
        """The end of the console, as a part of a sentence."""
        log = self._console.log
        tail = log.since(max(0, log.size - TAIL_BYTES))
        if not tail.strip():
            return "the guest's console is empty: its kernel never spoke (wrong kernel, machine or accelerator?)"
        return f"its console ended with:\n{escape(tail, TAIL_BYTES)}"

    def _panicked(self) -> bool:
        log = self._console.log
        if self._panic is None and log.size > self._searched:
            # It comes in pieces: look again at what may have been the beginning of the line.
            since, self._searched = max(0, self._searched - LONGEST_PANIC_LINE), log.size
            found = PANIC.search(log.since(since))
            self._panic = escape(found[1], TAIL_BYTES).strip() if found else None
        return self._panic is not None
