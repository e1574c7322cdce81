"""The PMEM device, id 27: features, queues, configuration space, requests (virtio 1.3 section 5.19, Linux
virtio_pmem.h).

It must not know where the memory is mapped, nor when a guest flushes it.
"""

from __future__ import annotations

from enum import IntEnum

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.layout import U32, U64, Layout
from pytest_virtio.spec.queues import in_order

__all__ = (
    "PMEM",
    "PmemFeature",
    "PmemConfig",
    "PmemReq",
    "PmemReqType",
    "PmemResp",
)


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


class PmemConfig(Layout):
    """``struct virtio_pmem_config`` (section 5.19.4); of no meaning with SHMEM_REGION. ``size_`` is its ``size``."""

    start: U64
    size_: U64


class PmemReqType(IntEnum):
    """VIRTIO_PMEM_REQ_TYPE_* (section 5.19)."""

    FLUSH = 0


class PmemReq(Layout):
    """``struct virtio_pmem_req`` (section 5.19)."""

    type: U32 = PmemReqType.FLUSH


class PmemResp(Layout):
    """``struct virtio_pmem_resp`` (section 5.19): 0, or anything else when the flush failed."""

    ret: U32
