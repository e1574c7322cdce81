"""The SCMI device, id 32: feature bits and queues (virtio 1.3 section 5.17, Linux virtio_scmi.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import Queue, in_order

__all__ = ("SCMI", "ScmiFeature")


class ScmiFeature(Feature, prefix="VIRTIO_SCMI_F_"):
    """Feature bits of the SCMI device."""

    P2A_CHANNELS = 0
    SHARED_MEMORY = 1


SCMI = DeviceType(
    32,
    "scmi",
    "SCMI device",
    ScmiFeature,
    in_order(("cmd", "cmdq"), Queue(("event", "eventq"), ScmiFeature.P2A_CHANNELS)),
    kept=("event",),
)
