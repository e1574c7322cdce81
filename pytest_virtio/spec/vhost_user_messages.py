"""Messages of the vhost-user protocol: requests of both sides, the header, payloads (vhost-user specification).

Responsible for numbers, names and layouts; it must not know sockets, nor what follows from a message. All is in the
machine's own byte order, which is little-endian here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Annotated

from pytest_virtio.spec.layout import U8, U16, U32, U64, Layout

__all__ = (
    "NO_FD",
    "PAYLOADS",
    "VRING_INDEX_MASK",
    "BackendRequest",
    "Config",
    "Header",
    "HeaderFlag",
    "MemoryRegion",
    "MemoryTable",
    "Number",
    "Request",
    "SingleRegion",
    "VringAddress",
    "VringState",
)


class Request(IntEnum):
    """What the front end, QEMU, asks of the backend ("Front-end message types")."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    GET_SHARED_OBJECT = 41
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43
    GET_SHMEM_CONFIG = 44


class BackendRequest(IntEnum):
    """What the backend asks of QEMU, over a connection of its own ("Back-end message types")."""

    IOTLB_MSG = 1
    CONFIG_CHANGE_MSG = 2
    VRING_HOST_NOTIFIER_MSG = 3
    VRING_CALL = 4
    VRING_ERR = 5
    SHARED_OBJECT_ADD = 6
    SHARED_OBJECT_REMOVE = 7
    SHARED_OBJECT_LOOKUP = 8
    SHMEM_MAP = 9
    SHMEM_UNMAP = 10


class HeaderFlag(IntFlag):
    """Bits of :attr:`Header.flags`; the lowest two are the protocol's version."""

    VERSION_1 = 1
    REPLY = 4
    NEED_REPLY = 8


class Header(Layout):
    """Begins each message; ``length`` bytes of payload follow ("Header", where it is called size)."""

    request: U32
    flags: U32
    length: U32


class Number(Layout):
    """ "A single 64-bit integer"."""

    u64: U64


class VringState(Layout):
    """ "A vring state description"."""

    index: U32
    num: U32


class VringAddress(Layout):
    """ "A vring address description"; addresses are of QEMU's memory, or I/O virtual ones behind an IOMMU."""

    index: U32
    flags: U32
    descriptor: U64
    used: U64
    available: U64
    log: U64


class MemoryRegion(Layout):
    """ "Memory region description"."""

    guest_address: U64
    length: U64
    user_address: U64
    mmap_offset: U64


class MemoryTable(Layout):
    """ "Multiple memory regions description"; the regions follow."""

    regions: U32
    padding: U32 = 0


class SingleRegion(Layout):
    """ "Single memory region description"."""

    padding: U64
    region: MemoryRegion


class Log(Layout):
    """ "Log description"."""

    log_size: U64
    log_offset: U64


class Iotlb(Layout):
    """ "An IOTLB message"."""

    iova: U64
    length: U64
    user_address: U64
    permissions: U8
    type: U8


class Config(Layout):
    """ "Virtio device config space"; its bytes follow."""

    at: U32
    length: U32
    flags: U32


class VringArea(Layout):
    """ "Vring area description"."""

    u64: U64
    length: U64
    at: U64


class Inflight(Layout):
    """ "Inflight description"."""

    mmap_size: U64
    mmap_offset: U64
    num_queues: U16
    queue_size: U16


class SharedObject(Layout):
    """ "VhostUserShared"."""

    uuid: Annotated[bytes, "16s"]


class StateTransfer(Layout):
    """ "Device state transfer parameters"."""

    direction: U32
    phase: U32


class SharedMemoryMap(Layout):
    """ "MMAP request"."""

    shmid: U8
    padding: Annotated[bytes, "7s"]
    fd_offset: U64
    shm_offset: U64
    length: U64
    flags: U64


class SharedMemoryConfig(Layout):
    """ "VIRTIO Shared Memory Region configuration"; the regions' sizes follow."""

    num_regions: U32
    padding: U32


VRING_INDEX_MASK = 0xFF
NO_FD = 0x100
"""In the number that comes with a kick, call or error descriptor: which queue, and that there is none with it."""


def _payloads(known: Mapping[type[Layout], str]) -> dict[str, type[Layout]]:
    return {name: layout for layout, names in known.items() for name in names.split()}


PAYLOADS: Mapping[str, type[Layout]] = _payloads(
    {
        Number: "GET_FEATURES SET_FEATURES GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES GET_QUEUE_NUM SET_VRING_KICK "
        "SET_VRING_CALL SET_VRING_ERR SEND_RARP NET_SET_MTU CLOSE_CRYPTO_SESSION GET_MAX_MEM_SLOTS SET_STATUS "
        "GET_STATUS CHECK_DEVICE_STATE",
        VringState: "SET_VRING_NUM SET_VRING_BASE GET_VRING_BASE SET_VRING_ENABLE SET_VRING_ENDIAN VRING_KICK "
        "VRING_CALL VRING_ERR",
        VringAddress: "SET_VRING_ADDR",
        MemoryTable: "SET_MEM_TABLE",
        SingleRegion: "ADD_MEM_REG REM_MEM_REG",
        Log: "SET_LOG_BASE",
        Iotlb: "IOTLB_MSG",
        Config: "GET_CONFIG SET_CONFIG",
        VringArea: "VRING_HOST_NOTIFIER_MSG",
        Inflight: "GET_INFLIGHT_FD SET_INFLIGHT_FD",
        SharedObject: "GET_SHARED_OBJECT SHARED_OBJECT_ADD SHARED_OBJECT_REMOVE SHARED_OBJECT_LOOKUP",
        StateTransfer: "SET_DEVICE_STATE_FD",
        SharedMemoryMap: "SHMEM_MAP SHMEM_UNMAP",
        SharedMemoryConfig: "GET_SHMEM_CONFIG",
    }
)
"""By a request's name, of either side; requests that are not here have no payload, or one that nothing says of. A reply
has its request's layout, and a mere acknowledgement is a :class:`Number` ("REPLY_ACK")."""
