"""A virtio driver: initialisation step by step, and its queues. It drives any device type.

Responsible for the order and meaning of the steps (virtio 1.3 section 3.1); must not know what a transport's registers
are, nor what any device type's requests are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar, Self

from pytest_virtio.errors import NotSupportedError, UnknownNameError, UsageError
from pytest_virtio.guest.scripted.access import Attachment, DeviceAccess
from pytest_virtio.guest.scripted.queue import DriverQueue
from pytest_virtio.model.features import Features
from pytest_virtio.ring.driver import DriverRing
from pytest_virtio.ring.packed import PackedRing
from pytest_virtio.ring.split import SplitRing
from pytest_virtio.spec.features import Feature, TransportFeature
from pytest_virtio.spec.ring import Areas, legacy_areas, legacy_size, packed_sizes, split_sizes
from pytest_virtio.spec.status import DeviceStatus
from pytest_virtio.vm.deadline import Deadline

__all__ = ("Driver",)

PAGE = 4096
LEGACY_FEATURES = 32
CONFIG_VECTOR = 0
NO_QUEUE = "None is set up."

QueueSizes = Mapping[int | str, int] | int | None

_RING_FEATURES = frozenset(
    {
        TransportFeature.ANY_LAYOUT,
        TransportFeature.INDIRECT_DESC,
        TransportFeature.EVENT_IDX,
        TransportFeature.VERSION_1,
        TransportFeature.ACCESS_PLATFORM,
        TransportFeature.RING_PACKED,
        TransportFeature.IN_ORDER,
        TransportFeature.ORDER_PLATFORM,
        TransportFeature.NOTIFICATION_DATA,
        TransportFeature.RING_RESET,
    }
)
"""The transport's bits that every driver here lives with."""


