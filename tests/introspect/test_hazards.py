"""Each hazard of QEMU's introspection that virtio devices and vhost-user-blk show: the plain way does the damage, ours
doesn't. Which release shows which is as seen on 7.2, 10.0 and 11.1; a test that fails on another release has found that
a hazard came or went. Other vhost-user devices' are in tests/backend/test_daemons.py and test_vhost_queries.py."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from pytest_virtio import (
    Balloon,
    Blk,
    BlkDriver,
    CommandError,
    MonitorTimeoutError,
    NeedsResetError,
    Net,
    QemuExitedError,
    RequestTimeoutError,
    Rng,
    VhostUserBlk,
    Virtio,
    VirtioDevice,
    VirtioFactory,
)
from pytest_virtio.ring.split import SplitRing
from pytest_virtio.spec.ring import DescriptorFlag

SECTOR = 512
SIZE = 8 << 20
RING = 128
"""Entries: what each of these QEMUs offers for a queue of a block device."""

AVAIL_RING = 4
"""Of its entries in the available ring, behind flags and idx (virtio 1.3 section 2.7.6)."""


def release(virtio: Virtio) -> tuple[int, ...]:
    """``(7, 2)``"""
    return tuple(int(number) for number in re.findall(r"\d+", virtio.vm.qemu_version)[:2])


def plainly(virtio: Virtio, what: str, id: str, timeout: float = 10, **more: object) -> dict[str, Any]:
    """Ask as somebody would who does not know: ``x-query-virtio-`` and what."""
    place = {"path": virtio[id].path, **more}
    return cast(dict[str, Any], virtio.vm.qmp(f"x-query-virtio-{what}", place, timeout=timeout))


def everything(device: VirtioDevice) -> None:
    """Whatever a test may ask of a device, in its safe way."""
    assert device.status().driver_ok
    for queue in device.queues:
        queue.status()


# Asking for the status (11.1).


def by_qmp(virtio: Virtio) -> object:
    return plainly(virtio, "status", "rng0")


def by_hmp(virtio: Virtio) -> object:
    return virtio.vm.hmp(f"info virtio-status {virtio['rng0'].path}")


@pytest.mark.parametrize(("ask", "end"), [(by_qmp, "SIGABRT"), (by_hmp, "SIGSEGV")])
def test_asking_for_a_status(virtio_factory: VirtioFactory, ask: Callable[[Virtio], object], end: str) -> None:
    """11.1 leaves a member of the reply out that its schema requires (commit d8fec7e8f7c2)."""
    with virtio_factory(Rng()) as virtio:
        driver = virtio.guest.driver("rng0")
        status = virtio["rng0"].status()
        assert status.status == {"ACKNOWLEDGE", "DRIVER", "FEATURES_OK", "DRIVER_OK"}
        assert status.guest_features == driver.negotiated
        assert "virtio-rng" in virtio.dump()
        assert driver.read(16)
        if release(virtio) < (11, 1):
            assert ask(virtio)
            assert driver.read(16)
            return
        with pytest.raises(QemuExitedError, match=f"killed by {end}"):
            ask(virtio)


# Asking for a queue of a running vhost device.


def vhost_blk(virtio: Virtio) -> BlkDriver:
    """Its driver, after a few requests."""
    driver = virtio.guest.driver("vublk0", BlkDriver)
    for sector in range(5):
        driver.write(sector * SECTOR, bytes([sector]) * SECTOR)
    return driver


def assert_counted(virtio: Virtio, driver: BlkDriver) -> None:
    """The indices that we tell are the driver's own count."""
    for queue, ours in zip(virtio["vublk0"].queues, driver.queues, strict=True):
        told = queue.status()
        assert told.source.startswith("guest RAM")
        assert (told.shadow_avail_idx, told.used_idx) == (ours.completed, ours.completed)


