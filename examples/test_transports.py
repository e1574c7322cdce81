"""The same devices on each transport: only a legacy device may do without VERSION_1."""

import pytest

from pytest_virtio import Blk, Net, VirtioFactory


@pytest.mark.parametrize("transport", ["pci", "pci-transitional", "mmio"])
def test_modern_drivers_negotiate_version_1(virtio_factory: VirtioFactory, transport: str) -> None:
    with virtio_factory(Net(), Blk(), guest="linux", transport=transport) as virtio:
        for device in virtio:
            device.assert_driver_ok()
            device.assert_negotiated("VIRTIO_F_VERSION_1")


def test_a_legacy_device_has_no_version_1(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), guest="linux", transport="pci-legacy") as virtio:
        virtio["blk0"].assert_driver_ok()
        virtio["blk0"].assert_not_offered("VIRTIO_F_VERSION_1")
