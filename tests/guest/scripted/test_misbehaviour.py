"""Devices that don't do what they should, drivers that do what they shouldn't, and a QEMU that goes away: errors that
name step, register, expected and seen, each in time, and a test process that is none the worse."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pytest_virtio import (
    Blk,
    DriverError,
    Mem,
    MonitorTimeoutError,
    NeedsResetError,
    QemuExitedError,
    RequestTimeoutError,
    RingError,
    Rng,
    UsageError,
)
from pytest_virtio.guest.scripted import drivers
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
from pytest_virtio.guest.scripted.drivers.rng import RngDriver
from pytest_virtio.guest.scripted.queue import DriverQueue
from pytest_virtio.ring.driver import Buffer
from pytest_virtio.ring.packed import PackedRing
from pytest_virtio.ring.split import SplitRing
from pytest_virtio.spec.ring import DescriptorFlag, available_flags, used_flags
from pytest_virtio.vm import qtest

from .conftest import Boot

pytestmark = pytest.mark.qemu

NEXT, WRITE, INDIRECT = DescriptorFlag.NEXT, DescriptorFlag.WRITE, DescriptorFlag.INDIRECT
SILENT = ["-chardev", "null,id=silent", "-object", "rng-egd,id=egd,chardev=silent"]
OUTSIDE = 0xF_0000_0000
RING = 256


# A device that does nothing.


@pytest.mark.parametrize("interrupts", ["msix", "intx", "none"])
def test_a_request_that_is_never_completed(scripted: Boot, interrupts: str) -> None:
    """5.4: QEMU's generator behind the device never says a word."""
    with scripted(Rng(rng="egd"), args=SILENT, interrupts=interrupts) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        name = driver.queue(0).name
        with pytest.raises(RequestTimeoutError) as caught:
            driver.read(16, timeout=0.1)
        error = caught.value
        assert str(error).startswith(f"rng0: the next completion of {name} did not come within 0.1 s")
        assert error.step == f"requests on {name}"
        assert "device_status (common configuration + 0x14, at 0x" in error.register
        assert error.expected == f"the next completion of {name}"
        assert error.seen.startswith("0 requests given back, 1 with the device; device status 0x0f (")
        assert len(driver.queue(0).pending) == 1
        driver.initialise()
        assert driver.queue(0).pending == ()


def test_a_request_that_was_not_kicked(scripted: Boot) -> None:
    with scripted(Rng()) as virtio:
        queue = virtio.guest.driver("rng0", RngDriver).queue(0)
        request = queue.submit(writable=[16])
        with pytest.raises(RequestTimeoutError) as caught:
            queue.wait(request, timeout=0)
        assert caught.value.seen.startswith("0 requests given back, 0 with the device, 1 submitted but not kicked;")
        queue.kick()
        assert len(queue.wait(request).written) == 16


