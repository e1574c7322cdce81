"""Rules of the specification, each broken once on made-up values; what real drivers do is in tests/handle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_virtio import render
from pytest_virtio.model.conformance import Breach, Inspected, breaches
from pytest_virtio.model.features import Features
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.ring import Ring, RingElement
from pytest_virtio.model.status import VhostStatus, VirtioStatus
from pytest_virtio.spec.devices import BLK, CRYPTO, DEVICE_TYPES, GPU, I2C, NET, DeviceType, NetFeature
from pytest_virtio.spec.features import Requirement, TransportFeature
from pytest_virtio.spec.status import status_names

MODERN = {"VERSION_1"}
RING = VirtQueueStatus(
    name="virtio-net",
    queue_index=0,
    inuse=2,
    vring_num=256,
    vring_desc=0x10000,
    vring_avail=0x11000,
    vring_used=0x12000,
    used_idx=65535,
    shadow_avail_idx=3,
    source="test",
)
DECODED = Ring(
    name="virtio-net",
    queue_index=0,
    packed=False,
    num=256,
    desc=0x10000,
    avail=0x11000,
    used=0x12000,
    source="test",
)


def status(
    bits: int = 0x0F, guest: set[str] = MODERN, host: set[str] | None = None, type: DeviceType = NET
) -> VirtioStatus:
    offered = Features.of(guest if host is None else host, type)
    acknowledged = Features.of(guest, type, offered=offered)
    return VirtioStatus(
        name=f"virtio-{type.name}",
        device_id=type.id,
        status=status_names(bits),
        guest_features=acknowledged,
        host_features=offered,
        source="test",
    )


def found(device: VirtioStatus, queue: VirtQueueStatus | None = None, **more: object) -> list[str]:
    """The sections of the broken rules."""
    queues = {} if queue is None else {0: queue}
    inspected = Inspected(status=device, queues=queues, **{"modern": True, "ram": 1 << 28, **more})  # type: ignore[arg-type]
    return [breach.section for breach in breaches(inspected)]


def test_what_conforms() -> None:
    for bits in (0, 1, 3, 0xB, 0xF):
        assert found(status(bits, MODERN if bits > 3 else set(), MODERN), RING, rings={0: DECODED}) == []


def test_a_legacy_driver_rightly_sets_no_features_ok() -> None:
    legacy = status(7, set(), MODERN)
    assert found(legacy, modern=None) == found(legacy, modern=False) == []
    assert found(legacy) == ["3.1.1"]
    assert found(status(7, MODERN), modern=False) == ["3.1.1"]


@pytest.mark.parametrize(
    ("device", "breach"),
    [
        (status(0x8F), Breach("2.1", "the driver gave the device up: status ")),
        (status(0x4F), Breach("2.1.2", "the device met an error that it can't get out of by itself: status ")),
        (replace(status(), broken=True), Breach("2.1.2", "the device met an error and stopped, and does not set ")),
        (status(7), Breach("3.1.1", "DRIVER_OK without FEATURES_OK: status ACKNOWLEDGE, DRIVER, DRIVER_OK")),
        (status(0xD), Breach("3.1.1", "DRIVER_OK without DRIVER: status ")),
        (status(2), Breach("3.1.1", "DRIVER without ACKNOWLEDGE: status DRIVER")),
        (status(0xF, {"VERSION_1", "MTU"}, MODERN), Breach("2.2.1", "acknowledged by the driver, not offered by the ")),
        (status(0xB, set(), MODERN), Breach("6.1", "VIRTIO_F_VERSION_1 offered, and not acknowledged by the driver")),
        (status(0xB, set(), set()), Breach("6.2", "VIRTIO_F_VERSION_1 not offered, on a modern interface")),
    ],
    ids=lambda value: value.section if isinstance(value, Breach) else "",
)  # fmt: skip
def test_status_and_features(device: VirtioStatus, breach: Breach) -> None:
    first = breaches(Inspected(status=device, modern=True))[0]
    assert (first.section, first.words[: len(breach.words)]) == (breach.section, breach.words)


REQUIREMENTS = [
    (type, feature, requirement)
    for type in DEVICE_TYPES.values()
    for requirement in type.requirements
    for feature in requirement.features
]


@pytest.mark.parametrize(
    ("type", "feature", "requirement"), REQUIREMENTS, ids=[f"{t.name}-{f.name}" for t, f, _ in REQUIREMENTS]
)
def test_features_that_require_others(type: DeviceType, feature: int, requirement: Requirement) -> None:
    name = type.feature_names.name(feature)
    own = {name, "VIRTIO_F_VERSION_1"} - {required.full_name for required in requirement.one_of}
    found_words = [breach.words for breach in breaches(Inspected(status=status(0, own, type=type)))]
    offered = [words for words in found_words if " offered without " in words]
    acknowledged = [words for words in found_words if " acknowledged without " in words]
    assert [*offered, *acknowledged] == found_words
    assert offered
    assert bool(acknowledged) == bool(requirement.section)
    assert all(name in words for words in found_words)
    every = status(guest={"VERSION_1", *(member.full_name for member in type.features or ())}, type=type)
    assert found(every) == []


def test_requirements_by_hand() -> None:
    assert {type.name for type, _, _ in REQUIREMENTS} == {"net", "blk", "crypto", "gpu", "i2c"}
    assert found(status(guest={"VERSION_1", "HOST_ECN", "CSUM", "HOST_TSO6"})) == []
    assert found(status(guest={"VERSION_1", "MQ"})) == ["2.2.2", "5.1.3.1"]
    assert found(status(guest={"VERSION_1", "MQ"}, host={"VERSION_1", "MQ", "CTRL_VQ"})) == ["5.1.3.1"]
    assert found(status(host={"VERSION_1", "MQ"})) == ["2.2.2"]
    assert found(status(guest={"VERSION_1", "HASH_STATELESS_MODE"}, type=CRYPTO)) == ["2.2.2", "5.9.3.1"]
    assert found(status(guest={"VERSION_1", "CONTEXT_INIT"}, type=GPU)) == ["2.2.2", "5.7.3"]
    offered = {"VERSION_1", "CONFIG_WCE", "FLUSH"}
    assert found(status(host=offered - {"FLUSH"}, type=BLK)) == ["5.2.5.2"]
    assert found(status(guest=offered - {"FLUSH"}, host=offered, type=BLK)) == []
    assert found(status(host={"VERSION_1", "ZERO_LENGTH_REQUEST"}, type=I2C)) == ["5.16.6.3"]
    assert found(status(type=I2C)) == ["5.16.6.4", "5.16.6.3"]
    assert found(status(0, set(), {"ZONED"}, type=BLK)) == ["5.2.5.2"]


def test_what_the_breach_of_an_offer_says() -> None:
    (breach,) = breaches(Inspected(status=status(host={"VERSION_1", "MQ"})))
    words = "VIRTIO_NET_F_MQ offered without VIRTIO_NET_F_CTRL_VQ, which section 5.1.3.1 requires"
    assert breach == Breach("2.2.2", words)
    assert list(render.breaches([breach])) == [f"{words} (virtio 1.3 section 2.2.2)"]


def test_what_the_test_masks_breaks_no_rule_of_the_device() -> None:
    offers_mq = status(host={"VERSION_1", "MQ"})
    assert found(offers_mq, masked=1 << NetFeature.CTRL_VQ) == []
    assert found(offers_mq, masked=1 << NetFeature.MAC) == ["2.2.2"]
    assert found(status(guest={"MQ", "VERSION_1"}), masked=1 << NetFeature.CTRL_VQ) == ["5.1.3.1"], "the driver's own"
    no_version_1 = status(guest=set())
    assert found(no_version_1) == ["6.2"]
    assert found(no_version_1, masked=1 << TransportFeature.VERSION_1) == []


def test_what_a_backend_is_told_it_must_have_offered() -> None:
    offers = Features.of({"VERSION_1", "MRG_RXBUF"}, NET.vhost_feature_names)
    told = Features.of({"VERSION_1"}, NET.vhost_feature_names, offered=offers)
    vhost = VhostStatus(
        n_mem_sections=1, n_tmp_sections=1, nvqs=2, vq_index=0, features=offers, acked_features=told,
        backend_features=None, protocol_features=None, max_queues=1, backend_cap=0, log_enabled=False, log_size=0,
    )  # fmt: skip
    assert found(replace(status(), vhost_dev=vhost)) == []
    more = Features.of({"VERSION_1", "EVENT_IDX"}, NET.vhost_feature_names, offered=offers)
    device = replace(status(), vhost_dev=replace(vhost, acked_features=more))
    assert list(render.breaches(breaches(Inspected(status=device)))) == [
        "told to the vhost backend as acknowledged, not offered by it: VIRTIO_RING_F_EVENT_IDX "
        '(vhost-user specification section "Front-end message types")'
    ]


@pytest.mark.parametrize(
    ("more", "section", "words"),
    [
        ({"vring_num": 100}, "2.7", "its size is 100, not a power of two up to 32768"),
        ({"vring_desc": 0xFFF8}, "2.7", "its descriptor area at 0xfff8 is not aligned to 16 bytes"),
        ({"vring_avail": 0x11001}, "2.7", "its driver area at 0x11001 is not aligned to 2 bytes"),
        ({"vring_used": 0x12002}, "2.7", "its device area at 0x12002 is not aligned to 4 bytes"),
        ({"vring_avail": 0x10FFE}, "2.6",
         "its descriptor area (4096 bytes at 0x10000) overlaps its driver area (518 at 0x10ffe)"),
        ({"vring_used": 0xFFFFFFC}, "2.6",
         "its device area (2054 bytes at 0xffffffc) is not in guest RAM, which ends at 0x10000000"),
        ({"inuse": 257}, "2.7", "257 elements in flight, in a ring of 256"),
        ({"shadow_avail_idx": 256}, "2.7",
         "more is outstanding than its 256 entries: avail index 256, used index 65535"),
    ],
)  # fmt: skip
def test_queues(more: dict[str, int], section: str, words: str) -> None:
    device = Inspected(status=status(), queues={0: replace(RING, **more)}, ram=1 << 28)  # type: ignore[arg-type]
    assert breaches(device) == (Breach(section, f"queue 0: {words}"),)


def test_packed_queues() -> None:
    packed = status(guest={"VERSION_1", "RING_PACKED"})
    assert found(packed, replace(RING, vring_num=100, shadow_avail_idx=99, used_idx=3)) == []
    assert found(packed, replace(RING, vring_num=0x8001)) == ["2.8.10.1"]
    assert found(packed, replace(RING, vring_avail=0x11002)) == ["2.8.10.1"]


def test_faults_that_a_decoder_saw() -> None:
    loop = RingElement(head=7, slot=0, state="pending", faults=("it loops: descriptor 7 comes again",))
    decoded = replace(DECODED, elements=(loop,))
    device = Inspected(status=status(), queues={0: RING}, rings={0: decoded})
    assert breaches(device) == (Breach("2.7.5", "queue 0: its element 7: it loops: descriptor 7 comes again"),)
    assert found(status(), RING, rings={0: replace(decoded, faults=("it changed while it was read",))}) == []


def test_what_is_not_known_breaks_no_rule() -> None:
    known = status()
    untold = Features(0, NET, offered=known.host_features, untold="nobody tells")
    assert found(replace(known, guest_features=untold), replace(RING, vring_num=100)) == []
    assert found(status(), replace(RING, vring_used=0xFFFFFFC), ram=None) == []
    assert found(status(guest={"VERSION_1", "ACCESS_PLATFORM"}), replace(RING, vring_used=0xFFFFFFC)) == []
    assert found(status(), replace(RING, vring_used=5 << 30)) == []
    assert found(status(), replace(RING, vring_desc=0, vring_num=100)) == []
    assert found(status(0xB), replace(RING, vring_num=100)) == []
    quiet = replace(RING, inuse=None, used_idx=None, shadow_avail_idx=None)
    assert found(status(), quiet) == []
