"""The PMEM device, id 27: feature bits and queues (virtio 1.3 section 5.19, Linux virtio_pmem.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import in_order

__all__ = ("PMEM", "PmemFeature")


class PmemFeature(Feature, prefix="VIRTIO_PMEM_F_"):
    """Feature bits of the PMEM device."""

    SHMEM_REGION = 0


PMEM = DeviceType(
    27,
    "pmem",
    "PMEM device",
    PmemFeature,
    in_order(("request", "req_vq", "requestq")),
)
