"""Initialisation step by step (virtio 1.3 section 3.1), against what QEMU says of it: its own status query, and the
status register as its monitor reads it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_virtio import (
    P9,
    Balloon,
    Blk,
    Crypto,
    DriverError,
    Gpu,
    Iommu,
    Keyboard,
    Mem,
    MissingError,
    Mouse,
    Net,
    NotSupportedError,
    Pmem,
    QemuExitedError,
    Rng,
    Scsi,
    Serial,
    Tablet,
    UsageError,
    Virtio,
)
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
from pytest_virtio.guest.scripted.drivers.rng import RngDriver
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.vm.memory import GuestMemory

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

TRANSPORTS = ("pci", "pci-transitional", "pci-legacy", "mmio")
EVERYTHING = (
    *(Net(), Blk(), Rng(), Balloon(), Serial(), Scsi(), Keyboard(), Mouse(), Tablet(), Gpu()),
    *(Crypto(), Iommu(), Mem(), Pmem(), P9()),
)
ON_MMIO = tuple(declaration for declaration in EVERYTHING if declaration.kind not in {"mem", "pmem", "iommu"})
TRANSITIONAL = (Net(), Blk(), Rng(), Balloon(), Serial(), Scsi(), P9())
ON = {"pci": EVERYTHING, "mmio": ON_MMIO, "pci-transitional": TRANSITIONAL, "pci-legacy": TRANSITIONAL}


def guest_of(virtio: Virtio) -> ScriptedGuest:
    assert isinstance(virtio.guest, ScriptedGuest)
    return virtio.guest


def shown(virtio: Virtio, driver: Driver) -> int:
    """The status register as QEMU's human monitor reads it from the guest's physical memory."""
    place = re.search(r"at (0x[0-9a-f]+)", driver.transport.status_register)
    assert place is not None
    # The registers of virtio-mmio take accesses of 32 bits only (4.2.2.2).
    size = "w" if "mmio" in driver.transport.title else "b"
    return int(virtio.vm.hmp(f"xp /1x{size} {place[1]}").split()[-1], 16)


def asked(virtio: Virtio, id: str) -> frozenset[str] | None:
    """The status bits by QEMU's own query; None where it can't be asked."""
    try:
        return frozenset(virtio[id].status().status)
    except MissingError:
        return None


@pytest.mark.parametrize("transport", ["pci", "pci-transitional", "mmio"])
def test_each_step_sets_its_bit_and_no_other(scripted: Boot, transport: str) -> None:
    """3.1.1: ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, in this order."""
    with scripted(Rng(driver=None), transport=transport) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        steps = {
            driver.reset: (0x00, set()),
            driver.acknowledge: (0x01, {"ACKNOWLEDGE"}),
            driver.driver: (0x03, {"ACKNOWLEDGE", "DRIVER"}),
            driver.negotiate: (0x03, {"ACKNOWLEDGE", "DRIVER"}),
            driver.features_ok: (0x0B, {"ACKNOWLEDGE", "DRIVER", "FEATURES_OK"}),
            driver.setup_queues: (0x0B, {"ACKNOWLEDGE", "DRIVER", "FEATURES_OK"}),
            driver.driver_ok: (0x0F, {"ACKNOWLEDGE", "DRIVER", "FEATURES_OK", "DRIVER_OK"}),
        }
        for step, (value, names) in steps.items():
            assert step() is driver
            assert shown(virtio, driver) == value
            assert driver.status() == names
            assert asked(virtio, "rng0") in {None, frozenset(names)}
        assert len(driver.read(16)) == 16


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_qemu_has_the_features_that_were_negotiated(scripted: Boot, transport: str) -> None:
    """3.1.1 step 4: what QEMU offers and what it was told are what the driver has read and written."""
    with scripted(Blk(), transport=transport, without={"EVENT_IDX", "VIRTIO_BLK_F_FLUSH"}) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        assert not driver.negotiated & {"EVENT_IDX", "VIRTIO_BLK_F_FLUSH"}
        assert "VIRTIO_BLK_F_BLK_SIZE" in driver.negotiated
        status = status_of(virtio, "blk0")
        assert status.guest_features == driver.negotiated
        assert driver.offered() <= status.host_features
        # QEMU keeps the bits of both interfaces; each shows its own.
        hidden = 32 if driver.transport.legacy else 0
        other = {"NOTIFY_ON_EMPTY", "ANY_LAYOUT", "BAD_FEATURE"} if not hidden else {"VERSION_1", "RING_RESET"}
        assert status.host_features - driver.offered() <= other


def test_a_legacy_interface_has_no_features_ok(scripted: Boot) -> None:
    """3.1.2: a legacy driver goes from DRIVER to DRIVER_OK, and the device works."""
    with scripted(Blk(), transport="pci-transitional", legacy=True) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        assert driver.status() == {"ACKNOWLEDGE", "DRIVER", "DRIVER_OK"}
        assert [step.split()[0] for step in driver.history] == [
            *("reset", "acknowledge", "driver", "offered", "negotiate", "setup_queues", "driver_ok"),
        ]
        driver.write(0, b"legacy!!" * 64)
        assert driver.read(0, 512) == b"legacy!!" * 64
        status = status_of(virtio, "blk0")
        assert status.status == {"ACKNOWLEDGE", "DRIVER", "DRIVER_OK"}
        assert not status.guest_features & {"VERSION_1"}


def test_a_legacy_interface_takes_no_more_than_32_features(scripted: Boot) -> None:
    with scripted(Blk(), transport="pci-transitional", legacy=True) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        with pytest.raises(NotSupportedError, match="blk0: a legacy interface has no register for VIRTIO_F_VERSION_1"):
            driver.negotiate({"VERSION_1", "VIRTIO_BLK_F_FLUSH"})


@pytest.mark.parametrize("interrupts", ["msix", "intx", "none"])
def test_a_legacy_set_up_leaves_the_configuration_alone(scripted: Boot, interrupts: str) -> None:
    """4.1.4.10: without MSI-X the device's configuration stands where the vector registers are with it, and a legacy
    network card's MAC, its first field, can be written there unless CTRL_MAC_ADDR is negotiated."""
    card = Net(mac="52:54:00:01:02:03")
    settings = {"legacy": True, "interrupts": interrupts, "without": ["VIRTIO_NET_F_CTRL_MAC_ADDR"]}
    with scripted(card, transport="pci-transitional", **settings) as virtio:
        filters: Any = virtio.vm.qmp("query-rx-filter", {"name": "net0"})
        assert filters[0]["main-mac"] == "52:54:00:01:02:03"


