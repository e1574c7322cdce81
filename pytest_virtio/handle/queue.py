"""``dev.queue(n)``: one virtqueue.

Responsible for the queue's verbs; must not know how a ring is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_virtio.errors import NotSupportedError
from pytest_virtio.launch import QUERY_SECONDS
from pytest_virtio.model.queue import VirtioQueueElement, VirtQueueStatus, VirtVhostQueueStatus

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

    def element(self, index: int | None = None) -> VirtioQueueElement:
        """The next pending element, or the one in slot ``index`` of the available ring.

        :raises NotSupportedError: always, in this version: QEMU's own command for it can break the device, and rings
            are not decoded from guest RAM yet. ``dev.raw_queue_element()`` is the dangerous way, by its name.
        """
        raise NotSupportedError(
            f"{self.device.id}.{self.name}: element() needs rings decoded from guest RAM, which this version does not "
            f"do yet. {self.device.id}: raw_queue_element({self.index}) asks QEMU, which can break the device."
        )
