"""The IOMMU device, id 23: features, queues, configuration space, requests (virtio 1.3 section 5.13, Linux
virtio_iommu.h).

It must not know which mappings a guest wants, nor what an endpoint is.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Annotated

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.layout import U8, U16, U32, U64, Layout
from pytest_virtio.spec.queues import in_order

__all__ = (
    "IOMMU",
    "IommuFeature",
    "IommuConfig",
    "IommuRange64",
    "IommuRange32",
    "IommuReqHead",
    "IommuReqType",
    "IommuReqTail",
    "IommuStatus",
    "IommuReqAttach",
    "IommuAttachFlag",
    "IommuReqDetach",
    "IommuReqMap",
    "IommuMapFlag",
    "IommuReqUnmap",
    "IommuReqProbe",
    "IommuProbeProperty",
    "IommuProbeType",
    "IommuProbeResvMem",
    "IommuResvMemType",
    "IommuFault",
    "IommuFaultReason",
    "IommuFaultFlag",
)


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
    kept=("event",),
)


class IommuRange64(Layout):
    """``struct virtio_iommu_range_64`` (section 5.13.4); ``end`` is within the range."""

    start: U64
    end: U64


class IommuRange32(Layout):
    """``struct virtio_iommu_range_32`` (section 5.13.4); ``end`` is within the range."""

    start: U32
    end: U32


class IommuConfig(Layout):
    """``struct virtio_iommu_config`` (section 5.13.4): only ``page_size_mask`` is always there.

    The driver writes ``bypass`` alone, with BYPASS_CONFIG.
    """

    page_size_mask: U64
    input_range: IommuRange64
    domain_range: IommuRange32
    probe_size: U32
    bypass: U8
    reserved: Annotated[bytes, "3s"]


class IommuReqType(IntEnum):
    """VIRTIO_IOMMU_T_* (section 5.13.6)."""

    ATTACH = 1
    DETACH = 2
    MAP = 3
    UNMAP = 4
    PROBE = 5


class IommuStatus(IntEnum):
    """VIRTIO_IOMMU_S_* (section 5.13.6)."""

    OK = 0
    IOERR = 1
    UNSUPP = 2
    DEVERR = 3
    INVAL = 4
    RANGE = 5
    NOENT = 6
    FAULT = 7
    NOMEM = 8


class IommuReqHead(Layout):
    """``struct virtio_iommu_req_head``: begins the device-readable part of each request (section 5.13.6)."""

    type: U8
    reserved: Annotated[bytes, "3s"] = bytes(3)


class IommuReqTail(Layout):
    """``struct virtio_iommu_req_tail``: ends each request; written by the device (section 5.13.6).

    A device that can't parse a request uses its buffer with length 0.
    """

    status: U8
    reserved: Annotated[bytes, "3s"]


class IommuAttachFlag(IntFlag):
    """VIRTIO_IOMMU_ATTACH_F_* (section 5.13.6.3)."""

    BYPASS = 1


class IommuReqAttach(Layout, kw_only=True):
    """``struct virtio_iommu_req_attach`` without its tail (section 5.13.6.3)."""

    head: IommuReqHead = IommuReqHead(IommuReqType.ATTACH)
    domain: U32
    endpoint: U32
    flags: U32 = 0
    reserved: Annotated[bytes, "4s"] = bytes(4)


class IommuReqDetach(Layout, kw_only=True):
    """``struct virtio_iommu_req_detach`` without its tail (section 5.13.6.4)."""

    head: IommuReqHead = IommuReqHead(IommuReqType.DETACH)
    domain: U32
    endpoint: U32
    reserved: Annotated[bytes, "8s"] = bytes(8)


class IommuMapFlag(IntFlag):
    """VIRTIO_IOMMU_MAP_F_* (section 5.13.6.5)."""

    READ = 1
    WRITE = 2
    MMIO = 4


class IommuReqMap(Layout, kw_only=True):
    """``struct virtio_iommu_req_map`` without its tail (section 5.13.6.5); ``virt_end`` is within the range."""

    head: IommuReqHead = IommuReqHead(IommuReqType.MAP)
    domain: U32
    virt_start: U64
    virt_end: U64
    phys_start: U64
    flags: U32


class IommuReqUnmap(Layout, kw_only=True):
    """``struct virtio_iommu_req_unmap`` without its tail (section 5.13.6.6); ``virt_end`` is within the range."""

    head: IommuReqHead = IommuReqHead(IommuReqType.UNMAP)
    domain: U32
    virt_start: U64
    virt_end: U64
    reserved: Annotated[bytes, "4s"] = bytes(4)


class IommuReqProbe(Layout, kw_only=True):
    """The device-readable part of ``struct virtio_iommu_req_probe`` (section 5.13.6.7).

    The device writes ``probe_size`` bytes of properties after it, then the tail.
    """

    head: IommuReqHead = IommuReqHead(IommuReqType.PROBE)
    endpoint: U32
    reserved: Annotated[bytes, "64s"] = bytes(64)


class IommuProbeType(IntEnum):
    """VIRTIO_IOMMU_PROBE_T_* (section 5.13.6.8); NONE ends the list."""

    NONE = 0
    RESV_MEM = 1


class IommuProbeProperty(Layout):
    """``struct virtio_iommu_probe_property`` (section 5.13.6.7); ``length`` bytes follow it.

    Only the low 12 bits of ``type`` are the type; the others are reserved.
    """

    type: U16
    length: U16


class IommuResvMemType(IntEnum):
    """VIRTIO_IOMMU_RESV_MEM_T_* (section 5.13.6.8.1)."""

    RESERVED = 0
    MSI = 1


class IommuProbeResvMem(Layout):
    """``struct virtio_iommu_probe_resv_mem`` (section 5.13.6.8.1); ``end`` is within the range."""

    head: IommuProbeProperty
    subtype: U8
    reserved: Annotated[bytes, "3s"]
    start: U64
    end: U64


class IommuFaultReason(IntEnum):
    """VIRTIO_IOMMU_FAULT_R_* (section 5.13.6.9)."""

    UNKNOWN = 0
    DOMAIN = 1
    MAPPING = 2


class IommuFaultFlag(IntFlag):
    """VIRTIO_IOMMU_FAULT_F_* (section 5.13.6.9)."""

    READ = 1 << 0
    WRITE = 1 << 1
    # In Linux's header alone.
    EXEC = 1 << 2
    ADDRESS = 1 << 8


class IommuFault(Layout):
    """``struct virtio_iommu_fault``: what the device writes into a buffer of eventq (section 5.13.6.9)."""

    reason: U8
    reserved: Annotated[bytes, "3s"]
    flags: U32
    endpoint: U32
    reserved1: U32
    address: U64
