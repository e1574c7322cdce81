"""The file system device, id 26: feature bits and queues (virtio 1.3 section 5.11, Linux virtio_fs.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import Queue, in_order

__all__ = ("FS", "FsFeature")


class FsFeature(Feature, prefix="VIRTIO_FS_F_"):
    """Feature bits of the file system device."""

    NOTIFICATION = 0


FS = DeviceType(
    26,
    "fs",
    "file system device",
    FsFeature,
    in_order(
        ("hiprio", "hiprioq"),
        Queue(("notification", "notificationq"), FsFeature.NOTIFICATION),
        then=("request", "requestq"),
    ),
)
