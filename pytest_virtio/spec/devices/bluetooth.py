"""The Bluetooth device, id 40: feature bits and queues (Linux virtio_bt.h; virtio 1.3 only reserves the id).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import in_order

__all__ = ("BLUETOOTH", "BluetoothFeature")


class BluetoothFeature(Feature, prefix="VIRTIO_BT_F_"):
    """Feature bits of the Bluetooth device."""

    VND_HCI = 0
    MSFT_EXT = 1
    AOSP_EXT = 2
    CONFIG_V2 = 3


BLUETOOTH = DeviceType(
    40,
    "bt",
    "Bluetooth device",
    BluetoothFeature,
    in_order(("tx", "txq"), ("rx", "rxq")),
    kept=("rx",),
)
