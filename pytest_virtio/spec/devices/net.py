"""The network device, id 1: features, queues, configuration space, headers, control (virtio 1.3 section 5.1, Linux
virtio_net.h).

It must not know what is in a packet, how it is put into a queue, nor when a driver gives which command.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import Annotated, Final

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature, Requirement
from pytest_virtio.spec.layout import U8, U16, U32, Layout
from pytest_virtio.spec.queues import QueueNames, generic

__all__ = (
    "NET",
    "NetFeature",
    "NetConfig",
    "NetStatus",
    "NetHashType",
    "NetHdr",
    "NetHdrLegacy",
    "NetHdrHash",
    "NetHdrFlag",
    "NetHdrGso",
    "NetCtrl",
    "NetCtrlClass",
    "NetCtrlRx",
    "NetCtrlMacCommand",
    "NetCtrlVlan",
    "NetCtrlAnnounce",
    "NetCtrlMq",
    "NetCtrlGuestOffloads",
    "NetCtrlMac",
    "NetCtrlMqPairsSet",
    "NetAck",
    "MAC_BYTES",
    "VQ_PAIRS_MIN",
    "VQ_PAIRS_MAX",
)

MAC_BYTES: Final = 6
"""How long an Ethernet address is."""

VQ_PAIRS_MIN: Final = 1
VQ_PAIRS_MAX: Final = 0x8000
"""VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN and MAX (section 5.1.6.5.6)."""


class NetFeature(Feature, prefix="VIRTIO_NET_F_"):
    """Feature bits of the network device."""

    CSUM = 0
    GUEST_CSUM = 1
    CTRL_GUEST_OFFLOADS = 2
    MTU = 3
    MAC = 5
    # Legacy (section 5.1.3.2).
    GSO = 6
    GUEST_TSO4 = 7
    GUEST_TSO6 = 8
    GUEST_ECN = 9
    GUEST_UFO = 10
    HOST_TSO4 = 11
    HOST_TSO6 = 12
    HOST_ECN = 13
    HOST_UFO = 14
    MRG_RXBUF = 15
    STATUS = 16
    CTRL_VQ = 17
    CTRL_RX = 18
    CTRL_VLAN = 19
    CTRL_RX_EXTRA = 20
    GUEST_ANNOUNCE = 21
    MQ = 22
    CTRL_MAC_ADDR = 23
    # 46 and 47 are in Linux's header alone, which maps 65..68 to vhost offload bits with them.
    GUEST_UDP_TUNNEL_GSO_MAPPED = 46
    HOST_UDP_TUNNEL_GSO_MAPPED = 47
    DEVICE_STATS = 50
    HASH_TUNNEL = 51
    VQ_NOTF_COAL = 52
    NOTF_COAL = 53
    GUEST_USO4 = 54
    GUEST_USO6 = 55
    HOST_USO = 56
    HASH_REPORT = 57
    GUEST_HDRLEN = 59
    RSS = 60
    RSC_EXT = 61
    STANDBY = 62
    SPEED_DUPLEX = 63
    # 65..69 since virtio 1.4.
    GUEST_UDP_TUNNEL_GSO = 65
    GUEST_UDP_TUNNEL_GSO_CSUM = 66
    HOST_UDP_TUNNEL_GSO = 67
    HOST_UDP_TUNNEL_GSO_CSUM = 68
    OUT_NET_HEADER = 69


def _queues(count: int, features: int) -> Iterator[QueueNames]:
    """Name pairs of receive and transmit queues, and with CTRL_VQ the last one as the control queue (section 5.1.2).

    A queue that stands alone is no rx: QEMU has the control queue's place also without CTRL_VQ.
    """
    has_control = bool(features >> NetFeature.CTRL_VQ & 1) and count > 0
    paired = (count - has_control) // 2
    for pair in range(paired):
        yield f"rx{pair}", f"receiveq{pair + 1}"
        yield f"tx{pair}", f"transmitq{pair + 1}"
    for index in range(2 * paired, count - has_control):
        yield generic(index)
    if has_control:
        yield "ctrl", "controlq"


def _requirements() -> Iterator[Requirement]:
    """Yield which features require which (section 5.1.3.1)."""
    f, section = NetFeature, "5.1.3.1"
    guest = (f.GUEST_TSO4, f.GUEST_TSO6, f.GUEST_UFO, f.GUEST_USO4, f.GUEST_USO6)
    control = (f.CTRL_RX, f.CTRL_VLAN, f.GUEST_ANNOUNCE, f.MQ, f.CTRL_MAC_ADDR)
    later = (f.NOTF_COAL, f.VQ_NOTF_COAL, f.RSS, f.HASH_TUNNEL)
    yield Requirement(guest, (f.GUEST_CSUM,), section)
    yield Requirement((f.GUEST_ECN,), (f.GUEST_TSO4, f.GUEST_TSO6), section)
    yield Requirement((f.HOST_TSO4, f.HOST_TSO6, f.HOST_UFO, f.HOST_USO), (f.CSUM,), section)
    yield Requirement((f.HOST_ECN, f.RSC_EXT), (f.HOST_TSO4, f.HOST_TSO6), section)
    yield Requirement((*control, *later), (f.CTRL_VQ,), section)
    yield Requirement((f.HASH_TUNNEL,), (f.RSS, f.HASH_REPORT), section)


NET = DeviceType(1, "net", "network device", NetFeature, _queues, kept=("rx",), requirements=tuple(_requirements()))


class NetStatus(IntFlag):
    """VIRTIO_NET_S_*: bits of ``status`` in configuration space (section 5.1.4)."""

    LINK_UP = 1
    ANNOUNCE = 2


class NetHashType(IntFlag):
    """VIRTIO_NET_HASH_TYPE_* (section 5.1.6.4.3); ``hash_report`` of a packet is the bit's number plus 1, or 0."""

    IPv4 = 1 << 0
    TCPv4 = 1 << 1
    UDPv4 = 1 << 2
    IPv6 = 1 << 3
    TCPv6 = 1 << 4
    UDPv6 = 1 << 5
    IP_EX = 1 << 6
    TCP_EX = 1 << 7
    UDP_EX = 1 << 8


