"""The GPU device, id 16: features, queues, configuration space, 2D commands (virtio 1.3 section 5.7, Linux
virtio_gpu.h).

It must not know 3D commands beyond their numbers, what a picture shows, nor how a command is put into a queue.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Annotated, Final

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature, Requirement
from pytest_virtio.spec.layout import U8, U32, U64, Layout
from pytest_virtio.spec.queues import in_order

__all__ = (
    "GPU",
    "GpuFeature",
    "GpuConfig",
    "GpuEvent",
    "GpuCtrlHdr",
    "GpuCtrlType",
    "GpuCtrlFlag",
    "GpuRect",
    "GpuGetDisplayInfo",
    "GpuRespDisplayInfo",
    "GpuDisplayOne",
    "GpuGetEdid",
    "GpuRespEdid",
    "GpuResourceCreate2d",
    "GpuFormat",
    "GpuResourceUnref",
    "GpuSetScanout",
    "GpuResourceFlush",
    "GpuTransferToHost2d",
    "GpuResourceAttachBacking",
    "GpuMemEntry",
    "GpuResourceDetachBacking",
    "GpuUpdateCursor",
    "GpuCursorPos",
    "MAX_SCANOUTS",
)

MAX_SCANOUTS: Final = 16
"""VIRTIO_GPU_MAX_SCANOUTS (section 5.7.6.8)."""


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
    requirements=(Requirement((GpuFeature.CONTEXT_INIT,), (GpuFeature.VIRGL,), "5.7.3"),),
)


class GpuEvent(IntFlag):
    """VIRTIO_GPU_EVENT_*: bits of ``events_read`` and ``events_clear`` (section 5.7.4.2)."""

    DISPLAY = 1


class GpuConfig(Layout):
    """``struct virtio_gpu_config`` (section 5.7.4): the driver writes ``events_clear`` alone."""

    events_read: U32
    events_clear: U32
    num_scanouts: U32
    num_capsets: U32


class GpuCtrlType(IntEnum):
    """``enum virtio_gpu_ctrl_type``: commands and responses (section 5.7.6.7)."""

    CMD_GET_DISPLAY_INFO = 0x0100
    CMD_RESOURCE_CREATE_2D = 0x0101
    CMD_RESOURCE_UNREF = 0x0102
    CMD_SET_SCANOUT = 0x0103
    CMD_RESOURCE_FLUSH = 0x0104
    CMD_TRANSFER_TO_HOST_2D = 0x0105
    CMD_RESOURCE_ATTACH_BACKING = 0x0106
    CMD_RESOURCE_DETACH_BACKING = 0x0107
    CMD_GET_CAPSET_INFO = 0x0108
    CMD_GET_CAPSET = 0x0109
    CMD_GET_EDID = 0x010A
    CMD_RESOURCE_ASSIGN_UUID = 0x010B
    CMD_RESOURCE_CREATE_BLOB = 0x010C
    CMD_SET_SCANOUT_BLOB = 0x010D

    CMD_CTX_CREATE = 0x0200
    CMD_CTX_DESTROY = 0x0201
    CMD_CTX_ATTACH_RESOURCE = 0x0202
    CMD_CTX_DETACH_RESOURCE = 0x0203
    CMD_RESOURCE_CREATE_3D = 0x0204
    CMD_TRANSFER_TO_HOST_3D = 0x0205
    CMD_TRANSFER_FROM_HOST_3D = 0x0206
    CMD_SUBMIT_3D = 0x0207
    CMD_RESOURCE_MAP_BLOB = 0x0208
    CMD_RESOURCE_UNMAP_BLOB = 0x0209

    CMD_UPDATE_CURSOR = 0x0300
    CMD_MOVE_CURSOR = 0x0301

    RESP_OK_NODATA = 0x1100
    RESP_OK_DISPLAY_INFO = 0x1101
    RESP_OK_CAPSET_INFO = 0x1102
    RESP_OK_CAPSET = 0x1103
    RESP_OK_EDID = 0x1104
    RESP_OK_RESOURCE_UUID = 0x1105
    RESP_OK_MAP_INFO = 0x1106

    RESP_ERR_UNSPEC = 0x1200
    RESP_ERR_OUT_OF_MEMORY = 0x1201
    RESP_ERR_INVALID_SCANOUT_ID = 0x1202
    RESP_ERR_INVALID_RESOURCE_ID = 0x1203
    RESP_ERR_INVALID_CONTEXT_ID = 0x1204
    RESP_ERR_INVALID_PARAMETER = 0x1205


class GpuCtrlFlag(IntFlag):
    """VIRTIO_GPU_FLAG_* (section 5.7.6.7)."""

    FENCE = 1
    INFO_RING_IDX = 2


class GpuCtrlHdr(Layout):
    """``struct virtio_gpu_ctrl_hdr``: begins each command and each response (section 5.7.6.7)."""

    type: U32
    flags: U32 = 0
    fence_id: U64 = 0
    ctx_id: U32 = 0
    ring_idx: U8 = 0
    padding: Annotated[bytes, "3s"] = bytes(3)


class GpuRect(Layout):
    """``struct virtio_gpu_rect`` (section 5.7.6.8)."""

    x: U32
    y: U32
    width: U32
    height: U32


class GpuGetDisplayInfo(Layout):
    """CMD_GET_DISPLAY_INFO, for which the specification has no structure but the header (section 5.7.6.8)."""

    hdr: GpuCtrlHdr = GpuCtrlHdr(GpuCtrlType.CMD_GET_DISPLAY_INFO)


class GpuDisplayOne(Layout):
    """``struct virtio_gpu_display_one``: one scanout (section 5.7.6.8)."""

    r: GpuRect
    enabled: U32
    flags: U32


class GpuRespDisplayInfo(Layout):
    """``struct virtio_gpu_resp_display_info`` (section 5.7.6.8).

    ``GpuDisplayOne.unpack_all(info.pmodes)`` reads its 16 scanouts.
    """

    hdr: GpuCtrlHdr
    pmodes: Annotated[bytes, "384s"]


class GpuGetEdid(Layout, kw_only=True):
    """``struct virtio_gpu_get_edid`` (section 5.7.6.8)."""

    hdr: GpuCtrlHdr = GpuCtrlHdr(GpuCtrlType.CMD_GET_EDID)
    scanout: U32
    padding: U32 = 0


class GpuRespEdid(Layout):
    """``struct virtio_gpu_resp_edid`` (section 5.7.6.8): ``size_``, its ``size``, bytes of ``edid`` are valid."""

    hdr: GpuCtrlHdr
    size_: U32
    padding: U32
    edid: Annotated[bytes, "1024s"]


class GpuFormat(IntEnum):
    """``enum virtio_gpu_formats`` (section 5.7.6.8)."""

    B8G8R8A8_UNORM = 1
    B8G8R8X8_UNORM = 2
    A8R8G8B8_UNORM = 3
    X8R8G8B8_UNORM = 4
    R8G8B8A8_UNORM = 67
    X8B8G8R8_UNORM = 68
    A8B8G8R8_UNORM = 121
    R8G8B8X8_UNORM = 134


class GpuResourceCreate2d(Layout, kw_only=True):
    """``struct virtio_gpu_resource_create_2d`` (section 5.7.6.8); the driver invents ``resource_id``, 1 or more."""

    hdr: GpuCtrlHdr = GpuCtrlHdr(GpuCtrlType.CMD_RESOURCE_CREATE_2D)
    resource_id: U32
    format: U32
    width: U32
    height: U32


class GpuResourceUnref(Layout, kw_only=True):
    """``struct virtio_gpu_resource_unref`` (section 5.7.6.8)."""

    hdr: GpuCtrlHdr = GpuCtrlHdr(GpuCtrlType.CMD_RESOURCE_UNREF)
    resource_id: U32
    padding: U32 = 0


class GpuSetScanout(Layout, kw_only=True):
    """``struct virtio_gpu_set_scanout`` (section 5.7.6.8); resource 0 turns the scanout off."""

    hdr: GpuCtrlHdr = GpuCtrlHdr(GpuCtrlType.CMD_SET_SCANOUT)
    r: GpuRect
    scanout_id: U32
    resource_id: U32


class GpuResourceFlush(Layout, kw_only=True):
    """``struct virtio_gpu_resource_flush`` (section 5.7.6.8)."""

    hdr: GpuCtrlHdr = GpuCtrlHdr(GpuCtrlType.CMD_RESOURCE_FLUSH)
    r: GpuRect
    resource_id: U32
    padding: U32 = 0


class GpuTransferToHost2d(Layout, kw_only=True):
    """``struct virtio_gpu_transfer_to_host_2d`` (section 5.7.6.8); ``offset_`` is its ``offset``."""

    hdr: GpuCtrlHdr = GpuCtrlHdr(GpuCtrlType.CMD_TRANSFER_TO_HOST_2D)
    r: GpuRect
    offset_: U64 = 0
    resource_id: U32
    padding: U32 = 0


class GpuResourceAttachBacking(Layout, kw_only=True):
    """``struct virtio_gpu_resource_attach_backing`` (section 5.7.6.8); ``nr_entries`` GpuMemEntry follow it."""

    hdr: GpuCtrlHdr = GpuCtrlHdr(GpuCtrlType.CMD_RESOURCE_ATTACH_BACKING)
    resource_id: U32
    nr_entries: U32


class GpuMemEntry(Layout):
    """``struct virtio_gpu_mem_entry`` (section 5.7.6.8)."""

    addr: U64
    length: U32
    padding: U32 = 0


class GpuResourceDetachBacking(Layout, kw_only=True):
    """``struct virtio_gpu_resource_detach_backing`` (section 5.7.6.8)."""

    hdr: GpuCtrlHdr = GpuCtrlHdr(GpuCtrlType.CMD_RESOURCE_DETACH_BACKING)
    resource_id: U32
    padding: U32 = 0


class GpuCursorPos(Layout):
    """``struct virtio_gpu_cursor_pos`` (section 5.7.6.10)."""

    scanout_id: U32
    x: U32
    y: U32
    padding: U32 = 0


class GpuUpdateCursor(Layout, kw_only=True):
    """``struct virtio_gpu_update_cursor``, of both commands of cursorq (section 5.7.6.10)."""

    hdr: GpuCtrlHdr = GpuCtrlHdr(GpuCtrlType.CMD_UPDATE_CURSOR)
    pos: GpuCursorPos
    resource_id: U32
    hot_x: U32 = 0
    hot_y: U32 = 0
    padding: U32 = 0
