"""The SCSI host device, id 8: features, queues, configuration space, requests (virtio 1.3 section 5.6, Linux
virtio_scsi.h).

It must not know SCSI's own commands, statuses and sense data, nor how a request is put into a queue.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Annotated, Final

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.layout import U8, U16, U32, U64, Layout
from pytest_virtio.spec.queues import in_order

__all__ = (
    "SCSI",
    "ScsiFeature",
    "ScsiConfig",
    "ScsiReqCmd",
    "ScsiReqCmdPi",
    "ScsiRespCmd",
    "ScsiTaskAttr",
    "ScsiResponse",
    "ScsiCtrlType",
    "ScsiCtrlTmf",
    "ScsiTmfSubtype",
    "ScsiCtrlAn",
    "ScsiCtrlAnResp",
    "ScsiAsyncEvent",
    "ScsiEvent",
    "ScsiEventType",
    "ScsiResetReason",
    "CDB_DEFAULT_SIZE",
    "SENSE_DEFAULT_SIZE",
    "EVENTS_MISSED",
)

CDB_DEFAULT_SIZE: Final = 32
SENSE_DEFAULT_SIZE: Final = 96
"""``cdb_size`` and ``sense_size`` after a reset (section 5.6.4); the driver may write others."""

EVENTS_MISSED: Final = 0x80000000
"""VIRTIO_SCSI_T_EVENTS_MISSED: set in ``event`` beside the type when events were lost (section 5.6.6.3)."""


class ScsiFeature(Feature, prefix="VIRTIO_SCSI_F_"):
    """Feature bits of the SCSI host device."""

    INOUT = 0
    HOTPLUG = 1
    CHANGE = 2
    T10_PI = 3


SCSI = DeviceType(
    8,
    "scsi",
    "SCSI host device",
    ScsiFeature,
    in_order(("ctrl", "controlq"), ("event", "eventq"), then=("request", "requestq")),
    kept=("event",),
)


class ScsiConfig(Layout):
    """``struct virtio_scsi_config`` (section 5.6.4): all of it is always there.

    The driver writes ``sense_size`` and ``cdb_size`` alone.
    """

    num_queues: U32
    seg_max: U32
    max_sectors: U32
    cmd_per_lun: U32
    event_info_size: U32
    sense_size: U32
    cdb_size: U32
    max_channel: U16
    max_target: U16
    max_lun: U32


class ScsiTaskAttr(IntEnum):
    """Values of ``task_attr`` of a request (section 5.6.6.1)."""

    SIMPLE = 0
    ORDERED = 1
    HEAD = 2
    ACA = 3


class ScsiReqCmd(Layout):
    """The head of ``struct virtio_scsi_req_cmd`` (section 5.6.6.1).

    The CDB follows, filled up with zeros to ``cdb_size`` of configuration space, then the data that go out.
    ``lun`` is 1, target, and two bytes of LUN with 0x40 in the first, then zeros. Linux calls ``id`` ``tag``.
    """

    lun: Annotated[bytes, "8s"]
    id: U64
    task_attr: U8 = ScsiTaskAttr.SIMPLE
    prio: U8 = 0
    crn: U8 = 0


class ScsiReqCmdPi(Layout):
    """The head of ``struct virtio_scsi_req_cmd`` with T10_PI, as Linux and QEMU have it: the CDB follows.

    The specification draws both lengths behind the CDB (section 5.6.6.1).
    """

    lun: Annotated[bytes, "8s"]
    id: U64
    task_attr: U8 = ScsiTaskAttr.SIMPLE
    prio: U8 = 0
    crn: U8 = 0
    pi_bytesout: U32 = 0
    pi_bytesin: U32 = 0


class ScsiResponse(IntEnum):
    """VIRTIO_SCSI_S_*: values of ``response`` (sections 5.6.6.1 and 5.6.6.2); the last three are of controlq alone."""

    OK = 0
    # The name of 0 for task management.
    FUNCTION_COMPLETE = 0
    OVERRUN = 1
    ABORTED = 2
    BAD_TARGET = 3
    RESET = 4
    BUSY = 5
    TRANSPORT_FAILURE = 6
    TARGET_FAILURE = 7
    NEXUS_FAILURE = 8
    FAILURE = 9
    FUNCTION_SUCCEEDED = 10
    FUNCTION_REJECTED = 11
    INCORRECT_LUN = 12


class ScsiRespCmd(Layout):
    """The device-writable head of ``struct virtio_scsi_req_cmd`` (section 5.6.6.1).

    ``sense_size`` bytes of configuration space for sense data follow, ``sense_len`` of which are valid, then the data
    that come in. Linux calls ``residual`` ``resid``.
    """

    sense_len: U32
    residual: U32
    status_qualifier: U16
    status: U8
    response: U8


class ScsiCtrlType(IntEnum):
    """VIRTIO_SCSI_T_*: types of requests of controlq (section 5.6.6.2)."""

    TMF = 0
    AN_QUERY = 1
    AN_SUBSCRIBE = 2


class ScsiTmfSubtype(IntEnum):
    """VIRTIO_SCSI_T_TMF_* (section 5.6.6.2)."""

    ABORT_TASK = 0
    ABORT_TASK_SET = 1
    CLEAR_ACA = 2
    CLEAR_TASK_SET = 3
    I_T_NEXUS_RESET = 4
    LOGICAL_UNIT_RESET = 5
    QUERY_TASK = 6
    QUERY_TASK_SET = 7


class ScsiCtrlTmf(Layout):
    """``struct virtio_scsi_ctrl_tmf`` (section 5.6.6.2) without its end, one byte of :class:`ScsiResponse`."""

    type: U32
    subtype: U32
    lun: Annotated[bytes, "8s"]
    id: U64 = 0


class ScsiAsyncEvent(IntFlag):
    """VIRTIO_SCSI_EVT_ASYNC_*: bits of ``event_requested`` and ``event_actual`` (section 5.6.6.2)."""

    OPERATIONAL_CHANGE = 2
    POWER_MGMT = 4
    EXTERNAL_REQUEST = 8
    MEDIA_CHANGE = 16
    MULTI_HOST = 32
    DEVICE_BUSY = 64


class ScsiCtrlAn(Layout):
    """``struct virtio_scsi_ctrl_an`` (section 5.6.6.2) without its end, :class:`ScsiCtrlAnResp`."""

    type: U32
    lun: Annotated[bytes, "8s"]
    event_requested: U32


class ScsiCtrlAnResp(Layout):
    """The device-writable end of ``struct virtio_scsi_ctrl_an`` (section 5.6.6.2)."""

    event_actual: U32
    response: U8


class ScsiEventType(IntEnum):
    """VIRTIO_SCSI_T_*: values of ``event`` without EVENTS_MISSED (section 5.6.6.3)."""

    NO_EVENT = 0
    TRANSPORT_RESET = 1
    ASYNC_NOTIFY = 2
    PARAM_CHANGE = 3


class ScsiResetReason(IntEnum):
    """VIRTIO_SCSI_EVT_RESET_*: values of ``reason`` with TRANSPORT_RESET (section 5.6.6.3)."""

    HARD = 0
    RESCAN = 1
    REMOVED = 2


class ScsiEvent(Layout):
    """``struct virtio_scsi_event``: what the device writes into a buffer of eventq (section 5.6.6.3)."""

    event: U32
    lun: Annotated[bytes, "8s"]
    reason: U32
