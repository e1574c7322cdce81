"""The rpmsg device, id 7: feature bits and queues (Linux virtio_rpmsg_bus.c; virtio 1.3 only reserves the id).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import in_order

__all__ = ("RPMSG", "RpmsgFeature")


class RpmsgFeature(Feature, prefix="VIRTIO_RPMSG_F_"):
    """Feature bits of the rpmsg device."""

    NS = 0


RPMSG = DeviceType(
    7,
    "rpmsg",
    "rpmsg device",
    RpmsgFeature,
    in_order(("rx", "input"), ("tx", "output")),
    kept=("rx",),
)
