"""Interrupts as a driver sees them: MSI-X messages in guest RAM, INTx lines, and none at all where they are suppressed
(virtio 1.3 sections 2.7.7, 2.8.10, 4.1.5.3, 4.1.5.4)."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_virtio import Blk, Rng, Virtio
from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
from pytest_virtio.guest.scripted.drivers.rng import RngDriver
from pytest_virtio.spec.devices.blk import BlkRequestType

from .conftest import Boot

pytestmark = pytest.mark.qemu

WAYS = [
    pytest.param("q35", "pci", "msix", id="q35-msix"),
    pytest.param("q35", "pci", "intx", id="q35-intx"),
    pytest.param("pc", "pci-transitional", "msix", id="pc-msix"),
    pytest.param("pc", "pci-transitional", "intx", id="pc-intx"),
    pytest.param("q35", "pci-legacy", "msix", id="legacy-msix"),
    pytest.param("q35", "pci-legacy", "intx", id="legacy-intx"),
    pytest.param("microvm", "mmio", "intx", id="mmio"),
    pytest.param("microvm", "mmio", "msix", id="mmio-by-default"),
]


def resize(virtio: Virtio, size: int) -> None:
    """Change the disk under the device, which tells its driver so (5.2.5)."""
    blocks: Any = virtio.vm.qmp("query-block")
    node = next(block["inserted"]["node-name"] for block in blocks if "blk0" in block.get("qdev", ""))
    virtio.vm.qmp("block_resize", {"node-name": node, "size": size})


@pytest.mark.parametrize(("machine", "transport", "interrupts"), WAYS)
def test_a_request_interrupts_once(scripted: Boot, machine: str, transport: str, interrupts: str) -> None:
    with scripted(Rng(), Rng(), machine=machine, transport=transport, interrupts=interrupts) as virtio:
        driver, other = virtio.guest.driver("rng0", RngDriver), virtio.guest.driver("rng1", RngDriver)
        assert not driver.queue(0).interrupted()
        for _ in range(20):
            driver.read(8)
            assert driver.queue(0).interrupted()
            assert not driver.queue(0).interrupted()
            assert not driver.config_interrupted()
            assert not other.queue(0).interrupted()


@pytest.mark.parametrize(("machine", "transport", "interrupts"), WAYS)
def test_a_new_configuration_interrupts_by_itself(
    scripted: Boot, machine: str, transport: str, interrupts: str
) -> None:
    """2.5, 4.1.4.5: asking for one kind of interrupt does not lose the other, though one register holds both. QEMU sets
    both bits of it for a new configuration."""
    with scripted(Blk(size="1M"), machine=machine, transport=transport, interrupts=interrupts) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        assert not driver.config_interrupted()
        resize(virtio, 2 << 20)
        driver.read(0, 512)
        assert driver.queue(0).interrupted()
        assert driver.config_interrupted()
        assert not driver.config_interrupted()
        assert driver.config().capacity == 4096
        resize(virtio, 3 << 20)
        assert driver.queue(0).interrupted() is not bool(driver.signal.vectors)
        assert driver.config_interrupted()
        assert not driver.config_interrupted()


@pytest.mark.parametrize("without", [(), ("EVENT_IDX",)], ids=["event-idx", "flags"])
@pytest.mark.parametrize("packed", ["off", "on"], ids=["split", "packed"])
@pytest.mark.parametrize("interrupts", ["msix", "intx"])
def test_suppression_is_honoured(scripted: Boot, interrupts: str, packed: str, without: tuple[str, ...]) -> None:
    """2.7.7, 2.8.10: a hint that QEMU follows, each time it is given."""
    with scripted(Rng(packed=packed), interrupts=interrupts, without=without) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        assert ("EVENT_IDX" in driver.negotiated) == (not without)
        queue = driver.queue(0)
        # With the event index QEMU sends the first one after a reset in any case.
        driver.read(8)
        queue.interrupted()
        for suppressed in (True, False, True, True, False, False):
            queue.ring.suppress_interrupts(suppressed)
            for _ in range(3):
                driver.read(8)
                assert queue.interrupted() is not suppressed


@pytest.mark.parametrize("packed", ["off", "on"], ids=["split", "packed"])
@pytest.mark.parametrize(("transport", "without"), [("pci", ()), ("pci", ("EVENT_IDX",)), ("mmio", ())])
def test_none_are_wanted(scripted: Boot, transport: str, packed: str, without: tuple[str, ...]) -> None:
    """interrupts="none": requests are done without, and the interrupt status says so too."""
    with scripted(Rng(packed=packed), transport=transport, interrupts="none", without=without) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        # With the event index QEMU sends the first one after a reset in any case.
        driver.read(8)
        driver.queue(0).interrupted()
        for _ in range(5):
            driver.read(8)
            assert not driver.queue(0).interrupted()
        assert driver.isr() == 0


def test_each_queue_has_its_vector(scripted: Boot) -> None:
    """4.1.5.1.2: vector 0 is the configuration's, then one for each queue; QEMU's memory has the message."""
    with scripted(Blk(num_queues=3, vectors=4)) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        assert [queue.vector for queue in driver.queues] == [1, 2, 3]
        for chosen in driver.queues:
            request = driver.submit(BlkRequestType.IN, 0, writable=[512], queue=chosen.index)
            chosen.wait(request)
            assert [queue.index for queue in driver.queues if queue.interrupted()] == [chosen.index]


@pytest.mark.parametrize(("vectors", "shared"), [(1, [0, 0, 0]), (2, [1, 1, 1]), (3, [1, 2, 2])])
def test_queues_share_vectors(scripted: Boot, vectors: int, shared: list[int]) -> None:
    """4.1.5.1.2.1: with fewer vectors than queues the last ones have one in common."""
    with scripted(Blk(num_queues=3, vectors=vectors)) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        assert [queue.vector for queue in driver.queues] == shared
        driver.queue(2).wait(driver.submit(BlkRequestType.IN, 0, writable=[512], queue=2))
        assert driver.queue(2).interrupted()
        assert not driver.queue(1).interrupted()


def test_intx_where_there_are_no_vectors(scripted: Boot) -> None:
    with scripted(Rng(vectors=0)) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        driver.read(8)
        assert driver.queue(0).interrupted()
        assert not driver.queue(0).interrupted()


def test_a_reset_forgets_interrupts(scripted: Boot) -> None:
    with scripted(Rng(), interrupts="intx") as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        driver.read(8)
        assert not driver.config_interrupted()
        driver.initialise()
        assert not driver.queue(0).interrupted()
