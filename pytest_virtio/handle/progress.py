"""Whether a queue moves: the assertions of it, and the counting while a test's own code runs.

Responsible for when indices are looked at, for the thread that does so in a block, and for the verdict; must not know
where the indices lie. There is no event for a write to guest RAM: whoever waits for one looks again and again, with a
sleep in between that leaves the processor to the guest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from pytest_virtio import render
from pytest_virtio.errors import UsageError, VirtioAssertionError, VirtioError
from pytest_virtio.introspect.indices import Indices, indices
from pytest_virtio.launch import QUERY_SECONDS
from pytest_virtio.ring.progress import LONGEST_STEP, Counter, distance
from pytest_virtio.vm.deadline import Deadline

if TYPE_CHECKING:
    from pytest_virtio.handle.queue import VirtioQueue

__all__ = ("IDLE_SECONDS", "PROGRESS_SECONDS", "ProgressBlock", "assert_idle", "wait_progress")

PROGRESS_SECONDS = 5.0
IDLE_SECONDS = 0.2
LOOK_SECONDS = 0.0015
"""Between two looks of somebody who waits: with what the sleep itself takes, a change is seen within 2 ms. The sleep is
what costs, some 40 us of a processor each on a virtual machine; a look costs 2."""
RENEW_SECONDS = 1.0
"""How often QEMU is asked whether the ring is still where it was."""
DOUBT_SECONDS = 0.05
"""The same, while what is read can't be a ring's indices."""
FASTEST = 150_000
"""Buffers a second: more than any guest of QEMU's was seen to do."""
SLACK = 4096


class Follower:
    """Counts one queue's used buffers from now on, wherever the driver moves the ring. Threads may share it.

    :raises UsageError: when no driver has set the queue up.
    :raises NotSupportedError: when its used buffers can't be counted.
    """

    def __init__(self, queue: VirtioQueue) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._indices = self._find(QUERY_SECONDS)
        self._counter = Counter(self._indices.used)
        self._looked = self._renewed = time.monotonic()

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
            now, wrong = time.monotonic(), self._looks_wrong()
            if now - self._renewed >= (DOUBT_SECONDS if wrong else RENEW_SECONDS):
                self._renew()
            elif wrong:
                # Most likely the ring is elsewhere: what stands here does not count until QEMU has said so.
                return self._counter.total
            longest = min(LONGEST_STEP, SLACK + int(FASTEST * (now - self._looked)))
            self._looked = now
            return self._counter.look(longest)

    def renew(self) -> None:
        """Ask QEMU now where the ring is, before a verdict."""
        with self._lock:
            self._renew()

    def standing(self) -> tuple[int | None, int]:
        """The avail index, None of a packed ring, and the used one."""
        used = self._indices.used()
        return (self._indices.avail() if self._indices.avail else None), used

    def _looks_wrong(self) -> bool:
        """Whether there are more outstanding than the ring has entries: then it is no longer a ring."""
        avail, used = self.standing()
        return avail is not None and distance(used, avail) > self._indices.size

    def _renew(self) -> None:
        """See whether the ring is elsewhere. One that is being set up just now is looked at again later."""
        self._renewed = time.monotonic()
        try:
            found = self._find(RENEW_SECONDS)
        except VirtioError:
            return
        if found.areas != self._indices.areas:
            self._indices = found
            self._counter.restart(found.used)
            self._counter.look(0xFFFF)

    def _find(self, timeout: float) -> Indices:
        device = self._queue.device
        try:
            return indices(device._introspector, device.path, self._queue.index, timeout)
        except UsageError as error:
            raise type(error)(f"{_called(self._queue)}: {error}") from None