def test_a_device_that_refuses_features(scripted: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """5.15.5: virtio-mem of QEMU 10.0 wants UNPLUGGED_INACCESSIBLE, which the generic driver doesn't understand."""
    monkeypatch.setattr(drivers, "_CLASSES", {})
    with scripted(Mem(driver=None)) as virtio:
        driver = virtio.guest.driver("mem0", Driver)
        if "VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE" not in driver.offered():
            pytest.skip("this QEMU does not want it")
        with pytest.raises(DriverError, match="mem0: the device refuses the features") as caught:
            driver.initialise()
        assert (caught.value.step, caught.value.expected) == ("features_ok", "FEATURES_OK kept")


# A driver that writes nonsense into the ring.


def table_of(driver: Driver, *descriptors: tuple[int, int, int, int]) -> int:
    """An indirect table."""
    data = b"".join(
        address.to_bytes(8, "little")
        + length.to_bytes(4, "little")
        + flags.to_bytes(2, "little")
        + last.to_bytes(2, "little")
        for address, length, flags, last in descriptors
    )
    place = driver.allocate(len(data) + 16, 16)
    driver.memory.write(place, data)
    return place


@dataclass(frozen=True)
class Corruption:
    """What a driver writes: descriptors by hand and heads to expose."""

    title: str
    write: Callable[[Driver, SplitRing, int], None]


def chain(
    *descriptors: tuple[int | None, int, int, int], heads: tuple[int, ...] = (0,)
) -> Callable[[Driver, SplitRing, int], None]:
    """Descriptors (address, length, flags, next) from index 0 on; None is an address of RAM."""

    def write(driver: Driver, ring: SplitRing, ram: int) -> None:
        for index, (address, length, flags, following) in enumerate(descriptors):
            ring.write_descriptor(index, ram if address is None else address, length, flags, following)
        for head in heads:
            ring.expose(head)

    return write


def indirect(length: int, *rows: tuple[int | None, int, int, int]) -> Callable[[Driver, SplitRing, int], None]:
    def write(driver: Driver, ring: SplitRing, ram: int) -> None:
        table = table_of(driver, *((ram if row[0] is None else row[0], *row[1:]) for row in rows))
        ring.write_descriptor(0, table, length, INDIRECT)
        ring.expose(0)

    return write


def jump(driver: Driver, ring: SplitRing, ram: int) -> None:
    ring.expose(0)
    driver.memory.store16(ring.areas.driver + 2, ring.size + 1)


BROKEN = {
    "loop": chain((None, 16, NEXT, 1), (None, 16, NEXT, 0)),
    "loop of one": chain((None, 16, NEXT, 0)),
    "next beyond the ring": chain((None, 16, NEXT, 256)),
    "head beyond the ring": chain(heads=(256,)),
    "no length": chain((None, 0, WRITE, 0)),
    "at the end of everything": chain((2**64 - 8, 16, WRITE, 0)),
    "read after written": chain((None, 16, WRITE | NEXT, 1), (None, 16, 0, 0)),
    "indirect table of an odd size": indirect(17, (None, 16, 0, 0), (None, 16, WRITE, 0)),
    "indirect table of no size": indirect(0, (None, 16, 0, 0)),
    "indirect next beyond the table": indirect(32, (None, 16, NEXT, 2), (None, 1, WRITE, 0)),
    "indirect loop": indirect(32, (None, 16, NEXT, 1), (None, 16, NEXT, 0)),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("transport", ["pci", "mmio"])
def test_a_corrupt_ring_breaks_the_device_and_nothing_else(scripted: Boot, transport: str, name: str) -> None:
    """2.1.2: QEMU sets DEVICE_NEEDS_RESET and says so by a configuration interrupt; a reset brings it back."""
    with scripted(Blk(), transport=transport) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver).initialise(sizes=RING)
        queue = driver.queue(0)
        assert isinstance(queue.ring, SplitRing)
        BROKEN[name](driver, queue.ring, driver.allocate(4096))
        queue.kick(always=True)
        with pytest.raises(NeedsResetError) as caught:
            queue.next(timeout=5)
        error = caught.value
        assert str(error).startswith("blk0: the device is broken: it has set DEVICE_NEEDS_RESET")
        assert error.step == f"requests on {queue.name}"
        assert error.expected == "0x0f (ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK)"
        assert error.seen == "0x4f (ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK NEEDS_RESET)"
        assert driver.config_interrupted()
        driver.reset().initialise().write(0, b"mended! " * 64)
        assert driver.read(0, 512) == b"mended! " * 64


def test_buffers_outside_of_ram(scripted: Boot) -> None:
    """QEMU 7.2 calls the device broken, later ones read zeros and write into nothing: the request ends either way."""
    with scripted(Rng()) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        request = driver.queue(0).submit_buffers([Buffer(OUTSIDE, 16, device_writes=True)])
        driver.queue(0).kick()
        with contextlib.suppress(NeedsResetError):
            assert driver.queue(0).wait(request).data == b""
        assert len(driver.initialise().read(8)) == 8


def test_an_available_index_that_jumps(scripted: Boot) -> None:
    """2.7.13.3: more new heads than the ring has entries."""
    with scripted(Blk()) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        queue = driver.queue(0)
        driver.memory.store16(queue.areas.driver + 2, queue.size + 1)
        driver.transport.notify(0, None)
        driver.transport.flush()
        with pytest.raises(NeedsResetError):
            queue.next(timeout=5)
        assert driver.initialise().read(0, 512) == bytes(512)


@pytest.mark.parametrize("name", ["no length", "loop"])
def test_a_legacy_device_breaks_in_silence(scripted: Boot, name: str) -> None:
    """2.1: DEVICE_NEEDS_RESET is VERSION_1's; without it a broken device just says nothing any more."""
    with scripted(Blk(), transport="pci-transitional", legacy=True) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        queue = driver.queue(0)
        assert isinstance(queue.ring, SplitRing)
        BROKEN[name](driver, queue.ring, driver.allocate(4096))
        queue.kick(always=True)
        with pytest.raises(RequestTimeoutError):
            queue.next(timeout=0.1)
        assert driver.initialise().read(0, 512) == bytes(512)


PACKED = {
    "no length": [(None, 0, WRITE)],
    "read after written": [(None, 16, WRITE | NEXT), (None, 16, DescriptorFlag(0))],
    "indirect table of an odd size": [(None, 17, INDIRECT)],
    "indirect table of no size": [(None, 0, INDIRECT)],
}


@pytest.mark.parametrize("name", PACKED)
def test_a_corrupt_packed_ring(scripted: Boot, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """2.8: as with split rings, on QEMU 11.1. 7.2 and 10.0 look at the broken ring for ever, and abort at a table of no
    size: that is an error in time too."""
    monkeypatch.setattr(qtest, "ANSWER_SECONDS", 1.0)
    with scripted(Blk(packed="on")) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        queue, ram = driver.queue(0), driver.allocate(4096)
        assert isinstance(queue.ring, PackedRing)
        for position, (address, length, flags) in enumerate(PACKED[name]):
            where = ram if address is None else address
            queue.ring.write_descriptor(position, where, length, 0, flags | available_flags(True))
        queue.ring.expose(0, len(PACKED[name]))
        driver.transport.notify(0, None)
        queue.ring.publish()
        with pytest.raises((NeedsResetError, MonitorTimeoutError, QemuExitedError)) as caught:
            queue.next(timeout=5)
        if caught.type is NeedsResetError:
            assert driver.initialise().read(0, 512) == bytes(512)
        elif caught.type is QemuExitedError:
            assert name == "indirect table of no size"
            assert "killed by SIGABRT" in str(caught.value)


def test_what_was_written_by_hand_and_is_right_comes_back(scripted: Boot) -> None:
    """A chain without a request of ours is taken in all the same, and leaves the others alone."""
    with scripted(Rng()) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        queue, ram = driver.queue(0), driver.allocate(64)
        assert isinstance(queue.ring, SplitRing)
        queue.ring.write_descriptor(7, ram, 64, WRITE)
        queue.ring.expose(7)
        request = queue.submit(writable=[16])
        queue.kick()
        assert len(queue.wait(request).written) == 16
        assert queue.completed == 2
        assert any(driver.memory.read(ram, 64))


def test_buffers_of_ones_own(scripted: Boot) -> None:
    with scripted(Rng()) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        queue, ram = driver.queue(0), driver.allocate(64)
        request = queue.submit_buffers([Buffer(ram, 64, device_writes=True)])
        queue.kick()
        assert queue.wait(request).data == driver.memory.read(ram, 64)


# A device that writes nonsense into the ring: we write it for the device.


def with_a_pending_request(driver: Driver) -> DriverQueue:
    """A queue with a request that the device doesn't know of yet."""
    queue = driver.queue(0)
    queue.submit(writable=[16])
    queue.ring.publish()
    return queue


@pytest.mark.parametrize(
    ("write", "register", "expected", "seen"),
    [
        ({2: 2}, "used.idx at ", "0 to 1", "2"),
        ({2: 0xFFFF}, "used.idx at ", "0 to 1", "65535"),
        ({4: 5, 2: 1}, "used.ring[0].id at ", "one that the device has: 0", "5"),
        ({6: 0x8000, 2: 1}, "used.ring[0].id at ", "one that the device has: 0", str(0x80000000)),
    ],
)
def test_nonsense_in_the_used_ring(
    scripted: Boot, write: dict[int, int], register: str, expected: str, seen: str
) -> None:
    """2.7.8: ids and indices that can't be; the same call says the same again, and a reset ends it."""
    with scripted(Rng()) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        queue = with_a_pending_request(driver)
        for offset, value in write.items():
            driver.memory.store16(queue.areas.device + offset, value)
        for verb in (queue.poll, queue.next, queue.poll):
            with pytest.raises(RingError) as caught:
                verb()
            error = caught.value
            assert str(error).startswith(f"rng0, {queue.name}: the used ring")
            assert error.step == f"requests on {queue.name}"
            assert error.register.startswith(register)
            assert (error.expected, error.seen) == (expected, seen)
        assert len(driver.initialise().read(8)) == 8


def test_a_length_that_no_buffer_has(scripted: Boot) -> None:
    """2.7.8: the device's word is not trusted: what there is, is what the buffers hold."""
    with scripted(Rng()) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        queue = with_a_pending_request(driver)
        for offset, value in {4: 0, 6: 0, 8: 0xFFFF, 10: 0xFFFF, 2: 1}.items():
            driver.memory.store16(queue.areas.device + offset, value)
        request = queue.next()
        assert (request.length, len(request.data), len(request.written)) == (0xFFFFFFFF, 16, 16)


def test_nonsense_in_a_packed_ring(scripted: Boot) -> None:
    """2.8: a used descriptor with an id that the device doesn't have."""
    with scripted(Rng(packed="on")) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        queue = with_a_pending_request(driver)
        driver.memory.store16(queue.areas.descriptors + 12, 77)
        driver.memory.store16(queue.areas.descriptors + 14, used_flags(True))
        with pytest.raises(RingError) as caught:
            queue.next()
        assert (caught.value.expected, caught.value.seen) == ("one that the device has: 0", "77")
        assert len(driver.initialise().read(8)) == 8


# A QEMU that goes away.


def steps_of(driver: Driver) -> list[Callable[[], object]]:
    queue = driver.queue(0)
    return [
        *(driver.reset, driver.acknowledge, driver.offered, driver.negotiate, driver.features_ok, driver.setup_queues),
        *(driver.driver_ok, driver.initialise, driver.status, driver.isr),
        *(lambda: queue.request(writable=[8]), queue.next, lambda: driver.enable_queue(0)),
    ]


def test_a_qemu_that_is_killed(scripted: Boot) -> None:
    """Each step says how QEMU ended, at once."""
    with scripted(Rng()) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        os.kill(virtio.vm.pid, signal.SIGKILL)
        for step in steps_of(driver):
            with pytest.raises(QemuExitedError, match="killed by SIGKILL"):
                step()


def test_a_qemu_that_is_stopped(scripted: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step ends by its deadline; when QEMU goes on, so do we."""
    with scripted(Rng()) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        monkeypatch.setattr(qtest, "ANSWER_SECONDS", 0.05)
        os.kill(virtio.vm.pid, signal.SIGSTOP)
        try:
            for step in steps_of(driver):
                with pytest.raises(MonitorTimeoutError, match=r"no answer within 0\.05 s"):
                    step()
        finally:
            os.kill(virtio.vm.pid, signal.SIGCONT)
        monkeypatch.undo()
        assert len(driver.initialise().read(8)) == 8


def test_a_step_that_qemu_does_not_survive_is_named(scripted: Boot) -> None:
    """What was done, and to which register, stands in the error."""
    with scripted(Rng(), Blk()) as virtio:
        rng, blk = (virtio.guest.driver(id) for id in ("rng0", "blk0"))
        rng.reset().acknowledge().driver().negotiate()
        os.kill(virtio.vm.pid, signal.SIGKILL)
        with pytest.raises(QemuExitedError, match=r"during rng0: features_ok, device_status \(common configuration"):
            rng.features_ok()
        with pytest.raises(QemuExitedError, match=r"during blk0: offered, driver_feature \("):
            blk.offered()


def test_a_request_to_a_stopped_qemu_ends_by_its_own_timeout(scripted: Boot) -> None:
    with scripted(Blk()) as virtio:
        blk = virtio.guest.driver("blk0", BlkDriver)
        os.kill(virtio.vm.pid, signal.SIGSTOP)
        try:
            with pytest.raises(MonitorTimeoutError, match=r"blk0: .*device_status .*no answer within 0\.[0-3]"):
                blk.read(0, 512, timeout=0.3)
        finally:
            os.kill(virtio.vm.pid, signal.SIGCONT)
        assert blk.read(0, 512) == bytes(512)


def test_a_machine_that_is_reset_behind_the_drivers_back(scripted: Boot) -> None:
    with scripted(Rng()) as virtio:
        rng = virtio.guest.driver("rng0", RngDriver)
        virtio.vm.reset()
        with pytest.raises(DriverError, match=r"reset behind its driver's back; virtio\.guest\.start\(\)") as caught:
            rng.read(8)
        assert caught.value.seen == "0x00 (reset)"
        virtio.guest.start()
        assert rng.read(8)


@pytest.mark.parametrize("wrong", ["VERSION_1", "MQ"])
def test_a_feature_is_no_set_of_features(scripted: Boot, wrong: str) -> None:
    with scripted(Rng()) as virtio, pytest.raises(UsageError, match=f"a set of features is expected: {{'{wrong}'}}"):
        virtio.guest.driver("rng0", RngDriver).negotiate(wrong)


def test_timeouts_that_mean_nothing(scripted: Boot) -> None:
    with scripted(Rng()) as virtio:
        driver = virtio.guest.driver("rng0", RngDriver)
        for timeout in (-1, float("nan"), float("inf")):
            with pytest.raises(UsageError, match="a timeout is a number of seconds"):
                driver.queue(0).next(timeout=timeout)
