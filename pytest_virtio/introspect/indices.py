"""Where a queue's indices are, so that they can be read again and again for next to nothing.

Responsible for choosing, once, where the indices are read from and how often that is needed; must not know what is made
of them. Rings are read in guest RAM, whoever serves them: 1 us a look for split ones, 4 us for packed ones of 256.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_virtio.errors import NotSupportedError, UsageError, VirtioError
from pytest_virtio.introspect.introspector import Introspector
from pytest_virtio.introspect.ram import GuestRam
from pytest_virtio.introspect.rings import INDEX_OFFSET
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.ring.progress import PackedUsed
from pytest_virtio.spec.ring import DESCRIPTOR_SIZE
from pytest_virtio.vm.deadline import Deadline

__all__ = ("Indices", "in_ram", "indices")

SPLIT_SECONDS = 0.05
"""Between two looks: a guest does some 10**5 requests a second at most, 5,000 in that time, and an index has 65,536."""
PACKED_SECONDS = 0.002
"""A lap of a packed ring is as long as the ring: 256 entries are 2.5 ms of such a guest."""
ASKED_SECONDS = 0.2
"""Each look costs QEMU some milliseconds where it has to be asked."""

QUESTION_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Indices:
    """The indices of one ring, read anew at each call.

    :param areas: the ring's addresses; with others it is another ring.
    :param used: the used index, 16 bits; of a packed ring one that we keep.
    :param avail: the avail index; None of a packed ring, which has none.
    :param size: entries of the ring.
    :param seconds: how long at the most from one look to the next, so that nothing is missed.
    :param source: by which way they are read.
    """

    areas: tuple[int, int, int]
    used: Callable[[], int]
    avail: Callable[[], int] | None
    size: int
    seconds: float
    source: str


def indices(introspector: Introspector, path: str, queue: int, timeout: float) -> Indices:
    """Find the indices of a queue.

    :param timeout: seconds.
    :raises UsageError: when no driver has set the queue up.
    :raises NotSupportedError: for a ring that can't be read where QEMU can't be asked either, and where it is not told
        whether the ring is packed.
    """
    deadline = Deadline.after(timeout)
    status = introspector.status(path, deadline.remaining())
    told = introspector.queue_status(path, queue, deadline.remaining())
    if not told.vring_desc:
        raise UsageError(f"the queue is not set up: its addresses are 0, and the device is at {_steps(status)}")
    memory = introspector.ram(deadline.remaining())
    return in_ram(status, told, memory) or _asked(introspector, path, status, told)


def in_ram(status: VirtioStatus, told: VirtQueueStatus, memory: GuestRam) -> Indices | None:
    """The indices of a ring in the guest's RAM; None where they can't be read there: it is no RAM, or RAM can't be
    read, addresses are translated by an IOMMU (6.1, VIRTIO_F_ACCESS_PLATFORM), or it is not told of which kind the ring
    is.
    """
    features = status.guest_features
    if features.untold or "VIRTIO_F_ACCESS_PLATFORM" in features:
        return None
    if "VIRTIO_F_RING_PACKED" in features:
        return _packed(told, memory)
    avail, used = told.vring_avail + INDEX_OFFSET, told.vring_used + INDEX_OFFSET
    if not (_can(lambda: memory.load16(avail)) and _can(lambda: memory.load16(used))):
        return None
    source = f"{memory.source}, addresses by {told.source.rpartition(' ')[2]}"
    return Indices(
        _areas(told),
        lambda: memory.load16(used),
        lambda: memory.load16(avail),
        told.vring_num,
        SPLIT_SECONDS,
        source,
    )


def _packed(told: VirtQueueStatus, memory: GuestRam) -> Indices | None:
    length = DESCRIPTOR_SIZE * told.vring_num
    if not _can(lambda: memory.read(told.vring_desc, length)):
        return None
    used = PackedUsed(lambda: memory.read(told.vring_desc, length), told.vring_num)
    return Indices(
        _areas(told),
        used,
        None,
        told.vring_num,
        PACKED_SECONDS,
        f"used descriptors in {memory.source}, counted from those on that stood there at the first look",
    )


def _asked(introspector: Introspector, path: str, status: VirtioStatus, told: VirtQueueStatus) -> Indices:
    """The used index as QEMU tells it, where it may be asked; of a packed ring it would be one of few positions."""
    if told.used_idx is None or status.guest_features.untold or "VIRTIO_F_RING_PACKED" in status.guest_features:
        raise NotSupportedError(
            "used buffers can't be counted: the ring is not in guest RAM that we can read (it lies behind "
            "an IOMMU, or QEMU's memory is closed to us), or it is not told whether it is packed; "
            f"its status is by {told.source}"
        )

    def used() -> int:
        return introspector.queue_status(path, told.queue_index, QUESTION_SECONDS).used_idx or 0

    return Indices(_areas(told), used, None, told.vring_num, ASKED_SECONDS, told.source)


def _can(read: Callable[[], object]) -> bool:
    try:
        read()
    except VirtioError:
        return False
    return True


def _areas(told: VirtQueueStatus) -> tuple[int, int, int]:
    return told.vring_desc, told.vring_avail, told.vring_used


def _steps(status: VirtioStatus) -> str:
    return " ".join(sorted(status.status)) or "reset"
