"""Rings from guest RAM, of devices that QEMU and backends serve: what the scripted driver built is what is seen."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from pytest_virtio import (
    Blk,
    Device,
    Iommu,
    Net,
    NoPendingElement,
    NotSupportedError,
    Rng,
    VhostUserBlk,
    Virtio,
    VirtioDevice,
    VirtioFactory,
)
from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
from pytest_virtio.guest.scripted.drivers.rng import RngDriver
from pytest_virtio.guest.scripted.queue import DriverQueue
from pytest_virtio.introspect.indices import indices
from pytest_virtio.introspect.rings import ring_in_ram
from pytest_virtio.spec.devices.blk import BlkRequest, BlkRequestType
from pytest_virtio.vm.memory import LOW_MEMORY
from tests.guest.scripted.conftest import Boot, scripted

__all__ = ("scripted",)

pytestmark = pytest.mark.qemu

READ = BlkRequest(type=BlkRequestType.IN, reserved=0, sector=0).pack()
THROTTLE = ["-object", "throttle-group,id=slow,x-iops-total=1"]


def shape(device: VirtioDevice, *states: Any, queue: int = 0) -> list[list[tuple[int, int, bool]]]:
    """The buffers of the elements in some states."""
    ring = device.queue(queue).ring()
    assert ring.faults == ()
    assert not any(element.faults for element in ring.elements)
    return [[(d.addr, d.len, "write" in d.flags) for d in element.descs] for element in ring.in_state(*states)]


def built(*requests: Any) -> list[list[tuple[int, int, bool]]]:
    return [[(b.address, b.length, b.device_writes) for b in request.buffers] for request in requests]


def _started(virtio: Virtio) -> DriverQueue:
    """The queue of an entropy device that has been at work: when it starts, QEMU looks into its rings unasked."""
    queue = virtio.guest.driver("rng0", RngDriver).initialise().queue(0)
    queue.request(writable=[1])
    return queue


@pytest.mark.parametrize("transport", ["pci", "pci-transitional", "pci-legacy", "mmio"])
@pytest.mark.parametrize("packed", ["off", "on"], ids=["split", "packed"])
@pytest.mark.parametrize("without", [(), ("EVENT_IDX",), ("INDIRECT_DESC",)], ids=["all", "no-event-idx", "direct"])
def test_what_the_driver_built(scripted: Boot, transport: str, packed: str, without: tuple[str, ...]) -> None:
    """Pending ones that the device is not told of, over several laps; then the same ones used, with their lengths."""
    if packed == "on" and transport == "pci-legacy":
        pytest.skip("legacy devices have no packed rings (virtio 1.3 section 2.8)")
    legacy = transport == "pci-transitional" and packed == "off"
    disk = Blk(driver=None, packed=packed)
    with scripted(disk, transport=transport, without=without, legacy=legacy) as virtio:
        device, driver = virtio["blk0"], virtio.guest.driver("blk0", BlkDriver)
        # A legacy device chooses the size of its queues.
        queue = driver.initialise(sizes=None if driver.transport.legacy else 8).queue(0)
        queue.request(READ, writable=[512, 1])
        for length in range(30):
            requests = [queue.submit(READ, writable=[512, 1]), queue.submit(READ, writable=[512 * (length % 4 + 1), 1])]
            queue.ring.publish()
            assert shape(device, "pending") == built(*requests)
            queue.kick(always=True)
            lengths = {queue.wait(request).length for request in requests}
            ring = device.queue(0).ring()
            assert (ring.outstanding, ring.faults, ring.packed) == ((), (), packed == "on")
            # A disk may well give them back in another order.
            assert {element.written for element in ring.in_state("used")[:2]} == lengths
            assert "EVENT_IDX" not in without or ring.used_event is None


@pytest.mark.parametrize("direct", [False, True])
def test_qemu_sees_the_same_elements(scripted: Boot, direct: bool) -> None:
    """QEMU's walker is safe where the driver is ours: every slot of a receive queue is pending and well-formed."""
    without = {"INDIRECT_DESC"} if direct else set()
    with scripted(Net(), Rng(driver=None), without=without) as virtio:
        net, rng = virtio["net0"], virtio["rng0"]
        for index in range(len(net.queue("rx0").elements())):
            ours, qemus = net.queue("rx0").element(index), net.raw_queue_element(0, index)
            assert ours.source.startswith("guest RAM")
            assert replace(ours, source="") == replace(qemus, source="")
        queue = _started(virtio)
        queue.submit(writable=[16, 32, 48])
        queue.ring.publish()
        assert replace(rng.queue(0).element(), source="") == replace(rng.raw_queue_element(0), source="")


