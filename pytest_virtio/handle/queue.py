"""``dev.queue(n)``: one virtqueue.

Responsible for the queue's verbs; must not know how a ring is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_virtio.handle.progress import (
    IDLE_SECONDS,
    PROGRESS_SECONDS,
    ProgressBlock,
    assert_idle,
    wait_progress,
)
from pytest_virtio.handle.stuck import one
from pytest_virtio.launch import QUERY_SECONDS
from pytest_virtio.model.queue import VirtioQueueElement, VirtQueueStatus, VirtVhostQueueStatus
from pytest_virtio.model.ring import Ring, RingElement
from pytest_virtio.model.stuck import QueueVerdict

if TYPE_CHECKING:
    from pytest_virtio.handle.device import VirtioDevice

__all__ = ("VirtioQueue",)


class VirtioQueue:
    """One virtqueue of a device."""

    def __init__(self, device: VirtioDevice, index: int, names: tuple[str, ...]) -> None:
        self.device, self.index, self.names = device, index, names

    @property
    def name(self) -> str:
        """The short name: ``"rx0"``."""
        return self.names[0]

    def __repr__(self) -> str:
        return f"<VirtioQueue {self.device.id}.{self.name} (queue {self.index})>"

    def status(self, *, timeout: float = QUERY_SECONDS) -> VirtQueueStatus:
        """The ring as QEMU's device model sees it; one that a vhost backend serves, as it is in guest RAM, for asking
        QEMU would stop it. ``source`` tells which. Asking does not disturb the device.

        :param timeout: seconds.
        :raises DisturbingQueryError: where it can't be told whether a backend runs or is about to.
        :raises QemuExitedError: when QEMU is gone.
        """
        return self.device._introspector.queue_status(self.device.path, self.index, timeout)

    def stopped_status(self, *, timeout: float = QUERY_SECONDS) -> VirtQueueStatus:
        """The ring as QEMU's device model sees it while the VM stands still. **This stops the VM** for milliseconds
        and lets it go on: block I/O is drained, rings are taken back from vhost backends and given to them again.

        It is the only way to what the device itself counts in a ring that a vhost backend serves (``last_avail_idx``).
        No report takes it.

        :param timeout: seconds.
        :raises DisturbingQueryError: when a request is in flight or a backend's process is stopped, for then QEMU would
            hang in the attempt; nothing has been done then.
        :raises MonitorTimeoutError: when QEMU hangs all the same. The VM may be left stopped.
        """
        return self.device._running.standstill.queue_status(self.device.path, self.index, timeout)

    def vhost_status(self, *, timeout: float = QUERY_SECONDS) -> VirtVhostQueueStatus:
        """The ring as the vhost backend was told of it.

        :param timeout: seconds.
        :raises CommandError: when no vhost backend runs, or the queue is not the backend's.
        """
        return self.device._introspector.vhost_queue_status(self.device.path, self.index, timeout)

    def assert_progress(
        self, at_least: int = 1, at_most: int | None = None, timeout: float = PROGRESS_SECONDS
    ) -> ProgressBlock:
        """Assert that the device gives back so many buffers in a ``with`` block, and what follows it:
        ``with queue.assert_progress(at_least=8): …``. After the block it waits until they are ``at_least``, and not for
        more. A queue that the driver makes anew in the block is counted on from its beginning; what a guest's own
        driver had back in the last 50 ms before it did so may be missed. What an exception leaves is not judged.
        ``as progress`` has them in ``progress.used``.

        Rings in guest RAM are looked at, so nothing is asked of the device. Of packed rings the used descriptors are
        counted, of which VIRTIO_F_IN_ORDER has one for several buffers, every 2 ms: a ring that the guest goes around
        faster is counted too low.

        :param at_least: from 0 up.
        :param at_most: from ``at_least`` up; None for any number.
        :param timeout: seconds to wait after the block.
        :raises VirtioAssertionError: with the indices before and after, and what the device has not given back.
        :raises UsageError: for numbers with which it can't fail; on entering, when no driver has set the queue up.
        :raises NotSupportedError: on entering, of a ring that can neither be read nor asked for.
        :raises QemuExitedError: when QEMU has ended.
        """
        return ProgressBlock(self, at_least, at_most, timeout)

    def assert_idle(self, seconds: float = IDLE_SECONDS) -> None:
        """Assert that the device gives back no buffer for some time from now on. What the driver makes available is no
        matter. It raises as :meth:`assert_progress` does, at once when there is one; and in a VM that is stopped, where
        nobody could tell.

        :param seconds: how long to look.
        """
        assert_idle(self, seconds)

    def wait_progress(self, timeout: float = PROGRESS_SECONDS) -> int:
        """Wait until the device gives back a buffer from now on; how many they were. What it gave back before the call
        does not count: to see the answer to a kick, kick in a ``with queue.assert_progress():`` block. It raises as
        that does.

        :param timeout: seconds.
        """
        return wait_progress(self, timeout)

    def verdict(self, *, timeout: float = QUERY_SECONDS) -> QueueVerdict:
        """Who owes the queue its next move, with the facts that tell. Asking does not disturb the device.

        A verdict that somebody owes something holds for 20 ms at the least: a queue that looks otherwise then, again
        and again, is at work (``Stuck.MOVING``).

        :param timeout: seconds.
        :raises QemuExitedError: when QEMU is gone.
        """
        return one(self.device._running, self.device.path, self.index, timeout)

    def ring(self, *, timeout: float = QUERY_SECONDS) -> Ring:
        """The ring as it lies in guest RAM: its indices, its elements, and what is wrong with it. Reading it disturbs
        nothing, and what can't be read is said in ``faults``.

        The device's own indices are as QEMU told them an instant before; while they move, and of a ring that a vhost
        backend serves, an element is ``outstanding`` rather than pending or in flight. A ring remembers no more
        elements than it has entries: of those in flight that it has forgotten, ``untold`` is the number, and
        ``candidates`` are what they may be.

        :param timeout: seconds.
        :raises DisturbingQueryError: where it can't be told whether a backend runs or is about to.
        :raises QemuExitedError: when QEMU is gone.
        """
        return self.device._introspector.ring(self.device.path, self.index, timeout)

    def elements(self, *, timeout: float = QUERY_SECONDS) -> tuple[RingElement, ...]:
        """The elements of :meth:`ring`, which raises as this does: those that the device has or is to have, the oldest
        first; then those that it has given back, the newest first.

        :param timeout: seconds.
        """
        return self.ring(timeout=timeout).elements

    def element(self, index: int | None = None, *, timeout: float = QUERY_SECONDS) -> VirtioQueueElement:
        """The next pending element, or the one in slot ``index`` of the avail ring, whatever has become of it; from
        guest RAM, which disturbs nothing. What is wrong with it stands in ``extra["faults"]``.

        :param index: modulo the ring's size, as QEMU has it. By default the element that the device takes next; where
            nobody tells what the device has taken, the oldest that it has not given back.
        :param timeout: seconds.
        :raises NoPendingElement: when by default there is none.
        :raises NotSupportedError: when the ring can't be read, or is a packed one, which has no such slots.
        :raises DisturbingQueryError: where it can't be told whether a backend runs or is about to.
        """
        return self.device._introspector.element(self.device.path, self.index, index, timeout)
