"""Rules of the specifications that a driver, a device or its front-end breaks, as far as status and queues show it.

Responsible for the rules and for what of them is broken; it must not know how anything was read or will be printed.
What is not known breaks no rule: a legacy driver, features that nobody tells, a queue that was not read. Nor does a
device break one by what a test keeps from its front-end. Nor does what the specification only recommends (SHOULD), for
a driver may have its reasons, or what takes more to judge: a device's configuration (blk, ZONED beside DISCARD,
5.2.5.1), the transport (SR_IOV, 6.1), whether the driver on a legacy interface is a transitional one (ANY_LAYOUT, 6.3),
what it does with memory (balloon, PAGE_REPORTING, 5.5.3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from pytest_virtio.errors import UsageError
from pytest_virtio.model.features import Features
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.ring import Ring
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.features import Requirement, TransportFeature
from pytest_virtio.spec.ring import MAX_SIZE, PACKED_ALIGNMENT, SPLIT_ALIGNMENT, packed_sizes, split_sizes

__all__ = ("Breach", "Inspected", "breaches")


@dataclass(frozen=True, slots=True)
class Breach:
    """A broken rule.

    :param section: where the rule stands: ``"2.2.1"``; a title where sections have no numbers.
    :param words: what is broken, with the value that was seen.
    :param document: whose section that is.
    """

    section: str
    words: str
    document: str = "virtio 1.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What is known of a device.

    :param modern: whether it has no legacy interface; None if that is not known.
    :param queues: those that were read, by index.
    :param rings: those of them that were decoded, by index.
    :param ram: how many bytes of guest RAM there are from address 0 on, up to the machine's hole; None if that is not
        known.
    :param masked: the bits of what its vhost backend offers that the test keeps from QEMU.
    """

    status: VirtioStatus
    modern: bool | None = None
    queues: Mapping[int, VirtQueueStatus] = field(default_factory=dict)
    rings: Mapping[int, Ring] = field(default_factory=dict)
    ram: int | None = None
    masked: int = 0


def breaches(device: Inspected) -> tuple[Breach, ...]:
    """Return what is broken, in the order of an initialisation; empty when nothing is known to be."""
    return tuple(breach for rule in _RULES for breach in rule(device))


def _gave_up(device: Inspected) -> Iterator[Breach]:
    status = device.status
    shown = ", ".join(sorted(status.status))
    if "FAILED" in status.status:
        yield Breach("2.1", f"the driver gave the device up: status {shown}")
    if "NEEDS_RESET" in status.status:
        yield Breach("2.1.2", f"the device met an error that it can't get out of by itself: status {shown}")
    elif status.broken:
        yield Breach("2.1.2", "the device met an error and stopped, and does not set DEVICE_NEEDS_RESET: broken true")


def _order(device: Inspected) -> Iterator[Breach]:
    status = device.status.status
    shown = ", ".join(sorted(status))
    if "DRIVER_OK" in status and "FEATURES_OK" not in status and _is_modern(device):
        yield Breach("3.1.1", f"DRIVER_OK without FEATURES_OK: status {shown}")
    for later, earlier in (("DRIVER_OK", "DRIVER"), ("FEATURES_OK", "DRIVER"), ("DRIVER", "ACKNOWLEDGE")):
        if later in status and earlier not in status:
            yield Breach("3.1.1", f"{later} without {earlier}: status {shown}")


def _is_modern(device: Inspected) -> bool:
    """Whether the driver is known to be no legacy one, which sets no FEATURES_OK and rightly so (3.1.2)."""
    return bool(device.modern) or _has(device.status, TransportFeature.VERSION_1)


def _version(device: Inspected) -> Iterator[Breach]:
    status = device.status
    settled = "FEATURES_OK" in status.status
    if settled and not status.guest_features.untold and not _has(status, TransportFeature.VERSION_1):
        offered = status.host_features.bits >> TransportFeature.VERSION_1 & 1
        if device.masked >> TransportFeature.VERSION_1 & 1:
            return
        what = "offered, and not acknowledged by the driver" if offered else "not offered, on a modern interface"
        yield Breach("6.1" if offered else "6.2", f"VIRTIO_F_VERSION_1 {what}")


def _only_offered(device: Inspected) -> Iterator[Breach]:
    guest, host = device.status.guest_features, device.status.host_features
    if not guest.untold and (extra := guest.bits & ~host.bits):
        names = ", ".join(Features(extra, guest.feature_names))
        yield Breach("2.2.1", f"acknowledged by the driver, not offered by the device: {names}")


def _requirements_of_driver(device: Inspected) -> Iterator[Breach]:
    for requirement in device_type(device.status.device_id).requirements:
        if requirement.section:
            for lacking in _lacking(device.status.guest_features, requirement, "acknowledged", 0):
                yield Breach(requirement.section, lacking)


def _requirements_of_device(device: Inspected) -> Iterator[Breach]:
    for requirement in device_type(device.status.device_id).requirements:
        general = requirement.device_section == "2.2.2"
        why = f", which section {requirement.section} requires" if general else ""
        for lacking in _lacking(device.status.host_features, requirement, "offered", device.masked):
            yield Breach(requirement.device_section, lacking + why)