def test_no_pending_element(scripted: Boot) -> None:
    with scripted(Blk(), Blk(packed="on")) as virtio:
        with pytest.raises(NoPendingElement, match="no pending element: avail idx 0, used idx 0"):
            virtio["blk0"].queue(0).element()
        with pytest.raises(NotSupportedError, match="a packed ring has no avail ring"):
            virtio["blk1"].queue(0).element()
        virtio.guest.driver("blk0", BlkDriver).read(0, 512)
        # What was used stays in its slot.
        assert virtio["blk0"].queue(0).element(256).index == virtio["blk0"].queue(0).ring().elements[0].head


@contextmanager
def slow_disk(scripted: Boot, **properties: Any) -> Iterator[tuple[Virtio, DriverQueue]]:
    """A disk that takes a request a second."""
    words = [*THROTTLE, "-blockdev", "null-co,node-name=n0,size=1048576,read-zeroes=on"]
    words += ["-blockdev", "throttle,node-name=slow0,throttle-group=slow,file=n0"]
    card = Device("virtio-blk-pci", id="blk0", driver=None, drive="slow0", **properties)
    with scripted(card, args=words) as virtio:
        yield virtio, virtio.guest.driver("blk0", BlkDriver).initialise(sizes=16).queue(0)


@pytest.mark.parametrize("packed", ["off", "on"], ids=["split", "packed"])
def test_what_the_device_holds_is_in_flight(scripted: Boot, packed: str) -> None:
    with slow_disk(scripted, packed=packed) as (virtio, queue):
        requests = [queue.submit(READ, writable=[512, 1]) for _ in range(5)]
        queue.kick(always=True)
        queue.next()
        device, waiting = virtio["blk0"], requests[1:]
        assert device.queue(0).status().inuse == 4
        assert shape(device, "in_flight") == built(*waiting)
        late = queue.submit(READ, writable=[512, 1])
        queue.ring.publish()
        assert shape(device, "in_flight") == built(*waiting)
        assert shape(device, "pending") == built(late)
        (used,) = device.queue(0).ring().in_state("used")
        assert used.written == 513


def test_what_a_backend_holds_is_outstanding(scripted: Boot) -> None:
    """Nobody tells how far it has taken; it does not even run."""
    with scripted(VhostUserBlk(id="blk0")) as virtio:
        device, driver = virtio["blk0"], virtio.guest.driver("blk0", BlkDriver)
        driver.read(0, 512)
        daemon = virtio._running.backends["blk0"].child.pid
        os.kill(daemon, signal.SIGSTOP)
        try:
            requests = [driver.queue(0).submit(READ, writable=[512, 1]) for _ in range(3)]
            driver.queue(0).kick(always=True)
            ring = device.queue(0).ring()
            assert (ring.last_avail_idx, ring.faults) == (None, ())
            assert shape(device, "outstanding") == built(*requests)
            assert device.queue(0).element().index == ring.outstanding[0].head
        finally:
            os.kill(daemon, signal.SIGCONT)
        for request in requests:
            assert driver.queue(0).wait(request).data[-1:] == b"\0"
        assert device.queue(0).ring().outstanding == ()


