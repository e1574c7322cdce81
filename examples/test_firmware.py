"""The machine's firmware as the guest: SeaBIOS drives disks, iPXE the network card. No image is needed."""

import pytest

from pytest_virtio import Blk, Net, Rng, Scsi, Virtio


@pytest.mark.virtio(Blk(), Scsi(), Rng(), guest="firmware")
def test_seabios_drives_disks_and_leaves_the_rest_alone(virtio: Virtio) -> None:
    virtio["blk0"].assert_negotiated("VIRTIO_F_VERSION_1", "VIRTIO_BLK_F_BLK_SIZE", "VIRTIO_BLK_F_SEG_MAX")
    virtio["scsi0"].assert_driver_ok()
    assert virtio["rng0"].status().status == set()


@pytest.mark.virtio(Net(), guest="firmware")
def test_ipxe_drives_the_network_card(virtio: Virtio) -> None:
    # iPXE lets go of the card some seconds later, when it has found nothing to boot.
    status = virtio["net0"].status()
    assert status.driver_ok
    assert status.guest_features == {"VIRTIO_F_VERSION_1", "VIRTIO_NET_F_MAC"}
