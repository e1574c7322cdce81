"""Lookup of features by every spelling that users and QEMU have for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.errors import UnknownNameError, UsageError
from pytest_virtio.spec.devices import BLK, DEVICE_TYPES, NET, P9, BalloonFeature, BlkFeature, DeviceType, NetFeature
from pytest_virtio.spec.features import FeatureNames, TransportFeature
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES, ProtocolFeature, VhostFeature

NAMES = NET.feature_names


@pytest.mark.parametrize(
    ("which", "bit"),
    [
        ("VIRTIO_NET_F_MRG_RXBUF", 15),
        ("MRG_RXBUF", 15),
        (NetFeature.MRG_RXBUF, 15),
        (15, 15),
        ("BIT_15", 15),
        ("BIT_120", 120),
        ("HOST_UDP_TUNNEL_GSO_CSUM", 68),
        ("VIRTIO_RING_F_EVENT_IDX", 29),
        ("VIRTIO_F_EVENT_IDX", 29),
        ("EVENT_IDX", 29),
        ("VIRTIO_F_ACCESS_PLATFORM", 33),
        ("VIRTIO_F_IOMMU_PLATFORM", 33),
        (TransportFeature.VERSION_1, 32),
        ("VHOST_F_LOG_ALL", 26),
    ],
)
def test_accepted_spellings(which: object, bit: int) -> None:
    assert NAMES.bit(which) == bit


def test_canonical_names() -> None:
    assert NAMES.name(15) == "VIRTIO_NET_F_MRG_RXBUF"
    assert NAMES.name(28) == "VIRTIO_RING_F_INDIRECT_DESC"
    assert NAMES.name(33) == "VIRTIO_F_ACCESS_PLATFORM"
    assert NAMES.name(48) == "BIT_48"
    assert P9.feature_names.name(0) == "VIRTIO_9P_MOUNT_TAG"
    assert P9.feature_names.bit("VIRTIO_9P_F_MOUNT_TAG") == 0
    assert BalloonFeature.REPORTING.full_name == "VIRTIO_BALLOON_F_PAGE_REPORTING"


def test_bit_30_means_another_thing_to_vhost() -> None:
    assert NAMES.name(30) == "VIRTIO_F_BAD_FEATURE"
    assert NET.vhost_feature_names.name(30) == "VHOST_USER_F_PROTOCOL_FEATURES"
    with pytest.raises(UnknownNameError):
        NAMES.bit("VHOST_USER_F_PROTOCOL_FEATURES")
    with pytest.raises(UnknownNameError):
        NAMES.bit(VhostFeature.PROTOCOL_FEATURES)


def test_a_misspelt_name_gets_near_misses() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown feature of network device: 'MRG_RXBUFF'\. .*'MRG_RXBUF'"):
        NAMES.bit("MRG_RXBUFF")


def test_a_member_of_another_device_type_is_an_error_that_says_so() -> None:
    with pytest.raises(UnknownNameError, match=r"BlkFeature\.RO'.*VIRTIO_BLK_F_RO belongs to another device type"):
        NAMES.bit(BlkFeature.RO)


@pytest.mark.parametrize("which", [128, -1, "BIT_128", "BIT_", "BIT_1x", "", "mrg_rxbuf"])
def test_unknown(which: object) -> None:
    with pytest.raises(UnknownNameError):
        NAMES.bit(which)


@pytest.mark.parametrize("which", [None, True, 1.5, b"MTU", ("MTU",)])
def test_what_cannot_be_a_feature(which: object) -> None:
    with pytest.raises(UsageError):
        NAMES.bit(which)


@pytest.mark.parametrize("bit", [-1, 128])
def test_name_out_of_range(bit: int) -> None:
    with pytest.raises(UnknownNameError):
        NAMES.name(bit)


TABLES = [PROTOCOL_FEATURE_NAMES, *(device.feature_names for device in DEVICE_TYPES.values())]
TABLES += [device.vhost_feature_names for device in DEVICE_TYPES.values()]


@given(st.sampled_from(TABLES), st.integers(0, 127))
def test_every_bit_has_a_name_that_leads_back(names: FeatureNames, bit: int) -> None:
    assert names.bit(names.name(bit)) == bit
    assert names.is_known(bit) is not names.name(bit).startswith("BIT_")


@pytest.mark.parametrize("device", DEVICE_TYPES.values(), ids=lambda device: device.name)
def test_short_names_of_a_device_and_its_transport_do_not_collide(device: DeviceType) -> None:
    for name, member in device.features.__members__.items() if device.features else ():
        assert device.feature_names.bit(name) == member.value
    for name, member in TransportFeature.__members__.items():
        assert device.feature_names.bit(name) == member.value


def test_aliases_of_protocol_features() -> None:
    assert PROTOCOL_FEATURE_NAMES.bit("VHOST_USER_PROTOCOL_F_SLAVE_SEND_FD") == ProtocolFeature.BACKEND_SEND_FD
    assert PROTOCOL_FEATURE_NAMES.name(10) == "VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD"
    assert PROTOCOL_FEATURE_NAMES.name(5) == "VHOST_USER_PROTOCOL_F_BACKEND_REQ"
    assert PROTOCOL_FEATURE_NAMES.name(22) == "VHOST_USER_PROTOCOL_F_SHMEM"


def test_an_alias_is_the_same_member() -> None:
    assert BLK.feature_names.bit("WCE") == BlkFeature.FLUSH
    assert BlkFeature["WCE"] is BlkFeature.FLUSH


def test_a_full_name_of_another_device_type_is_told_apart() -> None:
    with pytest.raises(UnknownNameError) as caught:
        BLK.feature_names.bit("VIRTIO_NET_F_MRG_RXBUF")
    said = "unknown feature of block device: 'VIRTIO_NET_F_MRG_RXBUF'. VIRTIO_NET_F_… belongs to another device type."
    assert str(caught.value) == said
    with pytest.raises(UnknownNameError, match="Did you mean 'VIRTIO_BLK_F_FLUSH'"):
        BLK.feature_names.bit("VIRTIO_BLK_F_FLUSHH")


@pytest.mark.parametrize("feature", ["VIRTIO_BLK_F_SEG_MAX", "VIRTIO_F_VERSION_1", "VIRTIO_RING_F_EVENT_IDX"])
def test_a_full_name_needs_no_virtio(feature: str) -> None:
    assert BLK.feature_names.bit(feature.removeprefix("VIRTIO_")) == BLK.feature_names.bit(feature)


def test_what_is_not_ours_without_virtio_is_told_apart_too() -> None:
    with pytest.raises(UnknownNameError, match="VIRTIO_NET_F_… belongs to another device type"):
        BLK.feature_names.bit("NET_F_MRG_RXBUF")
    with pytest.raises(UnknownNameError, match="Did you mean 'VIRTIO_BLK_F_SEG_MAX'"):
        BLK.feature_names.bit("BLK_F_SEG_MAXX")
    with pytest.raises(UnknownNameError, match="Did you mean 'VHOST_USER_PROTOCOL_F_MQ'"):
        PROTOCOL_FEATURE_NAMES.bit("PROTOCOL_F_MQQ")


def test_vhosts_too() -> None:
    assert PROTOCOL_FEATURE_NAMES.bit("PROTOCOL_F_REPLY_ACK") == 3
    assert BLK.vhost_feature_names.bit("F_PROTOCOL_FEATURES") == 30
    assert BLK.vhost_feature_names.bit("F_LOG_ALL") == 26
