"""The network device, id 1: feature bits and queues (virtio 1.3 section 5.1, Linux virtio_net.h).

It must not know configuration space, packets or anything else of the device but its features and queues.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import QueueNames, generic

__all__ = ("NET", "NetFeature")


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


NET = DeviceType(1, "net", "network device", NetFeature, _queues)
