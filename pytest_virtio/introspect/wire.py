"""The vhost side of a device by what the witness on the wire saw, where QEMU can't be asked for it.

Responsible for putting what a backend was told into QEMU's own words; must not know who saw it, nor when it is asked
for. Numbers that are QEMU's own business are absent, or 0 as QEMU has them always (kick and call).
"""

from __future__ import annotations

from pytest_virtio.errors import UsageError
from pytest_virtio.model.features import Features
from pytest_virtio.model.queue import VirtVhostQueueStatus
from pytest_virtio.model.status import VhostStatus, VirtioStatus
from pytest_virtio.model.wire import ToldBackend
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.features import TransportFeature
from pytest_virtio.spec.ring import packed_sizes, split_sizes
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES

__all__ = ("SOURCE", "serves", "vhost_queue_status", "vhost_status")

SOURCE = "the wire"


def serves(told: ToldBackend) -> bool:
    """Whether the backend serves some queue now."""
    return any(queue.started for queue in told.queues.values())


def vhost_status(status: VirtioStatus, told: ToldBackend) -> VhostStatus | None:
    """What ``status`` has as ``vhost_dev``; None while the backend serves nothing."""
    if told.features is None or told.acked_features is None or not serves(told):
        return None
    names = device_type(status.device_id).vhost_feature_names
    offered = Features(told.features, names)
    protocol = told.protocol_features
    return VhostStatus(
        nvqs=len(told.queues),
        n_mem_sections=len(told.regions),
        features=offered,
        acked_features=Features(told.acked_features, names, offered=offered),
        protocol_features=None if protocol is None else Features(protocol, PROTOCOL_FEATURE_NAMES),
        max_queues=told.max_queues,
    )


def vhost_queue_status(name: str, queue: int, told: ToldBackend) -> VirtVhostQueueStatus | None:
    """A queue as the backend was told of it; None of one that it does not serve, or was not told all of.

    :param name: what to call the device.
    """
    known = told.queues.get(queue)
    if known is None or not known.started or known.num is None:
        return None
    places = [_guest_address(told, place) for place in (known.descriptor, known.available, known.used)]
    packed = (told.acked_features or 0) >> TransportFeature.RING_PACKED & 1
    try:
        sizes = (packed_sizes if packed else split_sizes)(known.num)
    except UsageError:
        return None
    if None in places:
        return None
    desc, avail, used = (place or 0 for place in places)
    return VirtVhostQueueStatus(
        name=name,
        kick=0,
        call=0,
        num=known.num,
        desc_phys=desc,
        desc_size=sizes[0],
        avail_phys=avail,
        avail_size=sizes[1],
        used_phys=used,
        used_size=sizes[2],
        source=SOURCE,
    )


def _guest_address(told: ToldBackend, address: int | None) -> int | None:
    """Behind an IOMMU addresses are the guest's own, else QEMU's ("A vring address description")."""
    if address is None or (told.acked_features or 0) >> TransportFeature.ACCESS_PLATFORM & 1:
        return address
    return told.guest_address(address)