class ProgressBlock:
    """``with queue.assert_progress(…):``"""

    def __init__(self, queue: VirtioQueue, at_least: int, at_most: int | None, timeout: float) -> None:
        _check_counts(at_least, at_most)
        Deadline.after(timeout)
        self._queue, self._at_least, self._at_most, self._timeout = queue, at_least, at_most, timeout
        # Held until the block ends. To wait for it costs a fifth less than an Event, which makes a lock each time.
        self._lasts = threading.Lock()
        self._follower: Follower | None = None

    @property
    def used(self) -> int:
        """How many buffers the device has given back since the block began.

        :raises UsageError: when it has not begun.
        """
        if self._follower is None:
            raise UsageError("assert_progress() counts in a block: write `with queue.assert_progress() as progress:`")
        return self._follower.look()

    def __enter__(self) -> ProgressBlock:
        """Begin to count."""
        if self._follower is not None:
            raise UsageError("this block has begun before: call assert_progress() again for another")
        self._follower = Follower(self._queue)
        self._lasts.acquire()
        self._before = self._follower.standing()
        self._thread = threading.Thread(
            target=self._sample, args=[self._follower], name="pytest-virtio progress", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        follower = self._follower
        if follower is None:
            return
        try:
            if error is None:
                self._judge(follower)
        finally:
            self._lasts.release()
            self._thread.join()

    def _sample(self, follower: Follower) -> None:
        """Look often enough that nothing is missed, also while the test's code is busy."""
        while not self._lasts.acquire(timeout=follower.seconds):
            try:
                follower.look()
            except VirtioError:
                # The VM has ended; the block's end says so.
                return

    def _judge(self, follower: Follower) -> None:
        follower.renew()
        used = _await(self._queue, follower, self._at_least, Deadline.after(self._timeout))
        if used < self._at_least:
            missing = f"{_amount(used)} within {self._timeout:g} s: {used} used buffers of at least {self._at_least}"
            raise _missing(self._queue, follower, self._before, missing)
        if self._at_most is not None and used > self._at_most:
            verdict = f"too much progress: {used} used buffers of at most {self._at_most}"
            raise _failure(self._queue, follower, self._before, verdict)


def assert_idle(queue: VirtioQueue, seconds: float) -> None:
    """See :meth:`VirtioQueue.assert_idle`."""
    deadline = Deadline.after(seconds)
    follower = Follower(queue)
    before = follower.standing()
    used = _await(queue, follower, 1, deadline)
    if used:
        raise _failure(queue, follower, before, f"not idle: {used} used buffers within {seconds:g} s")


def wait_progress(queue: VirtioQueue, timeout: float) -> int:
    """See :meth:`VirtioQueue.wait_progress`."""
    deadline = Deadline.after(timeout)
    follower = Follower(queue)
    before = follower.standing()
    used = _await(queue, follower, 1, deadline)
    if not used:
        raise _missing(queue, follower, before, f"no progress within {timeout:g} s: 0 used buffers of at least 1")
    return used


def _await(queue: VirtioQueue, follower: Follower, wanted: int, deadline: Deadline) -> int:
    """Wait until so many are used; how many they are then, or at the deadline.

    :raises QemuExitedError: when QEMU ends.
    :raises VirtioAssertionError: when the VM's alarm sounds.
    """
    while True:
        queue.device._running.heed(f"the wait for progress of {_called(queue)}")
        used = follower.look()
        if used >= wanted or deadline.passed():
            return used
        time.sleep(min(LOOK_SECONDS, deadline.remaining()))


def _failure(
    queue: VirtioQueue, follower: Follower, before: tuple[int | None, int], verdict: str
) -> VirtioAssertionError:
    return VirtioAssertionError("\n  ".join([f"{_called(queue)}: {verdict}", *_facts(follower, before)]))


def _missing(
    queue: VirtioQueue, follower: Follower, before: tuple[int | None, int], verdict: str
) -> VirtioAssertionError:
    """The failure of a wait for buffers: with those that have not come."""
    error = _failure(queue, follower, before, verdict)
    return VirtioAssertionError("\n  ".join([str(error), *_stuck(queue)]))


def _stuck(queue: VirtioQueue) -> Iterator[str]:
    """The ring with what the device has to give back; nothing where it can't be read just now."""
    try:
        ring = queue.ring()
    except VirtioError:
        return
    yield from (line.removeprefix("  ") for line in render.ring_picture(ring))


def _facts(follower: Follower, before: tuple[int | None, int]) -> Iterator[str]:
    after = follower.standing()
    yield f"before: {_indices(before)}"
    yield f"after: {_indices(after)}"
    if after[0] is not None:
        yield f"with the device: {distance(after[1], after[0])}"
    if follower.restarts:
        yield f"the queue was set up anew meanwhile ({follower.restarts} times seen); counted from its new beginning"
    yield f"source: {follower.source}"


def _indices(standing: tuple[int | None, int]) -> str:
    avail, used = standing
    return f"used {used}" if avail is None else f"avail {avail}, used {used}"


def _amount(used: int) -> str:
    return "too little progress" if used else "no progress"


def _called(queue: VirtioQueue) -> str:
    return f"{queue.device.id}.{queue.name}"


def _check_counts(at_least: int, at_most: int | None) -> None:
    for name, value in (("at_least", at_least), ("at_most", 0 if at_most is None else at_most)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UsageError(f"assert_progress({name}={value!r}): a number from 0 up is expected")
    if at_most is not None and at_most < at_least:
        raise UsageError(f"assert_progress(at_least={at_least}, at_most={at_most}): there is no such number")
    if at_least == 0 and at_most is None:
        raise UsageError("assert_progress(at_least=0): it can't fail; at_most=0 asserts that nothing is used")