def _lacking(features: Features, requirement: Requirement, verb: str, masked: int) -> Iterator[str]:
    """A sentence for each feature that is there without what it requires, which was not masked either."""
    if features.untold or any((features.bits | masked) >> feature & 1 for feature in requirement.one_of):
        return
    needed = " or ".join(feature.full_name for feature in requirement.one_of)
    for feature in requirement.features:
        if features.bits >> feature & 1:
            yield f"{feature.full_name} {verb} without {needed}"


def _told_to_backend(device: Inspected) -> Iterator[Breach]:
    """QEMU 7.2 tells a vhost-user-rng EVENT_IDX, QEMU 10.0 a vhost-user-gpu RING_RESET, which these don't offer."""
    vhost = device.status.vhost_dev
    if vhost is not None and (extra := vhost.acked_features.bits & ~vhost.features.bits):
        names = ", ".join(Features(extra, vhost.features.feature_names))
        # VHOST_USER_SET_FEATURES enables what VHOST_USER_GET_FEATURES has offered.
        words = f"told to the vhost backend as acknowledged, not offered by it: {names}"
        yield Breach('"Front-end message types"', words, "vhost-user specification")


def _queues(device: Inspected) -> Iterator[Breach]:
    """The rules on one queue; one that no driver has set up breaks none."""
    if device.status.guest_features.untold or "DRIVER_OK" not in device.status.status:
        return
    for index, queue in device.queues.items():
        if queue.vring_desc and queue.vring_num:
            wrong = list(_size(device, queue)) or [*_areas(device, queue), *_indices(device, queue)]
            yield from (Breach(breach.section, f"queue {index}: {breach.words}") for breach in wrong)


def _size(device: Inspected, queue: VirtQueueStatus) -> Iterator[Breach]:
    size, packed = queue.vring_num, _is_packed(device)
    section = "2.8.10.1" if packed else "2.7"
    try:
        (packed_sizes if packed else split_sizes)(size)
    except UsageError:
        kind = f"1 to {MAX_SIZE}" if packed else f"a power of two up to {MAX_SIZE}"
        yield Breach(section, f"its size is {size}, not {kind}")


def _areas(device: Inspected, queue: VirtQueueStatus) -> Iterator[Breach]:
    packed = _is_packed(device)
    sizes = (packed_sizes if packed else split_sizes)(queue.vring_num)
    section = "2.8.10.1" if packed else "2.7"
    names = ("descriptor area", "driver area", "device area")
    starts = (queue.vring_desc, queue.vring_avail, queue.vring_used)
    areas = list(zip(names, starts, sizes, strict=True))
    for (name, start, _), alignment in zip(areas, PACKED_ALIGNMENT if packed else SPLIT_ALIGNMENT, strict=True):
        if start % alignment:
            yield Breach(section, f"its {name} at {start:#x} is not aligned to {alignment} bytes")
    for (name, start, size), (other, begin, length) in combinations(areas, 2):
        if start < begin + length and begin < start + size:
            yield Breach(
                "2.6", f"its {name} ({size} bytes at {start:#x}) overlaps its {other} ({length} at {begin:#x})"
            )
    # What these are addresses of is up to the platform then (6.1).
    if device.ram is not None and not _has(device.status, TransportFeature.ACCESS_PLATFORM):
        yield from _outside(areas, device.ram)


_FOUR_GIB = 1 << 32


def _outside(areas: Iterable[tuple[str, int, int]], ram: int) -> Iterator[Breach]:
    """Areas in the hole below 4 GiB; what RAM there is above is not looked at."""
    for name, start, size in areas:
        if ram < start + size and start < _FOUR_GIB:
            yield Breach("2.6", f"its {name} ({size} bytes at {start:#x}) is not in guest RAM, which ends at {ram:#x}")


def _indices(device: Inspected, queue: VirtQueueStatus) -> Iterator[Breach]:
    ring = device.rings.get(queue.queue_index)
    # One with faults of its own could not be read, or moved meanwhile.
    if ring is not None and not ring.faults:
        for element in ring.outstanding:
            for fault in element.faults:
                yield Breach("2.8" if ring.packed else "2.7.5", f"its element {element.head}: {fault}")
    if queue.inuse is not None and queue.inuse > queue.vring_num:
        yield Breach("2.7", f"{queue.inuse} elements in flight, in a ring of {queue.vring_num}")
    if not _is_packed(device) and queue.used_idx is not None and queue.shadow_avail_idx is not None:
        with_device = queue.shadow_avail_idx - queue.used_idx & 0xFFFF
        if with_device > queue.vring_num:
            indices = f"avail index {queue.shadow_avail_idx}, used index {queue.used_idx}"
            yield Breach("2.7", f"more is outstanding than its {queue.vring_num} entries: {indices}")


def _is_packed(device: Inspected) -> bool:
    return _has(device.status, TransportFeature.RING_PACKED)


def _has(status: VirtioStatus, feature: int) -> bool:
    """Whether the driver is known to have acknowledged a feature."""
    return not status.guest_features.untold and bool(status.guest_features.bits >> feature & 1)


_RULES: tuple[Callable[[Inspected], Iterator[Breach]], ...] = (
    _gave_up,
    _order,
    _only_offered,
    _version,
    _requirements_of_device,
    _requirements_of_driver,
    _told_to_backend,
    _queues,
)
