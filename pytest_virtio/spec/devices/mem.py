"""The memory device, id 24: feature bits and queues (virtio 1.3 section 5.15, Linux virtio_mem.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import in_order

__all__ = ("MEM", "MemFeature")


class MemFeature(Feature, prefix="VIRTIO_MEM_F_"):
    """Feature bits of the memory device."""

    ACPI_PXM = 0
    UNPLUGGED_INACCESSIBLE = 1
    PERSISTENT_SUSPEND = 2


MEM = DeviceType(
    24,
    "mem",
    "memory device",
    MemFeature,
    in_order(("request", "guest-request", "guest_request")),
)
