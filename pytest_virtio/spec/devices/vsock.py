"""The socket device, id 19: feature bits and queues (virtio 1.3 section 5.10, Linux virtio_vsock.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import in_order

__all__ = ("VSOCK", "VsockFeature")


class VsockFeature(Feature, prefix="VIRTIO_VSOCK_F_"):
    """Feature bits of the socket device."""

    STREAM = 0
    SEQPACKET = 1
    NO_IMPLIED_STREAM = 2


VSOCK = DeviceType(
    19,
    "vsock",
    "socket device",
    VsockFeature,
    in_order(("rx", "rxq"), ("tx", "txq"), ("event", "eventq")),
)
