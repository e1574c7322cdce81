"""The block device, id 2: features, queues, configuration space, requests (virtio 1.3 section 5.2, Linux virtio_blk.h).

It must not know how a request is put into a queue, nor when a driver makes which.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Annotated, Final

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature, Requirement, TransportFeature
from pytest_virtio.spec.layout import U8, U16, U32, U64, Layout
from pytest_virtio.spec.queues import in_order

__all__ = (
    "BLK",
    "BlkFeature",
    "BlkConfig",
    "BlkGeometry",
    "BlkTopology",
    "BlkZonedCharacteristics",
    "BlkZonedModel",
    "BlkRequest",
    "BlkRequestType",
    "BlkRequestStatus",
    "BlkDiscardWriteZeroes",
    "BlkDiscardWriteZeroesFlag",
    "BlkLifetime",
    "BlkPreEolInfo",
    "BlkZoneReport",
    "BlkZoneDescriptor",
    "BlkZoneType",
    "BlkZoneState",
    "ID_BYTES",
    "SECTOR_BYTES",
)

SECTOR_BYTES: Final = 512
"""The unit of sectors in requests and configuration space, whatever ``blk_size`` says (section 5.2.5)."""

ID_BYTES: Final = 20
"""How long the answer to GET_ID is: NUL-padded, without a NUL at full length (section 5.2.6)."""


class BlkFeature(Feature, prefix="VIRTIO_BLK_F_"):
    """Feature bits of the block device."""

    # Legacy (section 5.2.3.1), as are SCSI and the name WCE.
    BARRIER = 0
    SIZE_MAX = 1
    SEG_MAX = 2
    GEOMETRY = 4
    RO = 5
    BLK_SIZE = 6
    SCSI = 7
    FLUSH = 9
    WCE = 9
    TOPOLOGY = 10
    CONFIG_WCE = 11
    MQ = 12
    DISCARD = 13
    WRITE_ZEROES = 14
    LIFETIME = 15
    SECURE_ERASE = 16
    ZONED = 17


BLK = DeviceType(
    2,
    "blk",
    "block device",
    BlkFeature,
    in_order(then=("request", "requestq")),
    requirements=(
        # Of what is offered alone: section 5.2.5.2 says what it means when a driver declines FLUSH.
        Requirement((BlkFeature.CONFIG_WCE,), (BlkFeature.FLUSH,), "", "5.2.5.2"),
        # A device without VERSION_1 is a legacy one.
        Requirement((BlkFeature.ZONED,), (TransportFeature.VERSION_1,), "", "5.2.5.2"),
    ),
)


class BlkGeometry(Layout):
    """``struct virtio_blk_geometry`` (section 5.2.4): GEOMETRY."""

    cylinders: U16
    heads: U8
    sectors: U8


class BlkTopology(Layout):
    """``struct virtio_blk_topology`` (section 5.2.4), in blocks of ``blk_size``: TOPOLOGY."""

    physical_block_exp: U8
    alignment_offset: U8
    min_io_size: U16
    opt_io_size: U32


class BlkZonedCharacteristics(Layout):
    """``struct virtio_blk_zoned_characteristics`` (section 5.2.4): ZONED, since virtio 1.3."""

    zone_sectors: U32
    max_open_zones: U32
    max_active_zones: U32
    max_append_sectors: U32
    write_granularity: U32
    model: U8
    unused2: Annotated[bytes, "3s"]


class BlkZonedModel(IntEnum):
    """VIRTIO_BLK_Z_*: values of ``zoned.model`` (section 5.2.4)."""

    NONE = 0
    HM = 1
    HA = 2


class BlkConfig(Layout):
    """``struct virtio_blk_config`` (section 5.2.4): only ``capacity`` is always there, the rest depends on features.

    The driver writes ``writeback`` alone, with CONFIG_WCE; Linux calls it ``wce``.
    """

    capacity: U64
    size_max: U32
    seg_max: U32
    geometry: BlkGeometry
    blk_size: U32
    topology: BlkTopology
    writeback: U8
    unused0: U8
    num_queues: U16
    max_discard_sectors: U32
    max_discard_seg: U32
    discard_sector_alignment: U32
    max_write_zeroes_sectors: U32
    max_write_zeroes_seg: U32
    write_zeroes_may_unmap: U8
    unused1: Annotated[bytes, "3s"]
    max_secure_erase_sectors: U32
    max_secure_erase_seg: U32
    secure_erase_sector_alignment: U32
    zoned: BlkZonedCharacteristics


class BlkRequestType(IntEnum):
    """VIRTIO_BLK_T_* (section 5.2.6)."""

    IN = 0
    OUT = 1
    # Legacy (section 5.2.6.3), and as a flag with OUT.
    SCSI_CMD = 2
    FLUSH = 4
    GET_ID = 8
    GET_LIFETIME = 10
    DISCARD = 11
    WRITE_ZEROES = 13
    SECURE_ERASE = 14
    ZONE_APPEND = 15
    ZONE_REPORT = 16
    ZONE_OPEN = 18
    ZONE_CLOSE = 20
    ZONE_FINISH = 22
    ZONE_RESET = 24
    ZONE_RESET_ALL = 26


class BlkRequestStatus(IntEnum):
    """VIRTIO_BLK_S_*: the byte with which the device ends a request (section 5.2.6)."""

    OK = 0
    IOERR = 1
    UNSUPP = 2
    ZONE_INVALID_CMD = 3
    ZONE_UNALIGNED_WP = 4
    ZONE_OPEN_RESOURCE = 5
    ZONE_ACTIVE_RESOURCE = 6


class BlkRequest(Layout):
    """The head of ``struct virtio_blk_req`` (section 5.2.6); data follow it, and one byte of :class:`BlkRequestStatus`.

    Between data and status a ZONE_APPEND has ``append_sector``, 8 bytes that the device writes, too. ``reserved`` was
    the priority of a legacy request (section 5.2.6.3).
    """

    type: U32
    reserved: U32 = 0
    sector: U64 = 0


class BlkDiscardWriteZeroesFlag(IntFlag):
    """Bits of ``flags`` of a segment (section 5.2.6); UNMAP is for WRITE_ZEROES alone."""

    UNMAP = 1


class BlkDiscardWriteZeroes(Layout):
    """``struct virtio_blk_discard_write_zeroes`` (section 5.2.6): one segment of DISCARD, WRITE_ZEROES, SECURE_ERASE.

    It is little-endian in the header of Linux for legacy devices, too.
    """

    sector: U64
    num_sectors: U32
    flags: U32 = 0


class BlkPreEolInfo(IntEnum):
    """VIRTIO_BLK_PRE_EOL_INFO_* (section 5.2.6)."""

    UNDEFINED = 0
    NORMAL = 1
    WARNING = 2
    URGENT = 3


class BlkLifetime(Layout):
    """``struct virtio_blk_lifetime`` (section 5.2.6): the answer to GET_LIFETIME."""

    pre_eol_info: U16
    device_lifetime_est_typ_a: U16
    device_lifetime_est_typ_b: U16


class BlkZoneReport(Layout):
    """The head of ``struct virtio_blk_zone_report`` (section 5.2.6); ``nr_zones`` descriptors follow it."""

    nr_zones: U64
    reserved: Annotated[bytes, "56s"]


class BlkZoneType(IntEnum):
    """VIRTIO_BLK_ZT_* (section 5.2.6)."""

    CONV = 1
    SWR = 2
    SWP = 3


class BlkZoneState(IntEnum):
    """VIRTIO_BLK_ZS_* (section 5.2.6)."""

    NOT_WP = 0
    EMPTY = 1
    IOPEN = 2
    EOPEN = 3
    CLOSED = 4
    RDONLY = 13
    FULL = 14
    OFFLINE = 15


class BlkZoneDescriptor(Layout):
    """``struct virtio_blk_zone_descriptor`` (section 5.2.6)."""

    z_cap: U64
    z_start: U64
    z_wp: U64
    z_type: U8
    z_state: U8
    reserved: Annotated[bytes, "38s"]