def test_asking_for_a_ring_that_a_backend_serves(virtio_factory: VirtioFactory) -> None:
    """GET_VRING_BASE stops it, and the index that comes back is the call's return code."""
    with virtio_factory(VhostUserBlk(size=SIZE)) as virtio:
        driver = vhost_blk(virtio)
        for _ in range(3):
            assert_counted(virtio, driver)
            everything(virtio["vublk0"])
            virtio.dump()
            assert driver.read(0, 2 * SECTOR) == bytes(SECTOR) + b"\x01" * SECTOR
        assert driver.queue(0).completed == 8

        told = plainly(virtio, "queue-status", "vublk0", queue=0)
        assert (told["last-avail-idx"], told["used-idx"]) == (0, 0)
        with pytest.raises(RequestTimeoutError):
            driver.read(0, SECTOR, timeout=0.3)
        now = virtio["vublk0"].queue(0).status()
        assert (now.shadow_avail_idx, now.used_idx) == (9, 8), "and ours shows the ring that stands"


@contextlib.contextmanager
def standing_still(virtio: Virtio) -> Iterator[None]:
    """The backend is stopped by a signal, and has seen it."""
    pid = virtio._running.backends["vublk0"].child.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_asking_while_a_backend_says_nothing(virtio_factory: VirtioFactory) -> None:
    """QEMU's main loop waits for it, so that no command is answered any more."""
    with virtio_factory(VhostUserBlk(size=SIZE)) as virtio:
        driver = vhost_blk(virtio)
        with standing_still(virtio):
            assert_counted(virtio, driver)
            everything(virtio["vublk0"])
            dump = virtio.dump()
            assert "no answer" not in dump
            assert "qemu-storage-daemon: stopped by a signal" in dump
            assert virtio.vm.qmp("query-status")

            for _ in range(2):
                with pytest.raises(MonitorTimeoutError):
                    plainly(virtio, "queue-status", "vublk0", timeout=0.3, queue=0)
            with pytest.raises(MonitorTimeoutError):
                virtio.vm.qmp("query-status", timeout=0.3)
            hung = virtio.report(seconds=0.3)
            assert "no answer" in next(section.text for section in hung if section.title == "virtio: vublk0")
        assert virtio.vm.qmp("query-status"), "with the backend QEMU goes on, too"


# Asking for an element: QEMU walks whatever stands in the slot, also on an idle ring.

Spoil = Callable[[BlkDriver, SplitRing, int], None]
"""Leaves in an idle ring what a driver may leave there; given the address of the next slot of the available ring."""


def next_beyond_the_ring(driver: BlkDriver, ring: SplitRing, slot: int) -> None:
    ring.write_descriptor(0, driver.allocate(16), 16, DescriptorFlag.NEXT, ring.size)
    driver.memory.store16(slot, 0)


def freed_table(driver: BlkDriver, ring: SplitRing, slot: int) -> None:
    """An indirect table in memory that now holds something else."""
    table = driver.allocate(64, 16)
    driver.memory.write(table, b"something else  " * 4)
    ring.write_descriptor(0, table, 64, DescriptorFlag.INDIRECT)
    driver.memory.store16(slot, 0)


def head_beyond_the_ring(driver: BlkDriver, ring: SplitRing, slot: int) -> None:
    driver.memory.store16(slot, ring.size)


def table_of_no_length(driver: BlkDriver, ring: SplitRing, slot: int) -> None:
    ring.write_descriptor(0, driver.allocate(16, 16), 0, DescriptorFlag.INDIRECT)
    driver.memory.store16(slot, 0)


@contextlib.contextmanager
def spoilt(virtio_factory: VirtioFactory, spoil: Spoil) -> Iterator[tuple[Virtio, BlkDriver]]:
    """A healthy device at rest, its ring spoilt where no request is."""
    with virtio_factory(Blk(size=SIZE)) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver).initialise(sizes=RING)
        driver.write(0, b"w" * SECTOR)
        queue = driver.queue(0)
        assert isinstance(queue.ring, SplitRing)
        spoil(driver, queue.ring, queue.areas.driver + AVAIL_RING + 2 * queue.completed)
        yield virtio, driver


@pytest.mark.parametrize("spoil", [next_beyond_the_ring, freed_table, head_beyond_the_ring, table_of_no_length])
def test_what_stands_in_an_idle_ring_is_nothing_to_us(virtio_factory: VirtioFactory, spoil: Spoil) -> None:
    with spoilt(virtio_factory, spoil) as (virtio, driver):
        for _ in range(3):
            everything(virtio["blk0"])
            assert "no answer" not in virtio.dump()
        assert virtio["blk0"].status().broken is not True
        assert driver.read(0, SECTOR) == b"w" * SECTOR


