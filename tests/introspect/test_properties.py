"""Which property stands behind a feature that is not offered: the spelling on real devices of all types."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_virtio import (
    Balloon,
    Blk,
    CommandError,
    Declaration,
    Gpu,
    Iommu,
    Net,
    Scsi,
    Serial,
    VhostUserBlk,
    Virtio,
    VirtioAssertionError,
    VirtioFactory,
    qapi,
)
from pytest_virtio.errors import ReplyError
from pytest_virtio.introspect.properties import has_legacy_interface, offering_properties

from .script import Script


@pytest.mark.parametrize(
    ("feature", "known", "expected"),
    [
        ("VIRTIO_NET_F_MRG_RXBUF", ["mrg_rxbuf"], "mrg_rxbuf"),
        ("VIRTIO_BLK_F_CONFIG_WCE", ["config-wce"], "config-wce"),
        ("VIRTIO_BALLOON_F_DEFLATE_ON_OOM", ["deflate-on-oom"], "deflate-on-oom"),
        ("VIRTIO_RING_F_EVENT_IDX", ["event_idx"], "event_idx"),
        ("VIRTIO_NET_F_MTU", ["host_mtu", "mtu"], "host_mtu"),
        ("VIRTIO_NET_F_MTU", ["mac"], None),
        ("BIT_47", ["packed"], None),
    ],
)
def test_offering_property(feature: str, known: list[str], expected: str | None) -> None:
    assert qapi.offering_property(feature, known) == expected


def test_values() -> None:
    assert qapi.property_text("csum", False) == "csum=off"
    assert qapi.property_text("csum", True) == "csum=on"
    assert qapi.property_text("host_mtu", 0) == "host_mtu=0"
    with pytest.raises(ReplyError, match="a list is wanted"):
        qapi.parse_property_names({})


def test_a_qemu_that_does_not_answer() -> None:
    silent = Script()

    def gone(*_: object) -> object:
        raise CommandError("qom-list", "GenericError", "no")

    silent.execute = gone  # type: ignore[method-assign]
    assert offering_properties(silent, "/machine/peripheral/net0", ["VIRTIO_NET_F_MTU"], 1) == {}
    assert has_legacy_interface(silent, "/machine/peripheral/net0", 1) is None


@pytest.fixture(scope="module")
def vm(virtio_factory: VirtioFactory) -> Iterator[Virtio]:
    devices: tuple[Declaration, ...] = (Net(), Blk(), Balloon(), Serial(), Scsi(), Gpu(), Iommu(), VhostUserBlk())
    with virtio_factory(*devices, boot=False) as virtio:
        yield virtio


@pytest.mark.parametrize(
    ("id", "features"),
    [
        ("net0", {"MTU": "host_mtu=0", "MQ": "mq=off", "STANDBY": "failover=off", "HASH_REPORT": "hash=off"}),
        ("net0", {"SPEED_DUPLEX": "speed=-1", "RSC_EXT": "guest_rsc_ext=off", "RSS": "rss=off"}),
        ("blk0", {"MQ": "num-queues=1", "RING_PACKED": "packed=off", "ACCESS_PLATFORM": "iommu_platform=off"}),
        ("balloon0", {"PAGE_REPORTING": "free-page-reporting=off", "DEFLATE_ON_OOM": "deflate-on-oom=off"}),
        ("gpu0", {"RESOURCE_BLOB": "blob=off"}),
    ],
)
def test_on_real_devices(vm: Virtio, id: str, features: dict[str, str]) -> None:
    for feature, property in features.items():
        with pytest.raises(VirtioAssertionError) as error:
            vm[id].assert_offered(feature)
        assert str(error.value).partition("\n")[0].endswith(f": not offered by the device (property {property})")


def test_masked_by_a_backend(vm: Virtio) -> None:
    with pytest.raises(VirtioAssertionError, match=r"masked by the vhost backend, .* \(property packed=off\)"):
        vm["vublk0"].assert_offered("RING_PACKED")


def test_legacy_interfaces(virtio_factory: VirtioFactory) -> None:
    with (
        virtio_factory(Blk(), boot=False) as modern,
        virtio_factory(Blk(), transport="pci-transitional", boot=False) as transitional,
    ):
        path = "/machine/peripheral/blk0"
        assert has_legacy_interface(modern._running.qemu, path, 10) is False
        assert has_legacy_interface(transitional._running.qemu, path, 10) is True
