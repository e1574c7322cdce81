"""The default guest: drivers in the test process, so that a test needs no image and takes milliseconds."""

import pytest

from pytest_virtio import Blk, Net, Rng, Virtio, VirtioFactory

BROADCAST = b"\xff" * 6


@pytest.mark.virtio(Blk(size="1M"), Rng())
def test_what_was_written_is_read_back(virtio: Virtio) -> None:
    blk, data = virtio.guest.driver("blk0"), virtio.guest.driver("rng0").read(512).ljust(512, b"\0")
    blk.write(4096, data)
    blk.flush()
    assert blk.read(4096, 512) == data
    virtio["blk0"].assert_driver_ok()


@pytest.mark.parametrize("transport", ["pci", "pci-transitional", "pci-legacy", "mmio"])
def test_every_transport(virtio_factory: VirtioFactory, transport: str) -> None:
    with virtio_factory(Blk(), transport=transport) as virtio:
        assert virtio.guest.driver("blk0").read(0, 512) == bytes(512)


@pytest.mark.virtio(Net())
def test_the_gateway_answers_who_it_is(virtio: Virtio) -> None:
    net = virtio.guest.driver("net0")
    who_has = bytes.fromhex("0806 0001 0800 06 04 0001") + net.mac() + bytes([10, 0, 2, 15])
    net.send(BROADCAST + net.mac() + who_has + bytes(6) + bytes([10, 0, 2, 2]))
    answer = net.receive(timeout=5)
    assert answer[:6] == net.mac()
    assert answer[28:32] == bytes([10, 0, 2, 2])
