"""The SCSI host device, id 8: feature bits and queues (virtio 1.3 section 5.6, Linux virtio_scsi.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import in_order

__all__ = ("SCSI", "ScsiFeature")


class ScsiFeature(Feature, prefix="VIRTIO_SCSI_F_"):
    """Feature bits of the SCSI host device."""

    INOUT = 0
    HOTPLUG = 1
    CHANGE = 2
    T10_PI = 3


SCSI = DeviceType(
    8,
    "scsi",
    "SCSI host device",
    ScsiFeature,
    in_order(("ctrl", "controlq"), ("event", "eventq"), then=("request", "requestq")),
)
