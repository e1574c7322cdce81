"""The memory device, id 24: features, queues, configuration space, requests (virtio 1.3 section 5.15, Linux
virtio_mem.h).

It must not know which blocks a guest wants plugged, nor when.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.layout import U16, U64, Layout
from pytest_virtio.spec.queues import in_order

__all__ = (
    "MEM",
    "MemFeature",
    "MemConfig",
    "MemReq",
    "MemReqBlocks",
    "MemReqType",
    "MemResp",
    "MemRespState",
    "MemRespType",
    "MemState",
)


class MemFeature(Feature, prefix="VIRTIO_MEM_F_"):
    """Feature bits of the memory device."""

    ACPI_PXM = 0
    UNPLUGGED_INACCESSIBLE = 1
    PERSISTENT_SUSPEND = 2


MEM = DeviceType(
    24,
    "mem",
    "memory device",
    MemFeature,
    in_order(("request", "guest-request", "guest_request")),
)


class MemConfig(Layout):
    """``struct virtio_mem_config`` (section 5.15.4): the driver writes nothing of it."""

    block_size: U64
    node_id: U16
    padding: Annotated[bytes, "6s"]
    addr: U64
    region_size: U64
    usable_region_size: U64
    plugged_size: U64
    requested_size: U64


class MemReqType(IntEnum):
    """VIRTIO_MEM_REQ_* (section 5.15.6)."""

    PLUG = 0
    UNPLUG = 1
    UNPLUG_ALL = 2
    STATE = 3


class MemReqBlocks(Layout):
    """``struct virtio_mem_req_plug``, ``_unplug`` and ``_state``, which are alike (section 5.15.6)."""

    addr: U64
    nb_blocks: U16
    padding: Annotated[bytes, "6s"] = bytes(6)


class MemReq(Layout):
    """``struct virtio_mem_req``, 24 bytes (section 5.15.6); ``u`` is its union, of no meaning to UNPLUG_ALL."""

    type: U16
    padding: Annotated[bytes, "6s"] = bytes(6)
    u: MemReqBlocks = MemReqBlocks(0, 0)


class MemRespType(IntEnum):
    """VIRTIO_MEM_RESP_* (section 5.15.6)."""

    ACK = 0
    NACK = 1
    BUSY = 2
    ERROR = 3


class MemState(IntEnum):
    """VIRTIO_MEM_STATE_* (section 5.15.6.6)."""

    PLUGGED = 0
    UNPLUGGED = 1
    MIXED = 2


class MemRespState(Layout):
    """``struct virtio_mem_resp_state`` (section 5.15.6.6); Linux calls ``type`` ``state``."""

    type: U16


class MemResp(Layout):
    """``struct virtio_mem_resp``, 10 bytes (section 5.15.6); ``u`` is its union, of no meaning but to STATE."""

    type: U16
    padding: Annotated[bytes, "6s"]
    u: MemRespState
