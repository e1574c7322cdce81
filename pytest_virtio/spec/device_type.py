"""What a device type is: its id, names, feature bits and queues.

Responsible for the shape alone, so that each device's module can fill it in; it must not know any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from string import digits

from pytest_virtio.spec.features import DEVICE_BITS, Feature, FeatureNames, Requirement, TransportFeature
from pytest_virtio.spec.queues import QueueNames, QueueNaming, generic, in_order
from pytest_virtio.spec.vhost_user import VhostFeature

__all__ = ("DeviceType",)

_ONLY_NUMBERED = in_order()


@dataclass(frozen=True, slots=True)
class DeviceType:
    """A virtio device type (virtio 1.3 section 5).

    :param id: the device id of section 5, 1 or more.
    :param name: our short name: ``"net"``.
    :param title: in words: ``"network device"``.
    :param features: the enum of its own feature bits; ``None`` if it has none.
    :param queues: how its virtqueues are called.
    :param kept: stems of our short names of the queues whose buffers the device keeps until something happens: input,
        events, a stream that is started. Buffers of the others it answers as soon as it can.
    :param requirements: which of its features require which others.
    """

    id: int
    name: str
    title: str
    features: type[Feature] | None = None
    queues: QueueNaming = _ONLY_NUMBERED
    kept: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()

    @property
    def feature_names(self) -> FeatureNames:
        """The names of what such a device offers and a driver acknowledges."""
        return _device_names(self)

    @property
    def vhost_feature_names(self) -> FeatureNames:
        """The names of what QEMU and such a device's vhost backend agree on: bit 30 means another thing there."""
        return _vhost_names(self)

    def foreign_bits(self, features: int) -> tuple[int, ...]:
        """Return which of some feature bits are in the ranges of a device type's own, and are not known of this one."""
        own = (bit for bits in DEVICE_BITS for bit in bits if features >> bit & 1)
        return tuple(bit for bit in own if not self.feature_names.is_known(bit))

    def queue_names(self, count: int, features: int) -> tuple[tuple[str, ...], ...]:
        """Return the accepted names of each queue by index, our short one first; ``("queue7",)`` for one without.

        :param count: how many queues the device has, 0 or more: for some types the last one is the control queue.
        :param features: the offered feature bits, on which optional queues depend.
        """
        names: list[QueueNames] = list(islice(self.queues(count, features), count))
        return tuple(names) + tuple(generic(index) for index in range(len(names), count))

    def answered_queues(self, count: int, features: int) -> tuple[int, ...]:
        """Return the indices of the queues whose buffers the device has to give back by itself. A queue that has no
        name is of unknown purpose, and none of them.

        :param count: how many queues the device has; ``features``: those offered, as for :meth:`queue_names`.
        """
        return tuple(
            index
            for index, (name, *_) in enumerate(self.queue_names(count, features))
            if (name,) != generic(index) and name.rstrip(digits) not in self.kept
        )

    def _own_tables(self) -> Iterator[type[Feature]]:
        if self.features is not None:
            yield self.features


# Bounded, for the id of an unknown type comes out of a reply.
@lru_cache(maxsize=256)
def _device_names(device: DeviceType) -> FeatureNames:
    return FeatureNames(device.title, *device._own_tables(), TransportFeature, VhostFeature)


@lru_cache(maxsize=256)
def _vhost_names(device: DeviceType) -> FeatureNames:
    return FeatureNames(f"vhost backend of {device.title}", VhostFeature, *device._own_tables(), TransportFeature)