class NetConfig(Layout):
    """``struct virtio_net_config`` (section 5.1.4): every field depends on a feature.

    A legacy driver without CTRL_MAC_ADDR writes ``mac``; nothing else is the driver's to write.
    ``supported_tunnel_types`` is there since virtio 1.3, with HASH_TUNNEL.
    """

    mac: Annotated[bytes, "6s"]
    status: U16
    max_virtqueue_pairs: U16
    mtu: U16
    speed: U32
    duplex: U8
    rss_max_key_size: U8
    rss_max_indirection_table_length: U16
    supported_hash_types: U32
    supported_tunnel_types: U32


class NetHdrFlag(IntFlag):
    """VIRTIO_NET_HDR_F_*: bits of ``flags`` (section 5.1.6)."""

    NEEDS_CSUM = 1
    DATA_VALID = 2
    RSC_INFO = 4


class NetHdrGso(IntEnum):
    """VIRTIO_NET_HDR_GSO_*: ``gso_type`` (section 5.1.6); ECN is a bit beside one of the others."""

    NONE = 0
    TCPV4 = 1
    UDP = 3
    TCPV6 = 4
    UDP_L4 = 5
    ECN = 0x80


class NetHdrLegacy(Layout):
    """``struct virtio_net_hdr`` without ``num_buffers``, 10 bytes (section 5.1.6.1).

    It precedes each packet when neither VERSION_1 nor MRG_RXBUF is negotiated, in the guest's byte order.
    """

    flags: U8 = 0
    gso_type: U8 = 0
    hdr_len: U16 = 0
    gso_size: U16 = 0
    csum_start: U16 = 0
    csum_offset: U16 = 0


