"""The watchdog: it wakes the waits of ours, and fails a test that has none."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from pytest_virtio import (
    Blk,
    BlkDriver,
    Device,
    Net,
    Rng,
    Serial,
    Tablet,
    UsageError,
    VhostUserBlk,
    Virtio,
    VirtioAssertionError,
    VirtioFactory,
)
from pytest_virtio.spec.devices.blk import BlkRequestType
from pytest_virtio.vm.deadline import Deadline

SECTOR = 512


def stop_backend(virtio: Virtio, what: signal.Signals = signal.SIGSTOP) -> None:
    os.kill(virtio._running.backends["vublk0"].child.pid, what)


@pytest.mark.guest
def test_a_command_of_linux_is_woken(virtio_factory: VirtioFactory) -> None:
    read = "dd if=/dev/vda of=/dev/null iflag=direct count=4"
    with virtio_factory(VhostUserBlk(), guest="linux", stall=1, timeout=120) as virtio:
        assert virtio.guest.run(read).exit_status == 0
        stop_backend(virtio)
        with pytest.raises(VirtioAssertionError) as error:
            virtio.guest.run(read, timeout=120)
        first, owed, _, before, after, source, ring, *elements = str(error.value).splitlines()
        stalled = "stalled: no progress for 1 s with buffers that the device has to answer"
        assert first == f"vublk0.request0: {stalled}"
        assert owed == "  the vhost backend's process is stopped: it serves nothing"
        assert before.startswith("  before: avail ")
        assert after.startswith("  after: avail ")
        assert source == "  source: guest RAM, addresses by x-query-virtio-vhost-queue-status"
        assert ring.startswith("  ring (split, ")
        assert len(elements) == 1
        assert elements[0].startswith("    in flight or pending: head ")
        # Whoever goes on knows of it.
        stop_backend(virtio, signal.SIGCONT)
        assert virtio.guest.run(read).exit_status == 0


@pytest.mark.parametrize("wait", ["driver", "progress", "driver_ok"])
def test_waits_are_woken(virtio_factory: VirtioFactory, wait: str) -> None:
    with virtio_factory(VhostUserBlk(), Blk(driver=None), stall=0.5) as virtio:
        driver = virtio.guest.driver("vublk0", BlkDriver)
        driver.read(0, SECTOR)
        stop_backend(virtio)
        request = driver.submit(BlkRequestType.IN, 0, writable=[SECTOR])
        waits: dict[str, Callable[[], object]] = {
            "driver": lambda: driver.queue(0).wait(request, 60),
            "progress": lambda: virtio["vublk0"].queue(0).wait_progress(60),
            "driver_ok": lambda: virtio["blk0"].wait_driver_ok(60),
        }
        with pytest.raises(VirtioAssertionError, match=r"^vublk0.request0: stalled: ") as error:
            waits[wait]()
        _, owed, _, before, after, _, _, stuck = str(error.value).splitlines()
        assert owed == "  the vhost backend's process is stopped: it serves nothing"
        assert before == "  before: avail 2, used 1"
        assert after == "  after: avail 2, used 1"
        head = virtio["vublk0"].queue(0).ring().outstanding[0].head
        assert stuck.startswith(f"    in flight or pending: head {head} in slot 1 (indirect): ")


@pytest.mark.parametrize("transport", ["pci", "mmio"])
def test_what_waits_for_input_is_no_stall(virtio_factory: VirtioFactory, transport: str) -> None:
    with virtio_factory(Net(), Serial(), Blk(), Tablet(), transport=transport, stall=0.2) as virtio:
        for _ in range(10):
            virtio.guest.driver("blk0", BlkDriver).read(0, SECTOR)
            time.sleep(0.1)
        assert not virtio.vm.stalled


def test_a_vm_that_stands_still_is_none(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk(), stall=0.3) as virtio:
        virtio.vm.stop()
        virtio.guest.driver("vublk0", BlkDriver).submit(BlkRequestType.IN, 0, writable=[SECTOR])
        time.sleep(1)
        assert not virtio.vm.stalled
        virtio.vm.cont()


def test_a_device_that_was_unplugged_does_not_blind_it(virtio_factory: VirtioFactory) -> None:
    port = Device("pcie-root-port", id="port0")
    devices = port, Rng(id="gone", bus="port0", driver=None), VhostUserBlk(driver=None)
    with virtio_factory(*devices, guest="scripted", stall=0.5) as virtio:
        virtio.vm.qmp("device_del", {"id": "gone"})
        # What a guest that minds its hot-plug ports would do.
        virtio.vm.reset()
        deadline = Deadline.after(10)
        while "/gone/" in str(virtio.vm.qmp("x-query-virtio")):
            assert not deadline.passed()
        virtio.guest.start()
        driver = virtio.guest.driver("vublk0", BlkDriver).initialise()
        driver.read(0, SECTOR)
        stop_backend(virtio)
        request = driver.submit(BlkRequestType.IN, 0, writable=[SECTOR])
        with pytest.raises(VirtioAssertionError, match=r"^vublk0.request0: stalled: "):
            driver.queue(0).wait(request, 60)


def test_a_test_without_waits_fails_at_its_end(virtio_factory: VirtioFactory) -> None:
    block = virtio_factory(VhostUserBlk(), stall=0.3)
    virtio = block.__enter__()
    stop_backend(virtio)
    virtio.guest.driver("vublk0", BlkDriver).submit(BlkRequestType.IN, 0, writable=[SECTOR])
    end = time.monotonic() + 30
    while not virtio.vm.stalled and time.monotonic() < end:
        time.sleep(0.01)
    with pytest.raises(VirtioAssertionError, match=r"^vublk0.request0: stalled"):
        block.__exit__(None, None, None)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("pytest-virtio")]


def test_it_is_off_unless_asked_for(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        assert virtio._running.watchdog is None
    with pytest.raises(UsageError, match="stall=0: a number of seconds above 0"):
        virtio_factory(Blk(), stall=0)