@pytest.mark.parametrize("spoil", [next_beyond_the_ring, freed_table])
def test_asking_for_an_element_breaks_a_healthy_device(virtio_factory: VirtioFactory, spoil: Spoil) -> None:
    with spoilt(virtio_factory, spoil) as (virtio, driver):
        assert plainly(virtio, "queue-element", "blk0", queue=0)["index"] == 0, "as if nothing had happened"
        assert "NEEDS_RESET" in virtio["blk0"].status().status
        with pytest.raises(NeedsResetError):
            driver.read(0, SECTOR, timeout=5)


@pytest.mark.parametrize("spoil", [head_beyond_the_ring, table_of_no_length])
def test_asking_for_an_element_ends_qemu(virtio_factory: VirtioFactory, spoil: Spoil) -> None:
    with spoilt(virtio_factory, spoil) as (virtio, _), pytest.raises(QemuExitedError, match="killed by SIGABRT"):
        plainly(virtio, "queue-element", "blk0", queue=0)


def test_the_raw_way_by_its_name_is_the_plain_one(virtio_factory: VirtioFactory) -> None:
    with spoilt(virtio_factory, next_beyond_the_ring) as (virtio, _):
        virtio["blk0"].raw_queue_element(0)
        assert "NEEDS_RESET" in virtio["blk0"].status().status


def test_asking_for_an_element_moves_an_index(virtio_factory: VirtioFactory) -> None:
    """shadow-avail-idx is how far the device has looked; nobody has told it of the request yet."""
    with virtio_factory(Blk(size=SIZE)) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        driver.write(0, b"w" * SECTOR)
        driver.queue(0).submit(writable=[16])
        driver.queue(0).ring.publish()
        everything(virtio["blk0"])
        virtio.dump()
        assert virtio["blk0"].queue(0).status().shadow_avail_idx == 1
        plainly(virtio, "queue-element", "blk0", queue=0)
        assert virtio["blk0"].queue(0).status().shadow_avail_idx == 2


# What only misleads.


def test_no_devices(virtio_factory: VirtioFactory) -> None:
    """An empty list up to 8.1, then an error (commit b532c684e0d7)."""
    with virtio_factory() as virtio:
        if release(virtio) < (8, 2):
            assert virtio.vm.qmp("x-query-virtio") == []
        else:
            with pytest.raises(CommandError, match="No virtio devices found"):
                virtio.vm.qmp("x-query-virtio")
        assert list(virtio) == []
        assert "no virtio device" in virtio.dump()


@pytest.mark.parametrize(("transport", "suffix"), [("pci", "/virtio-backend"), ("mmio", "")])
def test_order_and_paths(virtio_factory: VirtioFactory, transport: str, suffix: str) -> None:
    """The newest first up to 8.1, by a hash table since; the path's end is the transport's."""
    declared = ["z", "a", "m", "b"]
    with virtio_factory(Rng(id="z"), Blk(id="a"), Net(id="m"), Balloon(id="b"), transport=transport) as virtio:
        told = [info["path"] for info in cast(list[dict[str, str]], virtio.vm.qmp("x-query-virtio"))]
        expected = [f"/machine/peripheral/{id}{suffix}" for id in declared]
        assert told != expected
        assert sorted(told) == sorted(expected)
        if release(virtio) < (8, 2):
            assert told == expected[::-1]
        assert [device.path for device in virtio] == expected
        assert [device.id for device in virtio] == declared


@pytest.mark.parametrize("declaration", [Blk(), VhostUserBlk()])
def test_bit_30_of_a_pci_device_is_called_vhosts(virtio_factory: VirtioFactory, declaration: Any) -> None:
    """virtio-pci offers VIRTIO_F_BAD_FEATURE with every device, and QEMU's table has only vhost's name for the bit."""
    with virtio_factory(declaration) as virtio:
        (device,) = virtio
        if release(virtio) < (11, 1):
            offered = plainly(virtio, "status", device.id)["host-features"]["dev-features"]
            assert any(text.startswith("VHOST_USER_F_PROTOCOL_FEATURES: ") for text in offered)
        features = device.status().host_features
        assert features.bits >> 30 & 1
        assert "VIRTIO_F_BAD_FEATURE" in features.names
        assert not any(name.startswith("VHOST_USER") for name in features.names)