def test_a_corrupted_ring_is_told_and_nothing_breaks(scripted: Boot) -> None:
    """QEMU's own walker aborts of this table."""
    with scripted(Blk(driver=None)) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        queue = driver.initialise(sizes=8).queue(0)
        queue.request(READ, writable=[512, 1])
        head = queue.submit(READ, writable=[512, 1]).token
        driver.memory.write(queue.areas.descriptors + 16 * head, struct.pack("<QIHH", 0x1000, 15, 4, 0))
        queue.ring.publish()
        (element,) = virtio["blk0"].queue(0).ring().in_state("pending")
        assert element.faults == ("its indirect table has 15 bytes, not 16 or a multiple",)
        assert virtio["blk0"].queue(0).element().extra == {"faults": element.faults}
        assert virtio["blk0"].status().broken in {False, None}


def test_a_ring_above_4_gib(scripted: Boot) -> None:
    """The arena is low, so ring and buffers are written where only the pieces of the RAM file tell."""
    with scripted(Rng(driver=None), memory="4G") as virtio:
        driver, high = virtio.guest.driver("rng0", RngDriver), 5 << 30
        memory = virtio._running.qemu.memory
        queue = driver.initialise(sizes=8).queue(0)
        assert virtio["rng0"].queue(0).ring().outstanding == ()
        assert memory.complete
        told = virtio["rng0"].queue(0).status()
        areas = (queue.areas.descriptors, queue.areas.driver, queue.areas.device)
        places = [high + address for address in areas]
        memory.write(places[0], struct.pack("<QIHH", high, 16, 2, 0))
        memory.write(places[1], struct.pack("<HHH", 0, 1, 0))
        elsewhere = replace(told, vring_desc=places[0], vring_avail=places[1], vring_used=places[2])
        ring = ring_in_ram(virtio["rng0"].status(), elsewhere, memory, iommu=False)
        assert ring.faults == ()
        assert [[(d.addr, d.len) for d in element.descs] for element in ring.elements] == [[(high, 16)]]
        # The same bytes that QEMU has there.
        text = virtio.vm.hmp(f"xp /1gx {places[0]:#x}")
        assert f"0x{high:016x}" in text


@pytest.mark.parametrize("platform", ["off", "on"])
def test_behind_an_iommu(scripted: Boot, platform: str) -> None:
    """The addresses are the IOMMU's then; without ACCESS_PLATFORM they are RAM's all the same."""
    with scripted(Iommu(driver=None), Rng(driver=None, iommu_platform=platform)) as virtio:
        queue = _started(virtio)
        request = queue.submit(writable=[16])
        queue.ring.publish()
        ring = virtio["rng0"].queue(0).ring()
        if platform == "off":
            assert shape(virtio["rng0"], "pending") == built(request)
            return
        assert ring.elements == ()
        assert "not read: it lies behind an IOMMU" in ring.faults[0]
        with pytest.raises(NotSupportedError, match="behind an IOMMU"):
            virtio["rng0"].queue(0).element()


def test_ram_that_is_not_ours(virtio_factory: VirtioFactory) -> None:
    words = ["-object", "memory-backend-ram,id=other,size=256M", "-machine", "memory-backend=other"]
    with virtio_factory(Blk(), guest="firmware", memory="256M", args=words, boot=False) as virtio:
        ring = virtio["blk0"].queue(0).ring()
        assert (ring.desc, ring.faults) == (0, ())
    with virtio_factory(Blk(), guest="firmware", memory="256M", args=words) as virtio:
        ring = virtio["blk0"].queue(0).ring()
        assert (ring.faults, ring.source.partition(",")[0]) == ((), "guest RAM by /proc/PID/mem")


def test_linux_with_ram_above_4_gib(virtio_factory: VirtioFactory) -> None:
    """Linux takes from the top: its rings lie there, and what stands in them is what it does."""
    with virtio_factory(Blk(), Net(), guest="linux", memory="4G", timeout=120) as virtio:
        virtio.guest.run("ip link set eth0 up")
        rings = [queue.ring() for id in ("blk0", "net0") for queue in virtio[id].queues if queue.status().vring_desc]
        assert max(ring.desc for ring in rings) >= LOW_MEMORY
        found = indices(virtio._running.introspector, virtio["blk0"].path, 0, 5)
        assert found.source.startswith("guest RAM, addresses by")
        assert all(ring.faults == () for ring in rings)
        rx = virtio["net0"].queue("rx0").ring()
        assert len(rx.in_state("pending")) > 100
