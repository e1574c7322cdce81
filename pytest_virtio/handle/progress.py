"""Whether a queue moves: the assertions of it, and the counting while a test's own code runs.

Responsible for when indices are looked at, for the thread that does so in a block, and for the verdict; must not know
where the indices lie, nor what becomes of a count when a ring is moved (``handle.follower``). There is no event for a
write to guest RAM: whoever waits for one looks again and again, with a sleep in between that leaves the processor to
the guest.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from pytest_virtio import render
from pytest_virtio.errors import UsageError, VirtioAssertionError, VirtioError
from pytest_virtio.handle.follower import Follower
from pytest_virtio.handle.stuck import one
from pytest_virtio.introspect.watchdog import ASK_SECONDS
from pytest_virtio.launch import QUERY_SECONDS, RunningVm
from pytest_virtio.model.ring import Ring
from pytest_virtio.ring.progress import distance
from pytest_virtio.vm.deadline import Deadline

if TYPE_CHECKING:
    from pytest_virtio.handle.queue import VirtioQueue

__all__ = ("IDLE_SECONDS", "PROGRESS_SECONDS", "ProgressBlock", "assert_idle", "explain_stalls", "wait_progress")

PROGRESS_SECONDS = 5.0
IDLE_SECONDS = 0.2
LOOK_SECONDS = 0.0015
"""Between two looks of somebody who waits: with what the sleep itself takes, a change is seen within 2 ms. The sleep is
what costs, some 40 us of a processor each on a virtual machine; a look costs 2."""
TOO_LATE = (
    "nothing is with the device; what it gave back before the call does not count: "
    "put the kick into `with queue.assert_progress():`"
)


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
        used = _await(follower, self._at_least, Deadline.after(self._timeout))
        if used < self._at_least:
            missing = f"{_amount(used)} within {self._timeout:g} s: {used} used buffers of at least {self._at_least}"
            raise _missing(follower, self._before, missing)
        if self._at_most is not None and used > self._at_most:
            verdict = f"too much progress: {used} used buffers of at most {self._at_most}"
            raise _failure(follower, self._before, verdict)


def assert_idle(queue: VirtioQueue, seconds: float) -> None:
    """See :meth:`VirtioQueue.assert_idle`."""
    follower, deadline = _begin(queue, seconds)
    before = follower.standing()
    used = _await(follower, 1, deadline)
    if used:
        raise _failure(follower, before, f"not idle: {used} used buffers within {seconds:g} s")
    if queue.device.status().vm_running is False:
        verdict = "whether it is idle can't be told: the VM is stopped, and so is every queue; virtio.vm.cont()"
        raise _failure(follower, before, verdict)


def wait_progress(queue: VirtioQueue, timeout: float) -> int:
    """See :meth:`VirtioQueue.wait_progress`."""
    follower, deadline = _begin(queue, timeout)
    before = follower.standing()
    used = _await(follower, 1, deadline)
    if not used:
        missing = f"no progress within {timeout:g} s: 0 used buffers of at least 1"
        raise _missing(follower, before, missing, TOO_LATE)
    return used


def explain_stalls(running: RunningVm) -> None:
    """Have a VM's watchdog, if it has one, say who owes the next move, which it can't know itself."""
    if running.watchdog is not None:
        running.watchdog.explain = lambda path, queue: _owed(running, path, queue, ASK_SECONDS)


def _begin(queue: VirtioQueue, seconds: float) -> tuple[Follower, Deadline]:
    """Begin to count. To find the ring may take longer than there is to wait, and is not part of it."""
    Deadline.after(seconds)
    return Follower(queue), Deadline.after(seconds)


def _await(follower: Follower, wanted: int, deadline: Deadline) -> int:
    """Wait until so many are used; how many they are then, or at the deadline.

    :raises QemuExitedError: when QEMU ends.
    :raises VirtioAssertionError: when the VM's alarm sounds.
    """
    while True:
        follower.queue.device._running.heed(f"the wait for progress of {follower.called}")
        used = follower.look()
        if used >= wanted or deadline.passed():
            return used
        time.sleep(min(LOOK_SECONDS, deadline.remaining()))


def _failure(follower: Follower, before: tuple[int | None, int], verdict: str) -> VirtioAssertionError:
    return VirtioAssertionError("\n  ".join([f"{follower.called}: {verdict}", *_facts(follower, before)]))


def _missing(follower: Follower, before: tuple[int | None, int], verdict: str, idle: str = "") -> VirtioAssertionError:
    """The failure of a wait for buffers: with who owes the next move, and those that have not come.

    :param idle: what to say where the device has nothing to give back.
    """
    queue, ring = follower.queue, _ring(follower.queue)
    owed = _owed(queue.device._running, queue.device.path, queue.index, QUERY_SECONDS)
    hint = [idle] if idle and ring is not None and ring.count == 0 else []
    picture = [line.removeprefix("  ") for line in render.ring_picture(ring)] if ring else []
    error = _failure(follower, before, "\n  ".join([verdict, *hint, *owed]))
    return VirtioAssertionError("\n  ".join([str(error), *picture]))


def _owed(running: RunningVm, path: str, queue: int, timeout: float) -> Iterator[str]:
    """Yield who owes a queue its next move; nothing where that can't be asked just now."""
    with contextlib.suppress(VirtioError):
        yield from render.stuck(one(running, path, queue, timeout))


def _ring(queue: VirtioQueue) -> Ring | None:
    """The ring; None where it can't be read just now."""
    with contextlib.suppress(VirtioError):
        return queue.ring()
    return None


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


def _check_counts(at_least: int, at_most: int | None) -> None:
    for name, value in (("at_least", at_least), ("at_most", 0 if at_most is None else at_most)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UsageError(f"assert_progress({name}={value!r}): a number from 0 up is expected")
    if at_most is not None and at_most < at_least:
        raise UsageError(f"assert_progress(at_least={at_least}, at_most={at_most}): there is no such number")
    if at_least == 0 and at_most is None:
        raise UsageError("assert_progress(at_least=0): it can't fail; at_most=0 asserts that nothing is used")