def test_features_that_were_not_offered_are_dropped(scripted: Boot) -> None:
    """2.2: a driver MUST NOT accept what is not offered. QEMU drops it and keeps FEATURES_OK (seen on 7.2 and 10.0)."""
    with scripted(Blk(driver=None)) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        driver.reset().acknowledge().driver().negotiate({"VERSION_1", "RING_PACKED", 60}).features_ok()
        assert driver.negotiated == {"VERSION_1", "RING_PACKED", "BIT_60"}
        assert driver.negotiated.offered == driver.offered()
        assert shown(virtio, driver) == 0x0B
        assert status_of(virtio, "blk0").guest_features == {"VERSION_1"}


def test_a_device_that_needs_its_platform_refuses_features_without(scripted: Boot) -> None:
    """6.1: with ACCESS_PLATFORM offered, a device may fail to operate without: QEMU refuses FEATURES_OK."""
    with scripted(Rng(driver=None, iommu_platform="on")) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver).reset().acknowledge().driver()
        driver.negotiate({"VERSION_1"})
        with pytest.raises(DriverError) as caught:
            driver.features_ok()
        error = caught.value
        assert str(error).startswith("rng0: the device refuses the features 0x100000000 that were written")
        assert (error.step, error.expected, error.seen) == (
            "features_ok",
            "FEATURES_OK kept",
            "0x03 (ACKNOWLEDGE DRIVER)",
        )
        assert "device_status (common configuration + 0x14, at 0x" in error.register
        assert shown(virtio, driver) == 0x03
        assert len(driver.initialise().read(8)) == 8
        assert "ACCESS_PLATFORM" in driver.negotiated


# Wrong orders.


def test_queues_before_features(scripted: Boot) -> None:
    """A driver that lays its queues out too early has a split ring without event index; QEMU takes it."""
    with scripted(Rng(driver=None)) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        driver.setup_queues()
        driver.reset().acknowledge().driver().setup_queues().negotiate({"VERSION_1"}).features_ok().driver_ok()
        assert len(driver.read(4)) == 4


def test_driver_ok_without_features_ok(scripted: Boot) -> None:
    """3.1.1 wants FEATURES_OK; QEMU goes live without, and both views agree on that."""
    with scripted(Rng(driver=None)) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        driver.reset().acknowledge().driver().negotiate().setup_queues().driver_ok()
        assert driver.status() == {"ACKNOWLEDGE", "DRIVER", "DRIVER_OK"}
        assert shown(virtio, driver) == 0x07
        assert status_of(virtio, "rng0").status == {"ACKNOWLEDGE", "DRIVER", "DRIVER_OK"}


def test_features_after_features_ok_do_not_count(scripted: Boot) -> None:
    """3.1.1: after FEATURES_OK the driver MUST NOT accept new bits; QEMU doesn't take them."""
    with scripted(Rng(driver=None), transport="pci") as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        driver.reset().acknowledge().driver().negotiate({"VERSION_1"}).features_ok().negotiate(
            {"VERSION_1", "EVENT_IDX"}
        )
        status = status_of(virtio, "rng0")
        # Registers show what was written, taken or not (QEMU 11.1 can be asked by them alone).
        late = {"EVENT_IDX"} if status.source == "registers" else set()
        assert status.guest_features == {"VERSION_1"} | late