class NetHdr(Layout):
    """``struct virtio_net_hdr``, 12 bytes (section 5.1.6): precedes each packet with VERSION_1 or MRG_RXBUF.

    ``num_buffers`` is 0 in what is sent; in what is received it counts the buffers of the packet. With RSC_INFO in
    ``flags``, ``csum_start`` and ``csum_offset`` count coalesced segments and duplicated acknowledgements.
    """

    flags: U8 = 0
    gso_type: U8 = 0
    hdr_len: U16 = 0
    gso_size: U16 = 0
    csum_start: U16 = 0
    csum_offset: U16 = 0
    num_buffers: U16 = 0


class NetHdrHash(Layout):
    """``struct virtio_net_hdr`` with the fields of HASH_REPORT, 20 bytes (section 5.1.6)."""

    flags: U8 = 0
    gso_type: U8 = 0
    hdr_len: U16 = 0
    gso_size: U16 = 0
    csum_start: U16 = 0
    csum_offset: U16 = 0
    num_buffers: U16 = 0
    hash_value: U32 = 0
    hash_report: U16 = 0
    padding_reserved: U16 = 0


class NetCtrlClass(IntEnum):
    """VIRTIO_NET_CTRL_*: classes of commands (section 5.1.6.5)."""

    RX = 0
    MAC = 1
    VLAN = 2
    ANNOUNCE = 3
    MQ = 4
    GUEST_OFFLOADS = 5
    NOTF_COAL = 6
    HASH_TUNNEL = 7
    STATS = 8


class NetCtrlRx(IntEnum):
    """VIRTIO_NET_CTRL_RX_*: commands whose data is one byte, 1 for on (section 5.1.6.5.1)."""

    PROMISC = 0
    ALLMULTI = 1
    ALLUNI = 2
    NOMULTI = 3
    NOUNI = 4
    NOBCAST = 5


class NetCtrlMacCommand(IntEnum):
    """VIRTIO_NET_CTRL_MAC_* (section 5.1.6.5.2): data is two :class:`NetCtrlMac` tables, or one address."""

    TABLE_SET = 0
    ADDR_SET = 1


class NetCtrlVlan(IntEnum):
    """VIRTIO_NET_CTRL_VLAN_*: commands whose data is a VLAN id of 16 bits (section 5.1.6.5.3)."""

    ADD = 0
    DEL = 1


class NetCtrlAnnounce(IntEnum):
    """VIRTIO_NET_CTRL_ANNOUNCE_*: a command without data (section 5.1.6.5.4)."""

    ACK = 0


class NetCtrlMq(IntEnum):
    """VIRTIO_NET_CTRL_MQ_* (section 5.1.6.5.5)."""

    VQ_PAIRS_SET = 0
    RSS_CONFIG = 1
    HASH_CONFIG = 2


class NetCtrlGuestOffloads(IntEnum):
    """VIRTIO_NET_CTRL_GUEST_OFFLOADS_*: data is 64 bits, 1 << the number of each GUEST_* feature to be on
    (section 5.1.6.5.8)."""

    SET = 0


class NetCtrl(Layout):
    """The head of ``struct virtio_net_ctrl`` (section 5.1.6.5); data follow it, and one byte of :class:`NetAck`.

    ``class_`` is the specification's ``class``, which is no name in Python; Linux calls ``command`` ``cmd``.
    """

    class_: U8
    command: U8


class NetCtrlMac(Layout):
    """The head of ``struct virtio_net_ctrl_mac`` (section 5.1.6.5.2); ``entries`` addresses of 6 bytes follow it."""

    entries: U32


class NetCtrlMqPairsSet(Layout):
    """``struct virtio_net_ctrl_mq_pairs_set`` (section 5.1.6.5.6): data of VQ_PAIRS_SET."""

    virtqueue_pairs: U16


class NetAck(IntEnum):
    """The byte with which the device ends a command (section 5.1.6.5)."""

    OK = 0
    ERR = 1
