"""The CAN device, id 36: feature bits and queues (Linux virtio_can.h; virtio 1.3 only reserves the id).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import in_order

__all__ = ("CAN", "CanFeature")


class CanFeature(Feature, prefix="VIRTIO_CAN_F_"):
    """Feature bits of the CAN device."""

    CAN_CLASSIC = 0
    CAN_FD = 1
    RTR_FRAMES = 2
    LATE_TX_ACK = 3


CAN = DeviceType(
    36,
    "can",
    "CAN device",
    CanFeature,
    in_order(("tx", "txq"), ("rx", "rxq"), ("ctrl", "controlq")),
    kept=("rx",),
)