def test_steps_twice(scripted: Boot) -> None:
    with scripted(Blk()) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        driver.acknowledge().acknowledge().driver().driver_ok().driver_ok()
        assert shown(virtio, driver) == 0x0F
        driver.write(512, b"twice..." * 64)
        driver.reset().reset()
        assert shown(virtio, driver) == 0
        driver.acknowledge().driver().negotiate().negotiate().features_ok().features_ok()
        first = driver.setup_queues().queue(0)
        second = driver.setup_queues().driver_ok().queue(0)
        assert first.areas != second.areas
        assert driver.read(512, 512) == b"twice..." * 64


@pytest.mark.parametrize("ring", ["split", "packed"])
def test_guest_ram_does_not_leak(scripted: Boot, ring: str) -> None:
    """2.4: whatever a reset finds under way, its RAM comes back: a hundred times half a megabyte, out of four."""
    disk = Blk(packed="on" if ring == "packed" else "off", queue_size=1024)
    with scripted(disk, memory="8M", transport="mmio") as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        for _ in range(100):
            driver.allocate(300_000)
            driver.queue(0).submit(bytes(16), writable=[200_000, 1])
            driver.initialise()
        assert driver.read(0, 512) == bytes(512)


def test_a_reset_in_the_middle_of_requests(scripted: Boot) -> None:
    """2.4.1: the device forgets its requests; so do we, and what is kept of the old queue says so."""
    with scripted(Blk()) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        old = driver.queue(0)
        for _ in range(20):
            requests = [driver.submit(0, 0, writable=[4096]) for _ in range(16)]
            driver.reset()
            assert driver.queues == ()
            driver.initialise()
        assert driver.read(0, 512) == bytes(512)
        assert not old.pending
        assert driver.queue(0) is not old
        assert len(requests) == 16


def test_all_at_once_in_order(scripted: Boot) -> None:
    with scripted(Blk(driver=None)) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        assert driver.initialise({"VERSION_1", "VIRTIO_BLK_F_FLUSH"}, sizes=16, timeout=5) is driver
        assert [step.split()[0] for step in driver.history] == [
            *("reset", "acknowledge", "driver", "offered", "negotiate", "features_ok", "setup_queues", "driver_ok"),
        ]
        assert driver.negotiated == {"VERSION_1", "VIRTIO_BLK_F_FLUSH"}
        assert driver.queue(0).size == 16
        assert driver.timeout == 10.0


# The machine's reset.


@pytest.mark.parametrize(
    ("transport", "machine", "interrupts"),
    [
        ("pci", "q35", "msix"),
        ("pci-transitional", "pc", "intx"),
        ("pci-legacy", "q35", "msix"),
        ("mmio", "microvm", "intx"),
    ],
)
def test_start_after_the_machines_reset(scripted: Boot, transport: str, machine: str, interrupts: str) -> None:
    """system_reset takes status, queues and PCI addresses away; ``start`` brings them back, with the same drivers."""
    with scripted(Blk(), Rng(driver=None), transport=transport, machine=machine, interrupts=interrupts) as virtio:
        driver, idle = virtio.guest.driver("blk0", BlkDriver), virtio.guest.driver("rng0", RngDriver)
        driver.write(0, b"survives" * 64)
        idle.initialise()
        virtio.vm.reset()
        guest_of(virtio).start()
        assert virtio.guest.driver("blk0") is driver
        assert driver.read(0, 512) == b"survives" * 64
        assert driver.queue(0).interrupted()
        assert idle.queues == ()
        assert idle.status() == frozenset()
        assert len(idle.initialise().read(8)) == 8


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_start_again_without_a_reset(scripted: Boot, transport: str) -> None:
    with scripted(Blk(serial="AgainAndAgain"), transport=transport, memory="16M") as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        for _ in range(20):
            guest_of(virtio).start(timeout=20)
            assert driver.get_id() == "AgainAndAgain"
            assert driver.config().capacity == 64 * 2048


def test_a_machine_that_was_reset_is_not_driven_by_chance(scripted: Boot) -> None:
    """Without ``start`` there is nothing at the device's old addresses: an error, soon, and not a wrong answer."""
    with scripted(Blk()) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        virtio.vm.reset()
        driver.timeout = 0.2
        with pytest.raises(DriverError):
            driver.read(0, 512)
        with pytest.raises(DriverError):
            driver.initialise()


def test_after_qemus_end_there_are_only_our_errors(scripted: Boot) -> None:
    with scripted(Blk()) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        queue = driver.queue(0)
        request = queue.submit(writable=[512])
    for verb in (driver.status, driver.reset, driver.offered, driver.initialise, driver.isr, guest_of(virtio).start):
        with pytest.raises(QemuExitedError):
            verb()
    for answer in (driver.config_interrupted, queue.interrupted, queue.poll, queue.kick, queue.next, queue.submit):
        with pytest.raises(UsageError):
            answer()
    with pytest.raises(UsageError):
        queue.wait(request)


def test_memory_is_what_the_drivers_share(scripted: Boot) -> None:
    """What lies in guest RAM by our account lies there by QEMU's."""
    with scripted(Rng()) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        assert isinstance(driver.memory, GuestMemory)
        place = driver.allocate(4096)
        driver.memory.write(place, bytes.fromhex("efbeadde"))
        assert virtio.vm.hmp(f"xp /1xw {place:#x}").split()[-1] == "0xdeadbeef"
