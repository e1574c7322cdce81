"""``dev.assert_conforms()``: real drivers conform, and a scripted one that breaks a rule is told so."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from pytest_virtio import (
    P9,
    Balloon,
    Blk,
    Crypto,
    Declaration,
    Driver,
    Gpu,
    Iommu,
    Keyboard,
    Mem,
    Mouse,
    Net,
    Pmem,
    Rng,
    Scsi,
    Serial,
    Tablet,
    VhostUserBlk,
    Virtio,
    VirtioAssertionError,
    VirtioError,
    VirtioFactory,
)
from pytest_virtio.introspect.introspector import Introspector
from pytest_virtio.introspect.query import Place
from pytest_virtio.model.ring import Ring, RingElement
from pytest_virtio.spec.ring import Areas, DescriptorFlag

SECTOR = 512


def said(virtio: Virtio, id: str) -> str:
    """The first line of what is broken."""
    with pytest.raises(VirtioAssertionError) as error:
        virtio[id].assert_conforms()
    assert "\n  source: " in str(error.value)
    return str(error.value).partition("\n")[0]


@pytest.mark.parametrize("transport", ["pci", "pci-transitional", "pci-legacy", "mmio"])
def test_scripted_drivers_conform(virtio_factory: VirtioFactory, transport: str) -> None:
    with virtio_factory(Net(), Blk(), Rng(), Balloon(), Serial(), Scsi(), transport=transport) as virtio:
        for device in virtio:
            device.assert_conforms()
        assert set(virtio.broken_rules()) == {device.id for device in virtio}


def modern() -> list[Declaration]:
    """Of each type that has no legacy interface."""
    inputs = [Keyboard(), Mouse(), Tablet()]
    return [*inputs, Gpu(), Crypto(), Mem(), Pmem(), P9(), Blk(packed="on"), VhostUserBlk(), VhostUserBlk(num_queues=3)]


def test_scripted_drivers_of_modern_types_conform(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(*modern(), Iommu()) as virtio:
        assert not any(virtio.broken_rules().values())


@pytest.mark.guest
def test_linux_conforms_on_modern_types(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(*modern(), guest="linux", timeout=120) as virtio:
        rules = virtio.broken_rules()
    assert set(rules) >= {"keyboard0", "gpu0", "vublk1"}
    assert not any(rules.values())


def test_firmware_conforms(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), Rng(), Net(), guest="firmware") as virtio:
        assert not any(virtio.broken_rules().values())


@pytest.mark.guest
def test_linux_conforms(linux: Virtio) -> None:
    assert not any(linux.broken_rules().values())


def test_a_device_without_driver_conforms(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), boot=False) as virtio:
        virtio["blk0"].assert_conforms()


def test_what_only_one_look_finds_is_not_broken(virtio_factory: VirtioFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a driver frees a chain after its queue was asked for and before its ring is read."""
    rings_of, wrong = Introspector.rings_of, RingElement(0, 0, "pending", (), False, None, ("it loops",))
    looks: list[Ring] = []

    def hasty(asked: Introspector, *about: Any) -> dict[Place, Ring | VirtioError]:
        rings = rings_of(asked, *about)
        seen = {place: replace(ring, elements=(wrong,)) for place, ring in rings.items() if isinstance(ring, Ring)}
        looks.extend(seen.values())
        return rings if len(looks) > count else {**rings, **seen}

    monkeypatch.setattr(Introspector, "rings_of", hasty)
    with virtio_factory(Rng()) as virtio:
        count = 1
        virtio["rng0"].assert_conforms()
        assert len(looks) == 2
        count = 4
        assert "its element 0: it loops" in said(virtio, "rng0")


def begin(virtio: Virtio, id: str) -> Driver:
    driver: Driver = virtio.guest.driver(id)
    return driver.reset().acknowledge().driver()


def test_no_version_1(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng()) as virtio:
        begin(virtio, "rng0").negotiate({"INDIRECT_DESC"}).set_status(0xB)
        if "FEATURES_OK" in virtio["rng0"].status().status:
            expected = "VIRTIO_F_VERSION_1 offered, and not acknowledged by the driver (virtio 1.3 section 6.1)"
            assert said(virtio, "rng0") == f"rng0: breaks a rule of the specification: {expected}"


def test_no_features_ok(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        begin(virtio, "blk0").negotiate().setup_queues().set_status(0x7)
        assert "DRIVER_OK without FEATURES_OK" in said(virtio, "blk0")


def test_a_feature_without_what_it_requires(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Net()) as virtio:
        begin(virtio, "net0").negotiate({"VERSION_1", "CTRL_RX", "CTRL_VLAN"}).features_ok()
        verdict = "VIRTIO_NET_F_CTRL_RX acknowledged without VIRTIO_NET_F_CTRL_VQ (virtio 1.3 section 5.1.3.1)"
        assert said(virtio, "net0") == f"net0: breaks a rule of the specification: {verdict} (and 1 more)"


def test_an_offer_without_what_it_requires(virtio_factory: VirtioFactory) -> None:
    """QEMU leaves the choice to whoever sets the properties."""
    blk = Blk(config_wce="on", write_cache="off", x_enable_wce_if_config_wce="off")
    with virtio_factory(Net(ctrl_vq="off"), blk) as virtio:
        rules = virtio.broken_rules()
    assert any(
        "VIRTIO_NET_F_CTRL_RX offered without VIRTIO_NET_F_CTRL_VQ, which section 5.1.3.1 requires" in line
        for line in rules["net0"]
    )
    verdict = "VIRTIO_BLK_F_CONFIG_WCE offered without VIRTIO_BLK_F_FLUSH (virtio 1.3 section 5.2.5.2)"
    assert rules["blk0"] == [verdict]


def test_a_driver_that_gives_up(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng()) as virtio:
        begin(virtio, "rng0").set_status(0x83)
        assert "the driver gave the device up: status ACKNOWLEDGE, DRIVER, FAILED" in said(virtio, "rng0")


def test_a_ring_that_overlaps_itself(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng()) as virtio:
        driver = begin(virtio, "rng0").negotiate({"VERSION_1"}).features_ok()
        block = driver.allocate(4096, 4096)
        driver.transport.queue_sizes()
        driver.transport.setup_queue(0, 8, Areas(block, block + 64, block + 1024))
        driver.set_status(0xF)
        assert "queue 0: its descriptor area (128 bytes at " in said(virtio, "rng0")


def test_a_ring_outside_of_ram(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng()) as virtio:
        driver = begin(virtio, "rng0").negotiate({"VERSION_1"}).features_ok()
        block = driver.allocate(4096, 4096)
        driver.transport.queue_sizes()
        driver.transport.setup_queue(0, 8, Areas(block, block + 128, 0xA0000000))
        driver.set_status(0xF)
        assert "its device area (70 bytes at 0xa0000000) is not in guest RAM" in said(virtio, "rng0")


def test_a_chain_that_can_not_be(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        queue = virtio.guest.driver("blk0").queue(0)
        # By then the kick that comes with DRIVER_OK is over, so that the device does not look at what follows.
        virtio["blk0"].assert_conforms()
        queue.submit(struct.pack("<IIQ", 0, 0, 0), writable=[SECTOR, 1], indirect=False)
        wrong = struct.pack("<IHH", 16, DescriptorFlag.NEXT, 9999)
        virtio._running.qemu.memory.write(queue.areas.descriptors + 8, wrong)
        queue.ring.publish()
        assert "queue 0: its element 0: its next descriptor " in said(virtio, "blk0")
        queue.kick(always=True)
        assert "(virtio 1.3 section 2.1.2)" in said(virtio, "blk0")
