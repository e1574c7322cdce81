"""The same tests on several machine types, transports and kinds of rings; `--virtio-compare A B` takes two QEMUs."""

import pytest

from pytest_virtio import Blk, Net, Rng, Virtio


@pytest.mark.virtio(Net(), matrix={"machine": ["pc-q35-7.1", "pc-q35-7.2"]})
def test_a_newer_machine_offers_what_the_older_did(virtio: Virtio) -> None:
    virtio["net0"].assert_offered("MRG_RXBUF", "CTRL_VQ", "STATUS")


@pytest.mark.virtio(Blk(), Rng(), matrix={"transport": ["pci", "mmio"], "packed": ["on", "off"]})
class TestRings:
    def test_data_survives_on_rings_of_either_kind(self, virtio: Virtio) -> None:
        blk = virtio.guest.driver("blk0")
        blk.write(4096, b"\xaa" * 512)
        assert blk.read(4096, 512) == b"\xaa" * 512

    @pytest.mark.virtio(transport="pci-legacy", matrix={"packed": ["off"]})
    def test_legacy_rings_are_split(self, virtio: Virtio) -> None:
        virtio["blk0"].assert_not_offered("VIRTIO_F_VERSION_1", "VIRTIO_F_RING_PACKED")
