"""Virtqueues from guest RAM, and what must not be asked of QEMU while a vhost backend serves them.

Responsible for joining what is told of a ring with what stands in RAM; must not know how the telling is asked for, nor
how a ring is laid out (``ring``).
"""

from __future__ import annotations

from dataclasses import replace

from pytest_virtio.errors import NoPendingElement, NotSupportedError, VirtioError
from pytest_virtio.introspect.ram import GuestRam
from pytest_virtio.model.queue import (
    VirtioQueueElement,
    VirtioRingAvail,
    VirtioRingUsed,
    VirtQueueStatus,
    VirtVhostQueueStatus,
)
from pytest_virtio.model.ring import Ring
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.ring.decode import Told, decode, decode_slot
from pytest_virtio.spec.ring import Areas

__all__ = ("element_in_ram", "has_indices", "queue_in_ram", "ring_in_ram")

INDEX_OFFSET = 2
"""Of ``idx`` in the avail and in the used ring, behind 16 bits of flags (virtio 1.3 sections 2.7.6 and 2.7.8)."""
ADDRESSES_BY = ", addresses by "


def queue_in_ram(index: int, told: VirtVhostQueueStatus, memory: GuestRam | None) -> VirtQueueStatus:
    """A queue whose addresses are told, its indices read from RAM.

    :param memory: the guest's RAM; None where the indices are not there.
    """
    used, avail = _index(memory, told.used_phys), _index(memory, told.avail_phys)
    return VirtQueueStatus(
        name=told.name,
        queue_index=index,
        vring_num=told.num,
        vring_desc=told.desc_phys,
        vring_avail=told.avail_phys,
        vring_used=told.used_phys,
        used_idx=used,
        shadow_avail_idx=avail,
        source=told.source if memory is None or used is None else f"{memory.source}{ADDRESSES_BY}{told.source}",
    )


def ring_in_ram(status: VirtioStatus, queue: VirtQueueStatus, memory: GuestRam, iommu: bool) -> Ring:
    """A ring of a device, from what is told of both; what keeps it from being read is said in its faults.

    :param iommu: whether the VM has an IOMMU.
    """
    told = _told(status, queue)
    if not queue.vring_desc:
        return told.ring()
    why = _unreadable(status, iommu)
    if why:
        return told.ring(faults=(why,))
    return replace(decode(memory, told), source=_source(memory, queue))


def element_in_ram(
    status: VirtioStatus, queue: VirtQueueStatus, memory: GuestRam, iommu: bool, slot: int | None
) -> VirtioQueueElement:
    """The element in a slot of the avail ring; by default the next one that the device will take or, where nobody tells
    what it has taken, the oldest that it has not given back.

    :raises NoPendingElement: when by default there is none.
    :raises NotSupportedError: when the ring can't be read, or has no avail ring.
    """
    where = f"{status.name}, queue {queue.queue_index}"
    why = _unreadable(status, iommu)
    if why:
        raise NotSupportedError(f"{where}: {why}")
    told = _told(status, queue)
    if told.packed:
        raise NotSupportedError(f"{where}: a packed ring has no avail ring with slots; elements() has what is in it")
    place = _next_slot(decode(memory, told), where) if slot is None else slot
    ring, element = decode_slot(memory, told, place)
    if element is None:
        raise NotSupportedError(f"{where}: the ring can't be read: {'; '.join(ring.faults)}")
    return VirtioQueueElement(
        name=status.name,
        index=element.head,
        descs=element.descs,
        avail=VirtioRingAvail(int(bool(ring.no_interrupt)), ring.avail_idx or 0, element.head),
        used=VirtioRingUsed(int(bool(ring.no_notify)), ring.used_idx or 0),
        source=_source(memory, queue),
        extra={"faults": element.faults} if element.faults else {},
    )


def has_indices(status: VirtioStatus, iommu: bool) -> bool:
    """Whether it is known that a device's rings have indices, and that they stand in RAM where the addresses say."""
    features = status.guest_features
    return not (features.untold or "VIRTIO_F_RING_PACKED" in features or _is_translated(status, iommu))


def _next_slot(ring: Ring, where: str) -> int:
    waiting = ring.in_state("pending") or (() if ring.last_avail_idx is not None else ring.outstanding)
    if not waiting:
        faults = f" ({'; '.join(ring.faults)})" if ring.faults else ""
        raise NoPendingElement(
            f"{where}: no pending element: avail idx {ring.avail_idx}, used idx {ring.used_idx}{faults}"
        )
    return waiting[0].slot


def _told(status: VirtioStatus, queue: VirtQueueStatus) -> Told:
    # Where they are untold the ring is not read, whatever is said of it here.
    features = frozenset[str]() if status.guest_features.untold else status.guest_features
    return Told(
        name=queue.name,
        queue_index=queue.queue_index,
        num=queue.vring_num,
        areas=Areas(queue.vring_desc, queue.vring_avail, queue.vring_used),
        source=queue.source,
        packed="VIRTIO_F_RING_PACKED" in features,
        event_idx="VIRTIO_RING_F_EVENT_IDX" in features,
        in_order="VIRTIO_F_IN_ORDER" in features,
        order="big" if status.device_endian == "big" else "little",
        # Those of a ring that vhost serves are RAM's own, and packed rings have none there.
        used_idx=queue.used_idx,
        last_avail_idx=queue.last_avail_idx,
        inuse=queue.inuse,
    )


def _unreadable(status: VirtioStatus, iommu: bool) -> str:
    """Why a ring is not read, or not to be read; "" where it is."""
    if status.guest_features.untold:
        return f"not read: whether it is split or packed is not told ({status.guest_features.untold})"
    if _is_translated(status, iommu):
        return "not read: it lies behind an IOMMU (ACCESS_PLATFORM is negotiated), so its addresses are not RAM's"
    return ""


def _is_translated(status: VirtioStatus, iommu: bool) -> bool:
    return iommu and "VIRTIO_F_ACCESS_PLATFORM" in status.guest_features


def _source(memory: GuestRam, queue: VirtQueueStatus) -> str:
    """After reading, for only then it is known by which ways."""
    return f"{memory.source}{ADDRESSES_BY}{queue.source.rpartition(ADDRESSES_BY)[2]}"


def _index(memory: GuestRam | None, area: int) -> int | None:
    """None where the area is not in RAM (the driver may write any address), or RAM can't be read."""
    try:
        return memory.load16(area + INDEX_OFFSET) if memory else None
    except VirtioError:
        return None
