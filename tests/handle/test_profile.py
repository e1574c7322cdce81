"""Profiles of live VMs: the same from run to run, whoever drives and whichever way they are read."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_virtio import (
    P9,
    Balloon,
    Blk,
    Crypto,
    Driver,
    Gpu,
    Keyboard,
    Mem,
    Net,
    Pmem,
    Rng,
    Scripted,
    Scsi,
    Serial,
    VhostUserBlk,
    VirtioFactory,
)
from pytest_virtio.model.profile import FeatureProfile, Profile

pytestmark = pytest.mark.qemu

COMMON = (Net(), Blk(), Rng(), Balloon(), Serial(), Scsi(), Keyboard(), Crypto(), P9())
ON_PCI = (*COMMON, Mem(), Pmem(), Gpu())
WITH_LEGACY = (Net(), Blk(), Rng(), Balloon(), Serial(), Scsi(), P9())


def profile_of(virtio_factory: VirtioFactory, *devices: Any, **options: Any) -> Profile:
    with virtio_factory(*devices, **options) as virtio:
        found = virtio.profile()
        assert {device.id: device.profile() for device in virtio} == found.devices
        return found


@pytest.mark.parametrize(
    ("transport", "devices", "settings", "used"),
    [
        ("pci", ON_PCI, {}, "pci"),
        ("mmio", COMMON, {}, "mmio"),
        ("pci-transitional", WITH_LEGACY, {}, "pci"),
        ("pci-transitional", WITH_LEGACY, {"legacy": True}, "pci-legacy"),
        ("pci-legacy", WITH_LEGACY, {}, "pci-legacy"),
    ],
    ids=["pci", "mmio", "transitional", "transitional-legacy", "legacy"],
)
def test_two_boots_are_equal(
    virtio_factory: VirtioFactory, transport: str, devices: tuple[Any, ...], settings: dict[str, Any], used: str
) -> None:
    first, second = (
        profile_of(virtio_factory, *devices, transport=transport, guest=Scripted(**settings)) for _ in range(2)
    )
    assert first == second
    assert {device.transport for device in first.devices.values()} == {used}


def test_what_is_in_it(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Net(mrg_rxbuf="off"), Serial()) as virtio:
        found, status = virtio.profile(), virtio["net0"].status()
    net = found.devices["net0"]
    assert (net.type, net.transport, net.protocol_features) == ("net", "pci", None)
    assert list(net.features) == list(status.host_features)
    assert net.features["VIRTIO_F_VERSION_1"] == FeatureProfile(True, True, None)
    assert {name for name, feature in net.features.items() if feature.acknowledged} == set(status.guest_features)
    assert [(queue.name, queue.size) for queue in net.queues] == [
        ("rx0", 256),
        ("tx0", 256),
        ("ctrl", 64),
    ]
    assert net.config == {"mac": "52:54:00:12:34:56"}
    assert found.devices["serial0"].config == {"max_nr_ports": 31}
    assert found.provenance.qemu
    assert found.provenance.accelerator in ("tcg", "kvm")


def test_a_queue_that_no_driver_set_up(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Net(), Blk(driver=None)) as virtio:
        found = virtio.profile().devices
        assert [queue.size for queue in found["blk0"].queues] == [0]
        driver: Driver = virtio.guest.driver("net0")
        driver.reset()
        assert [queue.size for queue in virtio["net0"].profile().queues] == [0, 0, 0]


def test_work_changes_nothing(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), Balloon()) as virtio:
        before = virtio.profile()
        virtio.guest.driver("blk0").write(0, b"x" * 4096)
        virtio.vm.qmp("balloon", {"value": 128 << 20})
        assert virtio.profile() == before


def test_before_anything_runs(virtio_factory: VirtioFactory) -> None:
    found = profile_of(virtio_factory, Net(), boot=False).devices["net0"]
    assert (found.transport, found.config) == ("pci", {})
    assert not any(feature.acknowledged for feature in found.features.values())


def test_the_backends_side(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk(wire=True)) as virtio:
        found = virtio["vublk0"].profile()
        assert found.features["VIRTIO_BLK_F_MQ"] == FeatureProfile(False, False, True)
        assert "VHOST_USER_PROTOCOL_F_CONFIG" in (found.protocol_features or ())
        assert found == virtio["vublk0"].profile()
        assert [queue.size for queue in found.queues] == [128]


@pytest.mark.guest
@pytest.mark.parametrize("transport", ["pci", "pci-transitional"])
def test_a_linux_guest(virtio_factory: VirtioFactory, transport: str) -> None:
    """Another driver, another set of acknowledged features; what the device shows is the same."""
    devices = (Net(), Blk(), Rng(), Scsi())
    linux = [profile_of(virtio_factory, *devices, transport=transport, guest="linux", timeout=120) for _ in range(2)]
    scripted = profile_of(virtio_factory, *devices, transport=transport)
    assert linux[0] == linux[1]
    for id, found in linux[0].devices.items():
        other = scripted.devices[id]
        assert (found.type, found.transport, found.config, found.queues) == (
            other.type,
            other.transport,
            other.config,
            other.queues,
        )
        assert {name: feature.offered for name, feature in found.features.items()} == {
            name: feature.offered for name, feature in other.features.items()
        }


def test_what_the_test_masks_the_backend_does_not_offer(virtio_factory: VirtioFactory) -> None:
    found = profile_of(virtio_factory, VhostUserBlk(mask={"VIRTIO_BLK_F_DISCARD"}))
    assert found.devices["vublk0"].features["VIRTIO_BLK_F_DISCARD"] == FeatureProfile(False, False, False)
