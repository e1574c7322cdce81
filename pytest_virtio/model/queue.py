"""The state of a virtqueue: of the device's ring, of the vhost backend's view of it, and of one element in it.

Responsible for the fields and their meaning; it must not know how a ring is read, and it judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = (
    "VirtQueueStatus",
    "VirtVhostQueueStatus",
    "VirtioQueueElement",
    "VirtioRingAvail",
    "VirtioRingDesc",
    "VirtioRingUsed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtQueueStatus:
    """A virtqueue. Field names are QAPI's, ``None`` means that this source does not tell; addresses are guest-physical.

    Ring indices run freely over 16 bits in a split ring; in a packed ring they are positions 0..num-1. Of a ring that a
    vhost backend serves, the indices are those in guest RAM.

    :param name: QEMU's name for the device id.
    :param queue_index: 0..1023.
    :param inuse: elements that the device took and has not given back.
    :param vring_num: entries of the ring.
    :param vring_num_default: the most entries that the device offers.
    :param vring_align: bytes; for legacy drivers.
    :param vring_desc: address of the descriptor table (packed: the ring); 0 until a driver set it.
    :param vring_avail: address of the avail ring (packed: the driver's event structure).
    :param vring_used: address of the used ring (packed: the device's event structure).
    :param used_idx: the device's used index.
    :param signalled_used: used index when the driver was last interrupted.
    :param signalled_used_valid: whether that holds.
    :param last_avail_idx: the next entry of the avail ring that the device will take.
    :param shadow_avail_idx: the driver's avail index as the device last read it; from guest RAM, as it is now.
    :param source: by which way the answer was got.
    :param extra: reply keys that are in no table.
    """

    name: str
    queue_index: int
    inuse: int | None = None
    vring_num: int
    vring_num_default: int | None = None
    vring_align: int | None = None
    vring_desc: int
    vring_avail: int
    vring_used: int
    used_idx: int | None = None
    signalled_used: int | None = None
    signalled_used_valid: bool | None = None
    last_avail_idx: int | None = None
    shadow_avail_idx: int | None = None
    source: str
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtVhostQueueStatus:
    """A virtqueue as QEMU's vhost layer sees it. Field names are QAPI's.

    :param name: QEMU's name for the device id.
    :param kick: file descriptor number of the kick eventfd, in QEMU.
    :param call: file descriptor number of the call eventfd, in QEMU.
    :param num: entries of the ring.
    :param desc_phys: guest-physical address of the descriptor table; likewise ``avail_phys``, ``used_phys``.
    :param desc_size: bytes; likewise ``avail_size``, ``used_size``.
    :param desc: QEMU's own address of it; ``None`` in QEMU 11.1 and later; likewise ``avail``, ``used``.
    :param source: by which way the answer was got.
    :param extra: reply keys that are in no table.
    """

    name: str
    kick: int
    call: int
    num: int
    desc_phys: int
    desc_size: int
    avail_phys: int
    avail_size: int
    used_phys: int
    used_size: int
    desc: int | None = None
    avail: int | None = None
    used: int | None = None
    source: str
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class VirtioRingDesc:
    """A descriptor.

    :param addr: guest-physical address of the buffer.
    :param len: its length in bytes, 32 bits wide.
    :param flags: of ``"next"``, ``"write"``, ``"indirect"``; packed: also ``"avail"``, ``"used"``.
    """

    addr: int
    len: int
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class VirtioRingAvail:
    """The avail ring: its flags and free-running index, and the entry that was asked for (a descriptor's index)."""

    flags: int
    idx: int
    ring: int


@dataclass(frozen=True, slots=True)
class VirtioRingUsed:
    """The used ring: its flags and free-running index."""

    flags: int
    idx: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtioQueueElement:
    """An element of a split virtqueue: a chain of descriptors.

    :param name: QEMU's name for the device id.
    :param index: the chain's head: an index into the descriptor table.
    :param descs: in order of the chain, head first; an indirect table stands in the place of its descriptor.
    :param avail: the avail ring when it was read.
    :param used: the used ring when it was read.
    :param source: by which way the answer was got.
    :param extra: reply keys that are in no table.
    """

    name: str
    index: int
    descs: tuple[VirtioRingDesc, ...]
    avail: VirtioRingAvail
    used: VirtioRingUsed
    source: str
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)
