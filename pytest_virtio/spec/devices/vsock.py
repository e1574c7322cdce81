"""The socket device, id 19: features, queues, configuration space, packet header (virtio 1.3 section 5.10, Linux
virtio_vsock.h).

It must not know how a connection proceeds, nor how credit is counted.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.layout import U16, U32, U64, Layout
from pytest_virtio.spec.queues import in_order

__all__ = (
    "VSOCK",
    "VsockFeature",
    "VsockConfig",
    "VsockHdr",
    "VsockType",
    "VsockOp",
    "VsockShutdown",
    "VsockSeq",
    "VsockEvent",
    "VsockEventId",
    "HOST_CID",
)

HOST_CID: Final = 2
"""The host's address (section 5.10.4)."""


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
    kept=("rx", "event"),
)


class VsockConfig(Layout):
    """``struct virtio_vsock_config`` (section 5.10.4): the guest's own address."""

    guest_cid: U64


class VsockType(IntEnum):
    """VIRTIO_VSOCK_TYPE_* (section 5.10.6.2)."""

    STREAM = 1
    SEQPACKET = 2


class VsockOp(IntEnum):
    """VIRTIO_VSOCK_OP_* (section 5.10.6)."""

    INVALID = 0
    REQUEST = 1
    RESPONSE = 2
    RST = 3
    SHUTDOWN = 4
    RW = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


class VsockShutdown(IntFlag):
    """Bits of ``flags`` with SHUTDOWN (section 5.10.6.5); Linux calls the first RCV."""

    RECEIVE = 1
    SEND = 2


class VsockSeq(IntFlag):
    """VIRTIO_VSOCK_SEQ_*: bits of ``flags`` with RW of a SEQPACKET connection (section 5.10.6.6)."""

    EOM = 1
    EOR = 2


class VsockHdr(Layout):
    """``struct virtio_vsock_hdr``: precedes the ``len`` bytes of each packet of tx and rx (section 5.10.6)."""

    src_cid: U64
    dst_cid: U64
    src_port: U32
    dst_port: U32
    len: U32
    type: U16
    op: U16
    flags: U32 = 0
    buf_alloc: U32 = 0
    fwd_cnt: U32 = 0


class VsockEventId(IntEnum):
    """VIRTIO_VSOCK_EVENT_* (section 5.10.6.7)."""

    TRANSPORT_RESET = 0


class VsockEvent(Layout):
    """``struct virtio_vsock_event``: what the device writes into a buffer of eventq (section 5.10.6.7)."""

    id: U32
