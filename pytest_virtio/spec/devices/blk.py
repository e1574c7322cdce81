"""The block device, id 2: feature bits and queues (virtio 1.3 section 5.2, Linux virtio_blk.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import in_order

__all__ = ("BLK", "BlkFeature")


class BlkFeature(Feature, prefix="VIRTIO_BLK_F_"):
    """Feature bits of the block device."""

    # Legacy (section 5.2.3.1), as are SCSI and the name WCE.
    BARRIER = 0
    SIZE_MAX = 1
    SEG_MAX = 2
    GEOMETRY = 4
    RO = 5
    BLK_SIZE = 6
    SCSI = 7
    FLUSH = 9
    WCE = 9
    TOPOLOGY = 10
    CONFIG_WCE = 11
    MQ = 12
    DISCARD = 13
    WRITE_ZEROES = 14
    LIFETIME = 15
    SECURE_ERASE = 16
    ZONED = 17


BLK = DeviceType(
    2,
    "blk",
    "block device",
    BlkFeature,
    in_order(then=("request", "requestq")),
)
