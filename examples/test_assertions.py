"""One test for each assertion, with the plain ``assert`` beside it where there is one."""

import pytest

from pytest_virtio import Blk, Rng, Virtio, VirtioFactory


def test_assert_driver_ok(linux: Virtio) -> None:
    linux["blk0"].assert_driver_ok()
    assert "DRIVER_OK" in linux["blk0"].status().status


def test_assert_negotiated(linux: Virtio) -> None:
    linux["net0"].assert_negotiated("VIRTIO_F_VERSION_1", "VIRTIO_NET_F_MRG_RXBUF")
    assert linux["net0"].status().guest_features >= {"VIRTIO_F_VERSION_1", "VIRTIO_NET_F_MRG_RXBUF"}


def test_assert_not_negotiated(linux: Virtio) -> None:
    linux["blk0"].assert_not_negotiated("VIRTIO_BLK_F_RO", "VIRTIO_F_RING_PACKED")
    assert "RO" not in linux["blk0"].status().guest_features


def test_assert_offered(linux: Virtio) -> None:
    # Linux's driver leaves this one alone; the device offers it all the same.
    linux["net0"].assert_offered("VIRTIO_NET_F_CTRL_RX_EXTRA")
    linux["net0"].assert_not_negotiated("VIRTIO_NET_F_CTRL_RX_EXTRA")
    assert "CTRL_RX_EXTRA" in linux["net0"].status().host_features


def test_assert_not_offered(linux: Virtio) -> None:
    linux["net0"].assert_not_offered("VIRTIO_NET_F_RSS", "VIRTIO_F_ACCESS_PLATFORM")


def test_wait_driver_ok(virtio_factory: VirtioFactory) -> None:
    # Without a boot nothing has driven the devices yet; SeaBIOS does as soon as the machine runs.
    with virtio_factory(Blk(), Rng(), boot=False) as virtio:
        assert virtio["blk0"].status().status == set()
        virtio.vm.cont()
        status = virtio["blk0"].wait_driver_ok(timeout=20)
        assert status.driver_ok
        assert status.guest_features <= status.host_features


@pytest.mark.parametrize("queue", ["rx0", "tx0", "ctrl"])
def test_queue_status(linux: Virtio, queue: str) -> None:
    ring = linux["net0"].queue(queue).status()
    assert ring.vring_desc
    assert ring.used_idx is not None
