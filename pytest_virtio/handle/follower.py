"""The count of one queue's used buffers, wherever its ring is.

Responsible for noticing that a driver has made the ring anew or moved it, and for what then counts; must not know what
the count is for, nor where indices lie.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from typing import TYPE_CHECKING

from pytest_virtio.errors import UsageError, VirtioError
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.introspect.indices import Indices, indices
from pytest_virtio.launch import QUERY_SECONDS
from pytest_virtio.ring.progress import LONGEST_STEP, Counter, distance

if TYPE_CHECKING:
    from pytest_virtio.handle.queue import VirtioQueue

__all__ = ("Follower",)

RENEW_SECONDS = 1.0
"""How often QEMU is asked whether the ring is still where it was."""
DOUBT_SECONDS = 0.05
"""The same, while what is read can't be a ring's indices."""
FASTEST = 150_000
"""Buffers a second: more than any guest of QEMU's was seen to do."""
SLACK = 4096


class Follower:
    """Counts one queue's used buffers from now on, wherever the driver moves the ring. Threads may share it.

    A driver of ours tells it of resets. Before that of another, what was used since the last look is not seen.

    :raises UsageError: when no driver has set the queue up.
    :raises NotSupportedError: when its used buffers can't be counted.
    """

    def __init__(self, queue: VirtioQueue) -> None:
        self.queue = queue
        self._lock = threading.Lock()
        self._indices = self._find(QUERY_SECONDS)
        self._counter = Counter(self._indices.used)
        self._looked = self._renewed = time.monotonic()
        self._ended = self._anew = False
        _follow(queue, self)

    @property
    def index(self) -> int:
        """The queue's."""
        return self.queue.index

    @property
    def called(self) -> str:
        """The queue, in words."""
        return f"{self.queue.device.id}.{self.queue.name}"

    @property
    def seconds(self) -> float:
        """How long it may go without a look."""
        return self._indices.seconds

    @property
    def source(self) -> str:
        """Where the indices are read."""
        return self._indices.source

    @property
    def restarts(self) -> int:
        """How often the queue was set up anew."""
        return self._counter.restarts

    def look(self) -> int:
        """How many buffers were used so far.

        :raises VirtioError: when the VM has ended.
        """
        with self._lock:
            now, wrong = time.monotonic(), self._anew or self._looks_wrong()
            if not self._ended and now - self._renewed >= (DOUBT_SECONDS if wrong else RENEW_SECONDS):
                self._renew()
            elif wrong:
                # Most likely the ring is elsewhere: what stands here does not count until QEMU has said so.
                return self._counter.total
            return self._count(now)

    def renew(self) -> None:
        """Ask QEMU now where the ring is, before a verdict."""
        with self._lock:
            if not self._ended:
                self._renew()

    def end(self) -> None:
        """Count for the last time before the driver resets the queue: what stands in RAM afterwards is no ring."""
        with self._lock:
            if self._anew and not self._ended:
                self._renew()
            with contextlib.suppress(VirtioError):
                self._count(time.monotonic())
            self._ended = True

    def begin(self) -> None:
        """Go on in the queue that the driver has set up, from its beginning, as soon as QEMU has told where it is."""
        with self._lock:
            self._ended, self._anew = False, True
            self._renewed = -math.inf

    def standing(self) -> tuple[int | None, int]:
        """The avail index, None of a packed ring, and the used one."""
        with self._lock:
            return self._standing()

    def _standing(self) -> tuple[int | None, int]:
        used = self._indices.used()
        return (self._indices.avail() if self._indices.avail else None), used

    def _looks_wrong(self) -> bool:
        """Whether there are more outstanding than the ring has entries: then it is no longer a ring."""
        avail, used = self._standing()
        return avail is not None and distance(used, avail) > self._indices.size

    def _count(self, now: float) -> int:
        if not self._ended and not self._anew:
            longest = min(LONGEST_STEP, SLACK + int(FASTEST * (now - self._looked)))
            self._looked = now
            self._counter.look(longest)
        return self._counter.total

    def _renew(self) -> None:
        """See whether the ring is elsewhere. One that is being set up just now is looked at again later."""
        self._renewed = time.monotonic()
        try:
            found = self._find(RENEW_SECONDS)
        except VirtioError:
            return
        if self._anew or found.areas != self._indices.areas:
            self._indices, self._anew = found, False
            self._counter.restart(found.used)
            self._counter.look(0xFFFF)

    def _find(self, timeout: float) -> Indices:
        device = self.queue.device
        try:
            return indices(device._introspector, device.path, self.queue.index, timeout)
        except UsageError as error:
            raise type(error)(f"{self.called}: {error}") from None


def _follow(queue: VirtioQueue, follower: Follower) -> None:
    """Have the queue's driver tell of resets, where it is ours."""
    guest = queue.device._running.guest
    for driver in guest.drivers if isinstance(guest, ScriptedGuest) else ():
        if driver.id == queue.device.id:
            driver.follow(follower)
