"""Feature bits of vhost: those that share the 64 bits with virtio's, and the vhost-user protocol's own.

Responsible for the tables of the vhost-user specification ("Protocol features") and Linux vhost.h; it must not know
messages, nor any device type.
"""

from __future__ import annotations

from pytest_virtio.spec.features import Feature, FeatureNames

__all__ = ("PROTOCOL_FEATURE_NAMES", "ProtocolFeature", "VhostFeature")


class VhostFeature(Feature, prefix="VHOST_F_", own_prefixes={"PROTOCOL_FEATURES": "VHOST_USER_F_"}):
    """Bits that vhost puts among the virtio features (Linux vhost.h; vhost-user specification, bit 30).

    VHOST_NET_F_VIRTIO_NET_HDR (27) isn't here: ANY_LAYOUT has that number and QEMU shows it so.
    """

    LOG_ALL = 26
    PROTOCOL_FEATURES = 30


class ProtocolFeature(Feature, prefix="VHOST_USER_PROTOCOL_F_"):
    """Bits of VHOST_USER_GET_PROTOCOL_FEATURES (vhost-user specification, "Protocol features")."""

    MQ = 0
    LOG_SHMFD = 1
    RARP = 2
    REPLY_ACK = 3
    MTU = 4
    # QEMU's name for it.
    NET_MTU = 4
    BACKEND_REQ = 5
    # Called so until QEMU 8.0; QEMU 7.2 replies with it.
    SLAVE_REQ = 5
    CROSS_ENDIAN = 6
    CRYPTO_SESSION = 7
    PAGEFAULT = 8
    CONFIG = 9
    BACKEND_SEND_FD = 10
    SLAVE_SEND_FD = 10
    HOST_NOTIFIER = 11
    INFLIGHT_SHMFD = 12
    RESET_DEVICE = 13
    INBAND_NOTIFICATIONS = 14
    CONFIGURE_MEM_SLOTS = 15
    STATUS = 16
    XEN_MMAP = 17
    SHARED_OBJECT = 18
    DEVICE_STATE = 19
    GET_VRING_BASE_INFLIGHT = 20
    GPA_ADDRESSES = 21
    SHMEM = 22
    # The specification's name beside QEMU's.
    SHMEM_MAP = 22


PROTOCOL_FEATURE_NAMES = FeatureNames("vhost-user backend", ProtocolFeature)
