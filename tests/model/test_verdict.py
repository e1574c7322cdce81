"""Stages of initialisation, and faults of missing features, against cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_virtio.errors import UnknownNameError
from pytest_virtio.model.features import Features
from pytest_virtio.model.status import VhostStatus, VirtioStatus
from pytest_virtio.model.verdict import Fault, FeatureFault, Stage, missing_features, stage, unwanted_features
from pytest_virtio.spec.devices import NET
from pytest_virtio.spec.status import status_names

OFFERED = Features.of({"VERSION_1", "MRG_RXBUF", "MTU"}, NET)
UP = VirtioStatus(
    name="virtio-net",
    device_id=1,
    status=status_names(0x0F),
    guest_features=Features.of({"VERSION_1", "MTU"}, NET, offered=OFFERED),
    host_features=OFFERED,
    source="test",
)
VHOST = VhostStatus(
    n_mem_sections=1,
    n_tmp_sections=1,
    nvqs=2,
    vq_index=0,
    features=Features.of({"VERSION_1", "CSUM"}, NET.vhost_feature_names),
    acked_features=Features(0, NET.vhost_feature_names),
    backend_features=None,
    protocol_features=None,
    max_queues=1,
    backend_cap=0,
    log_enabled=False,
    log_size=0,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, Stage.RESET),
        (1, Stage.ACKNOWLEDGE),
        (3, Stage.DRIVER),
        (0xB, Stage.FEATURES_OK),
        (0xF, Stage.DRIVER_OK),
        # A legacy driver never sets FEATURES_OK.
        (7, Stage.DRIVER_OK),
        (0x83, Stage.FAILED),
        (0x8F, Stage.FAILED),
        (0x4F, Stage.NEEDS_RESET),
        (0xCF, Stage.NEEDS_RESET),
        (0x30, Stage.OUT_OF_ORDER),
        (0x31, Stage.ACKNOWLEDGE),
    ],
)
def test_stage(value: int, expected: Stage) -> None:
    assert stage(status_names(value)) is expected


@pytest.mark.parametrize(("value", "ok"), [(0xF, True), (7, True), (0xB, False), (0x4F, False), (0x8F, False)])
def test_driver_ok(value: int, ok: bool) -> None:
    assert replace(UP, status=status_names(value)).driver_ok is ok


def test_whose_fault() -> None:
    assert missing_features(UP, ["MTU", "MRG_RXBUF", "CSUM"]) == (
        FeatureFault("VIRTIO_NET_F_CSUM", Fault.NOT_OFFERED),
        FeatureFault("VIRTIO_NET_F_MRG_RXBUF", Fault.NOT_ACKNOWLEDGED),
    )
    assert missing_features(UP, ["VERSION_1"]) == ()


def test_with_vhost_a_feature_that_the_backend_lacks_is_masked() -> None:
    status = replace(UP, vhost_dev=VHOST)
    assert missing_features(status, ["CSUM", "STATUS", "MRG_RXBUF"]) == (
        # The backend has this one, so the device's own properties keep it off.
        FeatureFault("VIRTIO_NET_F_CSUM", Fault.NOT_OFFERED),
        # Offered to the driver, so the backend, which lacks it too, can't be what kept it from the driver.
        FeatureFault("VIRTIO_NET_F_MRG_RXBUF", Fault.NOT_ACKNOWLEDGED),
        FeatureFault("VIRTIO_NET_F_STATUS", Fault.MASKED_BY_BACKEND),
    )


def test_bit_30_has_another_name_in_vhost_sets_and_does_no_harm() -> None:
    status = replace(UP, vhost_dev=VHOST)
    assert missing_features(status, [30]) == (FeatureFault("VIRTIO_F_BAD_FEATURE", Fault.MASKED_BY_BACKEND),)


@pytest.mark.parametrize(
    ("value", "guest_bits", "fault"),
    [
        (3, 0, Fault.TOO_EARLY),
        (0, 0, Fault.TOO_EARLY),
        (3, 1 << 32, Fault.NOT_ACKNOWLEDGED),
        (0xB, 0, Fault.NOT_ACKNOWLEDGED),
        # A legacy driver that acknowledged nothing.
        (7, 0, Fault.NOT_ACKNOWLEDGED),
    ],
)
def test_too_early(value: int, guest_bits: int, fault: Fault) -> None:
    status = replace(UP, status=status_names(value), guest_features=Features(guest_bits, NET))
    assert missing_features(status, ["MRG_RXBUF"]) == (FeatureFault("VIRTIO_NET_F_MRG_RXBUF", fault),)
    assert missing_features(status, ["CSUM"]) == (FeatureFault("VIRTIO_NET_F_CSUM", Fault.NOT_OFFERED),)


def test_of_a_set_alone() -> None:
    assert [fault.fault for fault in missing_features(UP.guest_features, ["CSUM", "MRG_RXBUF"])] == [
        Fault.NOT_OFFERED,
        Fault.NOT_ACKNOWLEDGED,
    ]
    assert [fault.fault for fault in missing_features(OFFERED, ["CSUM"])] == [Fault.NOT_OFFERED]


def test_unwanted() -> None:
    assert unwanted_features(UP, ["VERSION_1", "MRG_RXBUF", 3]) == ("VIRTIO_NET_F_MTU", "VIRTIO_F_VERSION_1")
    assert unwanted_features(OFFERED, ["CSUM"]) == ()


def test_a_name_that_the_device_cannot_have() -> None:
    with pytest.raises(UnknownNameError):
        missing_features(UP, ["ZONED"])
    with pytest.raises(UnknownNameError):
        unwanted_features(UP, ["ZONED"])


def test_a_backend_that_was_asked_itself() -> None:
    """QEMU 11.1 does not tell what it offers."""
    lacks, has = 0, 1 << NET.feature_names.bit("CSUM")
    assert missing_features(UP, ["CSUM"], lacks) == (FeatureFault("VIRTIO_NET_F_CSUM", Fault.MASKED_BY_BACKEND),)
    assert missing_features(UP, ["CSUM"], has) == (FeatureFault("VIRTIO_NET_F_CSUM", Fault.NOT_OFFERED),)
    assert missing_features(replace(UP, vhost_dev=VHOST), ["CSUM"], lacks)[0].fault is Fault.MASKED_BY_BACKEND
