"""A device test's own driver: each step of an initialisation by itself, exact features, and what must not be done."""

import pytest

from pytest_virtio import Blk, DriverError, NeedsResetError, Rng, Scripted, Virtio


@pytest.mark.virtio(Rng(driver=None))
def test_step_by_step(virtio: Virtio) -> None:
    rng = virtio.guest.driver("rng0")
    rng.reset().acknowledge().driver()
    assert rng.status() == {"ACKNOWLEDGE", "DRIVER"}
    assert "VIRTIO_F_VERSION_1" in rng.offered()
    rng.negotiate({"VIRTIO_F_VERSION_1"}).features_ok()
    rng.setup_queues(sizes=4).driver_ok()
    assert rng.read(16)
    assert virtio["rng0"].status().guest_features == {"VIRTIO_F_VERSION_1"}


@pytest.mark.virtio(Blk(num_queues=4), guest=Scripted(features={"blk0": {"VERSION_1", "MQ", "FLUSH"}}))
def test_exactly_these_features(virtio: Virtio) -> None:
    assert virtio["blk0"].status().guest_features == {"VERSION_1", "MQ", "FLUSH"}
    virtio["blk0"].assert_not_negotiated("EVENT_IDX", "INDIRECT_DESC")


@pytest.mark.virtio(Rng(iommu_platform="on", driver=None))
def test_a_device_refuses_a_driver_that_would_bypass_its_iommu(virtio: Virtio) -> None:
    rng = virtio.guest.driver("rng0")
    rng.reset().acknowledge().driver().negotiate({"VIRTIO_F_VERSION_1"})
    with pytest.raises(DriverError, match="refuses the features"):
        rng.features_ok()


@pytest.mark.virtio(Rng())
def test_a_corrupt_ring_breaks_the_device_and_a_reset_mends_it(virtio: Virtio) -> None:
    rng = virtio.guest.driver("rng0")
    queue = rng.queue()
    queue.ring.expose(queue.size)  # no such descriptor
    queue.kick(always=True)
    with pytest.raises(NeedsResetError):
        queue.next(timeout=5)
    assert rng.initialise().read(16)
