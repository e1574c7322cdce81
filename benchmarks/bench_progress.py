"""progress: how soon a wait sees a used index change, and what waiting and sampling take of a core.

The change is our own write into the rings of a block device's queue, in a thread that notes the time; the device, which
nobody notifies, doesn't look. Aims: 2 ms, and 5 % of a core for whoever waits or samples.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from figures import Figure, single
from harness import in_pytest, interleaved, stopwatch

from pytest_virtio import Blk, VirtioFactory, VirtioQueue
from pytest_virtio.introspect.rings import INDEX_OFFSET
from pytest_virtio.vm.memory import GuestMemory

__all__ = ("measure",)

PAIRS = 50
SEEN_AIM_MS = 2.0
SHARE_AIM_PERCENT = 5.0
REST_SECONDS = 0.02
WAIT_SECONDS = 1.0


def measure(pairs: int = PAIRS) -> list[Figure]:
    """Wait for indices that change, and for some that don't."""
    return in_pytest(partial(_measured, pairs=pairs))


def _measured(factory: VirtioFactory, pairs: int) -> list[Figure]:
    with factory(Blk(), Blk(id="packed", packed="on")) as virtio:
        queue, packed = virtio["blk0"].queue(0), virtio["packed"].queue(0)
        status = queue.status()
        change = partial(_go_on, virtio._running.qemu.memory, status.vring_avail, status.vring_used)
        (seen,) = interleaved("progress: seen", pairs, partial(_seen, queue, change))
        few = max(2, pairs // 10)
        ways = (partial(_waiting, queue), partial(_sampling, queue), partial(_sampling, packed))
        waits, split, laps = interleaved("progress: share of a core", few, *ways)
    return [
        single("progress: change seen after", seen, "ms", SEEN_AIM_MS, []),
        single("progress: core taken by a wait", waits, "%", SHARE_AIM_PERCENT, []),
        single("progress: core taken by sampling, split", split, "%", SHARE_AIM_PERCENT, []),
        single("progress: core taken by sampling, packed", laps, "%", SHARE_AIM_PERCENT, []),
    ]


def _go_on(memory: GuestMemory, *rings: int) -> None:
    for ring in rings:
        memory.store16(ring + INDEX_OFFSET, memory.load16(ring + INDEX_OFFSET) + 1 & 0xFFFF)


def _seen(queue: VirtioQueue, go_on: Callable[[], None]) -> float:
    """Milliseconds from a change to the return of the wait for it."""
    changed = 0.0

    def change() -> None:
        nonlocal changed
        time.sleep(REST_SECONDS)
        changed = time.perf_counter()
        go_on()

    thread = threading.Thread(target=change)
    thread.start()
    queue.wait_progress(WAIT_SECONDS)
    end = time.perf_counter()
    thread.join()
    return (end - changed) * 1e3


def _waiting(queue: VirtioQueue) -> float:
    taken = stopwatch()
    queue.assert_idle(WAIT_SECONDS)
    return _share(taken().cpu)


def _sampling(queue: VirtioQueue) -> float:
    taken = stopwatch()
    with queue.assert_progress(0, at_most=0):
        time.sleep(WAIT_SECONDS)
    return _share(taken().cpu)


def _share(cpu: float) -> float:
    return cpu / WAIT_SECONDS * 100
