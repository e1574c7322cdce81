"""The way that stops the VM, on real QEMU: what it tells, and when it refuses."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from pytest_virtio import Blk, DisturbingQueryError, MonitorTimeoutError, Net, VhostUserBlk, Virtio, VirtioFactory
from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
from pytest_virtio.introspect import introspector
from pytest_virtio.introspect.standstill import Standstill
from pytest_virtio.spec.devices.blk import BlkRequestType

pytestmark = pytest.mark.qemu


@pytest.fixture
def vm(virtio_factory: VirtioFactory) -> Iterator[Virtio]:
    with virtio_factory(VhostUserBlk(), Blk(), Net()) as virtio:
        yield virtio


def test_indices_are_the_devices_own_and_io_goes_on(vm: Virtio) -> None:
    driver = vm.guest.driver("vublk0", BlkDriver)
    for _ in range(5):
        driver.read(0, 512)
    queue = vm["vublk0"].queue(0).stopped_status()
    assert (queue.last_avail_idx, queue.used_idx) == (5, 5)
    assert queue.source == "x-query-virtio-queue-status"
    driver.write(0, b"x" * 512)
    assert driver.read(0, 512) == b"x" * 512
    assert vm["vublk0"].status().vm_running


def test_a_vm_that_stands_still_is_left_so(vm: Virtio) -> None:
    vm.vm.stop()
    vm["blk0"].queue(0).stopped_status()
    assert vm["blk0"].status().vm_running is False


def test_a_stopped_backend_or_a_request_in_flight_is_waited_for_by_nobody(vm: Virtio) -> None:
    driver = vm.guest.driver("vublk0", BlkDriver)
    running = vm._running
    daemon = running.backends["vublk0"].child
    daemon_stops(daemon.pid)
    request = driver.submit(BlkRequestType.IN, 0, writable=[512])
    with pytest.raises(DisturbingQueryError, match="the VM is not stopped: the backend of vublk0 is"):
        vm["blk0"].queue(0).stopped_status()
    unsuspecting = Standstill(running.qemu, running.introspector, running.paths.values(), lambda: ())
    with pytest.raises(DisturbingQueryError, match=r"queue 0 of .*vublk0.* has requests in flight \(1\)"):
        unsuspecting.queue_status(vm["blk0"].path, 0, 10)
    assert vm["blk0"].status().vm_running
    os.kill(daemon.pid, signal.SIGCONT)
    driver.finish(request)
    assert vm["blk0"].queue(0).stopped_status().inuse == 0


def test_where_nobody_tells_whether_a_request_is_in_flight_nothing_is_stopped(
    vm: Virtio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(introspector, "has_indices", lambda *_: False)
    with pytest.raises(DisturbingQueryError, match=r"vublk0.* does not tell whether a request is in flight"):
        vm["vublk0"].queue(0).stopped_status()
    assert vm["blk0"].status().vm_running


def test_a_backend_that_says_nothing_does_not_hold_us(vm: Virtio) -> None:
    running = vm._running
    daemon = running.backends["vublk0"].child
    daemon_stops(daemon.pid)
    unsuspecting = Standstill(running.qemu, running.introspector, running.paths.values(), lambda: ())
    with pytest.raises(MonitorTimeoutError, match="stop: no answer within") as caught:
        unsuspecting.queue_status(vm["blk0"].path, 0, 1)
    assert "the VM may stay stopped" in caught.value.__notes__[-1]
    os.kill(daemon.pid, signal.SIGCONT)


def daemon_stops(pid: int) -> None:
    """Stop a process and wait until it has."""
    os.kill(pid, signal.SIGSTOP)
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
