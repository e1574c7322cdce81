"""The news of a backend's end, when nobody told it to end.

Responsible for sounding the VM's alarm, and for what is no news: that it leaves because QEMU has, and what the test
knows or does itself; must not know how a program is started, nor who waits.
"""

from __future__ import annotations

from pytest_virtio.backend.program import Program
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.process import Child
from pytest_virtio.vm.qemu import Qemu

__all__ = ("Ending",)

LEAVING_SECONDS = 1.0
"""How long QEMU is waited for that may be ending: it closes its connections before."""
LAST_LINES = 5


class Ending:
    """Watches the processes of one backend, from :meth:`watch` on.

    :param id: of its device.
    :param meddled_with: whether the test does something to messages: one that leaves then is the test's own business.
    """

    def __init__(self, id: str, program: Program, *, meddled_with: bool) -> None:
        self._id, self._program, self._meddled_with = id, program, meddled_with
        self._qemu: Qemu | None = None
        self._known: Child | None = None
        program.note_end = self._note

    def watch(self, qemu: Qemu) -> None:
        """Tell by this VM's alarm, also when it has ended already."""
        self._qemu = qemu
        if self._program.state == "ended":
            self._note(self._program.child)

    def begin(self) -> None:
        """It is about to be ended by us, or has ended before without us, which stays news; in both cases waits are to
        go on."""
        if self._program.state not in (None, "ended"):
            self.hear()
        if self._qemu is not None:
            self._qemu.alarm.rest(self._id)

    def hear(self) -> None:
        """The test knows that it has ended, or that it is about to."""
        self._known = self._program.child if self._program.state is not None else None
        if self._qemu is not None:
            self._qemu.alarm.hear(self._id)

    def settle(self, deadline: Deadline) -> None:
        """Wait until its end, if it has ended, has been told."""
        if self._program.state == "ended":
            self._program.child.end_told.wait(deadline.remaining())

    def _note(self, child: Child) -> None:
        qemu = self._qemu
        if qemu is None or self._is_no_news(child, qemu):
            return
        qemu.alarm.sound(self._words(child), self._id)
        if child is self._known:
            qemu.alarm.hear(self._id)

    def _is_no_news(self, child: Child, qemu: Qemu) -> bool:
        if child.crashed:
            return child is self._known or not qemu.running
        # Many leave, and rightly so, when QEMU has.
        leaving = Deadline.after(LEAVING_SECONDS)
        known = qemu.child.drain.wait(lambda: child is self._known or not qemu.running, leaving)
        return known or self._meddled_with

    def _words(self, child: Child) -> str:
        how = f"{self._id}: its backend has ended ({self._program.how_it_ended()})"
        return "\n  ".join([how, *self._program.stderr_text().splitlines()[-LAST_LINES:]])
