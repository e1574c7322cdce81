"""The GPU device, id 16: feature bits and queues (virtio 1.3 section 5.7, Linux virtio_gpu.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import in_order

__all__ = ("GPU", "GpuFeature")


class GpuFeature(Feature, prefix="VIRTIO_GPU_F_"):
    """Feature bits of the GPU device."""

    VIRGL = 0
    EDID = 1
    RESOURCE_UUID = 2
    RESOURCE_BLOB = 3
    CONTEXT_INIT = 4
    # Since virtio 1.4.
    BLOB_ALIGNMENT = 5


GPU = DeviceType(
    16,
    "gpu",
    "GPU device",
    GpuFeature,
    in_order(("ctrl", "controlq"), ("cursor", "cursorq")),
)