class Driver(DeviceAccess):
    """A driver for any virtio device. Those of one type (``drivers``) add its requests.

    The steps are methods, in the order in which :meth:`initialise` calls them. Each does what it says whatever was
    done before, so that a test can leave steps out, repeat them or put them in a wrong order; :meth:`set_status` writes
    any status at all.
    """

    understood: ClassVar[frozenset[Feature]] = frozenset()
    """The device type's own feature bits that the driver lives with: what it takes of an offer by default."""

    def __init__(self, attachment: Attachment) -> None:
        super().__init__(attachment)
        self._features, self._without = attachment.features, attachment.without
        self._offer = self.negotiated = Features(0, self.type)
        self.queues: tuple[DriverQueue, ...] = ()
        """The virtqueues that are set up, by index; those that the device doesn't have are left out."""
        self._largest: list[int] = []
        self._sizes: dict[int, int] = {}

    # The steps of virtio 1.3 section 3.1.1.

    def reset(self) -> Self:
        """Step 1: reset the device, end its queues and give back all guest RAM that the driver has taken.

        :raises DriverError: when the status does not become 0 in time (4.1.4.3.2, 4.2.2.2).
        """
        with self.step("reset", self.transport.status_register):
            self.set_status(0)
            self._await_zero(self.deadline())
        self._replace_queues(())
        for block in sorted(self._blocks, reverse=True):
            self.free(block)
        self.negotiated = Features(0, self.type)
        return self

    def acknowledge(self) -> Self:
        """Step 2: the guest has noticed the device."""
        return self._add("acknowledge", DeviceStatus.ACKNOWLEDGE)

    def driver(self) -> Self:
        """Step 3: the guest knows how to drive it."""
        return self._add("driver", DeviceStatus.DRIVER)

    def offered(self) -> Features:
        """Step 4, first half: read what the device offers."""
        with self.step("offered", self.transport.features_register):
            self._offer = Features(self.transport.device_features(), self.type)
        return self._offer

    def negotiate(self, features: Collection[str | int] | None = None) -> Self:
        """Step 4, second half: write the features that the driver takes.

        The driver goes by what it has written from then on, also where the device takes it otherwise: QEMU drops what
        it has not offered, and keeps FEATURES_OK.

        :param features: exactly these, offered or not; by default what ``Scripted`` says, or all that is offered and
            understood.
        :raises UnknownNameError: for a name that such a device can't have.
        :raises NotSupportedError: on a legacy interface for the bits from 32 up, for which it has no register.
        """
        offer = self.offered()
        if isinstance(features, str):
            raise UsageError(f"negotiate({features!r}): a set of features is expected: {{{features!r}}}")
        wanted = self._default(offer) if features is None else features
        chosen = Features.of(wanted, self.type, offered=offer)
        if self.transport.legacy and chosen.bits >> LEGACY_FEATURES:
            high = Features(chosen.bits >> LEGACY_FEATURES << LEGACY_FEATURES, self.type)
            raise NotSupportedError(f"{self.id}: a legacy interface has no register for {', '.join(high)}")
        self.negotiated = chosen
        with self.step(f"negotiate {chosen.bits:#x}", self.transport.features_register):
            self.transport.set_driver_features(self.negotiated.bits)
            self.settle()
        return self

    def features_ok(self) -> Self:
        """Steps 5 and 6: set FEATURES_OK, and see whether the device agrees.

        :raises DriverError: when it does not keep the bit: it refuses this set of features.
        """
        seen = self._add_and_look("features_ok", DeviceStatus.FEATURES_OK)
        if not seen & DeviceStatus.FEATURES_OK:
            refused = f"the device refuses the features {self.negotiated.bits:#x} that were written"
            raise self.unexpected(refused, "FEATURES_OK kept", seen)
        return self

    def setup_queues(self, sizes: QueueSizes = None) -> Self:
        """Step 7: lay out the virtqueues in guest RAM and tell the device; fill those that wait for buffers.

        :param sizes: entries of every queue, or by index or name; by default as many as the device takes.
        :raises UsageError: for a size that no ring can have. More than the device takes is tried.
        :raises NotSupportedError: for any other size than the device's on legacy PCI, where the device chooses.
        :raises UnknownNameError: for a queue that isn't there.
        """
        with self.step("setup_queues", self.transport.queue_register):
            self._largest = self.transport.queue_sizes()
            chosen = self._chosen(sizes)
            self.signal.prepare(self.transport)
            if self.signal.vectors:
                self.transport.set_config_vector(CONFIG_VECTOR)
            self._replace_queues(tuple(self._set_up(index, size) for index, size in chosen.items()))
            self.settle()
        for follower in self._followers_of():
            follower.begin()
        self.populate()
        return self

    def driver_ok(self) -> Self:
        """Step 8: the device is live. Queues that were filled before are notified now.

        :raises DriverError: when the device does not keep DRIVER_OK.
        :raises NeedsResetError: when it breaks at once.
        """
        seen = self._add_and_look("driver_ok", DeviceStatus.DRIVER_OK)
        self.check_needs_reset(seen, "driver_ok")
        if not seen & DeviceStatus.DRIVER_OK:
            raise self.unexpected("the device does not go live", "DRIVER_OK kept", seen)
        for queue in self.queues:
            queue.kick()
        self.started()
        return self

    def initialise(
        self,
        features: Collection[str | int] | None = None,
        sizes: QueueSizes = None,
        timeout: float | None = None,
    ) -> Self:
        """All the steps in order; a legacy interface has no FEATURES_OK (3.1.2). It raises what they raise.

        :param timeout: seconds for each step, if less than :attr:`timeout`.
        """
        with self.in_one_go(timeout):
            self.reset().acknowledge().driver().negotiate(features)
            if not self.transport.legacy:
                self.features_ok()
            return self.setup_queues(sizes).driver_ok()

    # What a device type's driver adds.

    def populate(self) -> None:
        """Fill the queues that the device takes buffers from by itself; called before DRIVER_OK."""

    def started(self) -> None:
        """Do what has to be done with a live device; called after DRIVER_OK."""

    # Queues.

    def has(self, feature: Feature) -> bool:
        """Whether the driver has negotiated a feature."""
        return bool(self.negotiated.bits >> feature & 1)

    def queue(self, which: int | str = 0) -> DriverQueue:
        """A virtqueue that is set up, by index, short name (``"rx0"``) or the specification's (``"receiveq1"``).

        :raises UnknownNameError: naming those that there are.
        """
        for queue in self.queues:
            if which in (queue.index, *queue.names):
                return queue
        known = [name for queue in self.queues for name in (str(queue.index), *queue.names)]
        raise UnknownNameError(f"queue of {self.id}", str(which), known, "" if known else NO_QUEUE)

    def reset_queue(self, which: int | str) -> Self:
        """Reset one queue and end it (2.6.1); :meth:`enable_queue` sets it up again.

        :raises NotSupportedError: when VIRTIO_F_RING_RESET was not negotiated.
        :raises RequestTimeoutError: when the device does not finish in time.
        """
        queue = self.queue(which)
        if not self.has(TransportFeature.RING_RESET):
            raise NotSupportedError(
                f"{self.id}: queue {queue.name} can't be reset: VIRTIO_F_RING_RESET was not negotiated"
            )
        for follower in self._followers_of(queue.index):
            follower.end()
        with self.step(f"reset_queue {queue.name}", self.transport.queue_register):
            self.transport.reset_queue(queue.index)
            self.await_result(
                f"the end of the reset of {queue.name}",
                lambda: not self.transport.queue_in_reset(queue.index),
                self.deadline(),
                lambda: "queue_reset still 1",
            )
        self._replace_queues(tuple(other for other in self.queues if other is not queue))
        return self

    def enable_queue(self, which: int | str, size: int | None = None) -> DriverQueue:
        """Set up a queue that was reset, alone and without :meth:`populate`.

        :param size: its entries; by default as before.
        :raises UnknownNameError: for a queue that isn't there.
        """
        index = self._index(which)
        with self.step(f"enable_queue {self._names(index)[0]}", self.transport.queue_register):
            queue = self._set_up(index, self._sizes.get(index, self._largest[index]) if size is None else size)
            others = (other for other in self.queues if other.index != index)
            self._replace_queues(tuple(sorted((*others, queue), key=lambda one: one.index)))
            self.settle()
        for follower in self._followers_of(index):
            follower.begin()
        return queue

    def config_interrupted(self) -> bool:
        """Whether the device has interrupted for a change of its configuration since the last call."""
        return self.signal.take(self.transport, CONFIG_VECTOR)

    def _default(self, offer: Features) -> frozenset[int]:
        """What to negotiate when the test says nothing: its declaration, or what is offered and understood."""
        if self._features is not None:
            return frozenset(map(self.type.feature_names.bit, self._features))
        without = frozenset(map(self.type.feature_names.bit, self._without))
        known = {int(feature) for feature in (*_RING_FEATURES, *self.understood)} - without
        return frozenset(bit for bit in known if offer.bits >> bit & 1)

    def _add(self, step: str, bit: DeviceStatus) -> Self:
        with self.step(step, self.transport.status_register):
            self.set_status(self._status | bit)
        return self

    def _add_and_look(self, step: str, bit: DeviceStatus) -> int:
        """Set a bit of the status that the device may refuse; the status that it then has."""
        with self.step(step, self.transport.status_register):
            self._write_status(self._status | bit)
            return self.transport.status()

    def _await_zero(self, deadline: Deadline) -> None:
        while seen := self.transport.status():
            if deadline.passed():
                raise self.unexpected(f"the device did not reset within {deadline.seconds:g} s", "0", seen)

    def _names(self, index: int) -> tuple[str, ...]:
        """What the queue is called; which there are depends on what is offered."""
        return self.type.queue_names(len(self._largest), self._offer.bits)[index]

    def _index(self, which: int | str) -> int:
        """The queue's index, among those that the device has."""
        there = {index: (index, *self._names(index)) for index, most in enumerate(self._largest) if most}
        for index, called in there.items():
            if which in called:
                return index
        known = [str(name) for called in there.values() for name in called]
        raise UnknownNameError(f"queue of {self.id}", str(which), known, "" if known else NO_QUEUE)

    def _chosen(self, sizes: QueueSizes) -> dict[int, int]:
        """The size of each queue that is there, by index."""
        there = {index: most for index, most in enumerate(self._largest) if most}
        if sizes is None:
            return there
        chosen = sizes if isinstance(sizes, Mapping) else dict.fromkeys(there, sizes)
        for which, size in chosen.items():
            if not isinstance(size, int):
                raise UsageError(f"size {size!r} of queue {which!r}: a number is expected")
            there[self._index(which)] = size
        return there

    def _replace_queues(self, queues: tuple[DriverQueue, ...]) -> None:
        """From now on these are the queues; those that are no more have ended."""
        for queue in self.queues:
            if queue not in queues:
                queue.end()
        self.queues = queues

    def _set_up(self, index: int, size: int) -> DriverQueue:
        """Lay out one queue and tell the device."""
        areas, blocks = self._areas(size)
        ring = self._ring(areas, size)
        queue = DriverQueue(
            self,
            index,
            self._names(index),
            ring,
            blocks,
            indirect=self.has(TransportFeature.INDIRECT_DESC),
            notification_data=self.has(TransportFeature.NOTIFICATION_DATA),
        )
        queue.vector = min(index + 1, self.signal.vectors - 1) if self.signal.vectors else index + 1
        if self.signal.vectors:
            self.transport.set_queue_vector(index, queue.vector)
        ring.suppress_interrupts(not self.signal.wanted)
        self.transport.setup_queue(index, size, areas)
        self._sizes[index] = size
        return queue

    def _ring(self, areas: Areas, size: int) -> DriverRing:
        event_idx, in_order = self.has(TransportFeature.EVENT_IDX), self.has(TransportFeature.IN_ORDER)
        if self.has(TransportFeature.RING_PACKED):
            return PackedRing(self.memory, areas, size, event_idx=event_idx, in_order=in_order)
        return SplitRing(self.memory, areas, size, order=self.transport.order, event_idx=event_idx, in_order=in_order)

    def _areas(self, size: int) -> tuple[Areas, tuple[int, ...]]:
        """Where a ring of this size goes, and the blocks of guest RAM that it takes."""
        if self.transport.legacy:
            block = self.allocate(legacy_size(size), PAGE)
            return legacy_areas(block, size), (block,)
        sizes = packed_sizes(size) if self.has(TransportFeature.RING_PACKED) else split_sizes(size)
        blocks = tuple(self.allocate(length, PAGE) for length in sizes)
        return Areas(*blocks), blocks
