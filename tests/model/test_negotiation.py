"""Who offered, acknowledged and told what, on made-up values, and the table of it; real ones are in tests/handle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_virtio import render
from pytest_virtio.model.features import Features
from pytest_virtio.model.negotiation import Difference, FeatureNegotiation, negotiation
from pytest_virtio.model.status import VhostStatus, VirtioStatus
from pytest_virtio.spec.devices import NET, NetFeature
from pytest_virtio.spec.status import status_names

OFFERED = Features.of({"CSUM", "MAC", "CTRL_VQ", "BAD_FEATURE", "VERSION_1"}, NET)
BACKEND = Features.of({"CSUM", "MQ", "PROTOCOL_FEATURES", "VERSION_1"}, NET.vhost_feature_names)
STATUS = VirtioStatus(
    name="virtio-net",
    device_id=1,
    status=status_names(0xF),
    guest_features=Features.of({"CSUM", "CTRL_VQ", "VERSION_1"}, NET, offered=OFFERED),
    host_features=OFFERED,
    source="test",
)
VHOST = VhostStatus(
    n_mem_sections=1,
    n_tmp_sections=1,
    nvqs=2,
    vq_index=0,
    features=BACKEND,
    acked_features=Features.of({"RING_RESET", "PROTOCOL_FEATURES", "VERSION_1"}, NET.vhost_feature_names),
    backend_features=None,
    protocol_features=None,
    max_queues=1,
    backend_cap=0,
    log_enabled=False,
    log_size=0,
)
STARTED = replace(STATUS, vhost_dev=VHOST)


def row(feature: str, *sides: bool | None) -> FeatureNegotiation:
    bit = NET.feature_names.bit(feature)
    offered, acknowledged, backend_offers, backend_told = sides
    return FeatureNegotiation(
        feature=feature,
        bit=bit,
        offered=bool(offered),
        acknowledged=acknowledged,
        backend_offers=backend_offers,
        backend_told=backend_told,
    )


def test_all_sides() -> None:
    assert list(negotiation(STARTED)) == [
        row("VIRTIO_NET_F_CSUM", True, True, True, False),
        row("VIRTIO_NET_F_MAC", True, False, False, False),
        row("VIRTIO_NET_F_CTRL_VQ", True, True, False, False),
        row("VIRTIO_NET_F_MQ", False, False, True, False),
        row("VIRTIO_F_BAD_FEATURE", True, False, False, False),
        row("VIRTIO_F_VERSION_1", True, True, True, True),
        row("VIRTIO_F_RING_RESET", False, False, False, True),
    ]


def test_bit_30_is_another_feature_for_vhost() -> None:
    """PROTOCOL_FEATURES, of which no driver knows."""
    assert [r.feature for r in negotiation(STARTED) if r.bit == 30] == ["VIRTIO_F_BAD_FEATURE"]
    assert 30 not in [r.bit for r in negotiation(replace(STARTED, host_features=Features(0, NET)))]


def test_where_the_sides_differ() -> None:
    assert {r.feature: r.difference for r in negotiation(STARTED) if r.difference} == {
        "VIRTIO_NET_F_CSUM": Difference.NOT_PASSED_ON,
        # CTRL_VQ is not here: QEMU serves the control queue itself.
        "VIRTIO_NET_F_MAC": Difference.NOT_ACKNOWLEDGED,
        "VIRTIO_F_RING_RESET": Difference.NOT_BACKENDS,
    }


def test_what_nobody_tells() -> None:
    untold = Features(0, NET, untold="nobody tells")
    rows = negotiation(replace(STATUS, guest_features=untold))
    assert {(r.acknowledged, r.backend_offers, r.backend_told, r.difference) for r in rows} == {(None,) * 4}
    assert [r.feature for r in rows] == list(OFFERED)


def test_a_backend_that_was_asked_itself() -> None:
    """QEMU 11.1 does not tell what it offers, nor what it was told."""
    rows = {r.feature: r for r in negotiation(STATUS, 1 << 22)}
    assert (rows["VIRTIO_NET_F_MQ"].backend_offers, rows["VIRTIO_NET_F_MQ"].backend_told) == (True, None)
    assert (rows["VIRTIO_NET_F_CSUM"].backend_offers, rows["VIRTIO_NET_F_CSUM"].difference) == (False, None)


def test_the_table() -> None:
    rows = [replace(r, option="mq=off") if r.feature.endswith("_MQ") else r for r in negotiation(STARTED)[:4]]
    assert list(render.negotiation(rows)) == [
        "feature               device  driver  backend offers  backend told",
        "VIRTIO_NET_F_CSUM     yes     yes     yes             no",
        "VIRTIO_NET_F_MAC      yes     no      no              no",
        "VIRTIO_NET_F_CTRL_VQ  yes     yes     no              no",
        "VIRTIO_NET_F_MQ       no      no      yes             no            (property mq=off)",
    ]


def test_what_the_test_masks() -> None:
    """MTU it masks too, and the backend does not offer it."""
    rows = negotiation(STATUS, BACKEND.bits, 1 << NetFeature.MQ | 1 << NetFeature.MTU)
    assert {r.feature: r.difference for r in rows if r.masked} == {"VIRTIO_NET_F_MQ": Difference.MASKED}
    masked = [replace(r, option="mq=off") for r in rows if r.masked]
    assert list(render.negotiation(masked)) == [
        "feature          device  driver  backend offers",
        "VIRTIO_NET_F_MQ  no      no      yes             (masked by the test) (property mq=off)",
    ]


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([], []),
        ([row("VIRTIO_NET_F_MAC", True, False, None, None)], ["feature           device  driver",
                                                             "VIRTIO_NET_F_MAC  yes     no"]),
        ([row("VIRTIO_NET_F_MAC", True, None, False, None)], ["feature           device  backend offers",
                                                             "VIRTIO_NET_F_MAC  yes     no"]),
    ],
    ids=["none", "no backend", "not told"],
)  # fmt: skip
def test_a_table_of_fewer_sides(rows: list[FeatureNegotiation], lines: list[str]) -> None:
    assert list(render.negotiation(rows)) == lines


def test_the_backend_in_one_line() -> None:
    wanted = ["VIRTIO_NET_F_CSUM", "VIRTIO_NET_F_MQ", "VIRTIO_NET_F_MTU"]
    offers = "offers VIRTIO_NET_F_CSUM and VIRTIO_NET_F_MQ"
    assert list(render.backend_facts(negotiation(STARTED), wanted)) == [f"backend: {offers}, was told none of these"]
    assert list(render.backend_facts(negotiation(STATUS, BACKEND.bits), wanted)) == [f"backend: {offers}"]
    assert list(render.backend_facts(negotiation(STATUS), wanted)) == []
