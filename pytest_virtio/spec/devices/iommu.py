"""The IOMMU device, id 23: feature bits and queues (virtio 1.3 section 5.13, Linux virtio_iommu.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import in_order

__all__ = ("IOMMU", "IommuFeature")


class IommuFeature(Feature, prefix="VIRTIO_IOMMU_F_"):
    """Feature bits of the IOMMU device."""

    INPUT_RANGE = 0
    DOMAIN_RANGE = 1
    MAP_UNMAP = 2
    # Superseded by BYPASS_CONFIG (section 5.13.3).
    BYPASS = 3
    PROBE = 4
    MMIO = 5
    BYPASS_CONFIG = 6


IOMMU = DeviceType(
    23,
    "iommu",
    "IOMMU device",
    IommuFeature,
    in_order(("request", "requestq"), ("event", "eventq")),
)
