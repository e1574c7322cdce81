"""What a Linux guest negotiates: the gate that a driver, kernel or QEMU regression has to pass."""

import pytest

from pytest_virtio import Blk, Net, NetFeature, TransportFeature, Virtio


@pytest.mark.parametrize("id", ["net0", "blk0", "rng0"])
def test_every_driver_is_up_and_modern(linux: Virtio, id: str) -> None:
    linux[id].assert_driver_ok()
    linux[id].assert_negotiated("VIRTIO_F_VERSION_1")


def test_net_has_its_control_queue_and_merges_buffers(linux: Virtio) -> None:
    linux["net0"].assert_negotiated("VIRTIO_NET_F_MRG_RXBUF", "VIRTIO_NET_F_CTRL_VQ", "VIRTIO_NET_F_STATUS")


def test_blk_can_flush_discard_and_write_zeroes(linux: Virtio) -> None:
    linux["blk0"].assert_negotiated("FLUSH", "DISCARD", "WRITE_ZEROES")


def test_rng_uses_event_idx_and_indirect_descriptors(linux: Virtio) -> None:
    linux["rng0"].assert_negotiated(TransportFeature.EVENT_IDX, TransportFeature.INDIRECT_DESC)


def test_net_queues_go_by_the_specifications_names(linux: Virtio) -> None:
    net = linux["net0"]
    assert [queue.name for queue in net.queues] == ["rx0", "tx0", "ctrl"]
    assert net.queue("receiveq1").index == net.queue("rx0").index == 0
    assert net.queue("ctrl").status().vring_num == 64


@pytest.mark.virtio(Net(host_mtu=1400, mrg_rxbuf="off"), Blk(num_queues=2, packed=True), guest="linux", cpus=2)
def test_properties_of_a_device_show_in_what_is_negotiated(virtio: Virtio) -> None:
    virtio["net0"].assert_negotiated(NetFeature.MTU)
    virtio["net0"].assert_not_offered(NetFeature.MRG_RXBUF)
    virtio["blk0"].assert_negotiated("VIRTIO_BLK_F_MQ", "VIRTIO_F_RING_PACKED")
