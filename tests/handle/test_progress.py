"""Whether queues move: counted on real devices, by a driver of ours and by Linux; and how a red one explains itself."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pytest_virtio import (
    Blk,
    BlkDriver,
    QemuExitedError,
    Rng,
    Scripted,
    UsageError,
    VhostUserBlk,
    Virtio,
    VirtioAssertionError,
    VirtioFactory,
    VirtioQueue,
)
from pytest_virtio.handle import follower
from pytest_virtio.introspect.indices import Indices, indices
from pytest_virtio.spec.devices.blk import BlkRequest, BlkRequestType
from pytest_virtio.spec.features import TransportFeature

SECTOR = 512


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("pytest-virtio")]


@pytest.fixture(scope="module")
def vm(virtio_factory: VirtioFactory) -> Iterator[Virtio]:
    with virtio_factory(Blk(), Blk(id="packed", packed="on"), VhostUserBlk(), Rng(driver=None)) as virtio:
        yield virtio


def reads(virtio: Virtio, id: str, count: int) -> None:
    driver = virtio.guest.driver(id, BlkDriver)
    for _ in range(count):
        driver.read(0, SECTOR)


def refused(verb: Callable[[], object]) -> list[str]:
    with pytest.raises(VirtioAssertionError) as error:
        verb()
    return str(error.value).splitlines()


def within(queue: VirtioQueue, body: Callable[[], object] = lambda: None, **limits: Any) -> Callable[[], None]:
    def run() -> None:
        with queue.assert_progress(**limits):
            body()

    return run


@pytest.mark.parametrize("id", ["blk0", "packed", "vublk0"])
@pytest.mark.parametrize("count", [1, 300])
def test_each_used_buffer_is_counted(vm: Virtio, id: str, count: int) -> None:
    queue = vm[id].queue(0)
    if id == "packed":
        # A test's own code may keep the interpreter from the sampler for longer than a lap.
        count = min(count, 50)
    with queue.assert_progress(count, at_most=count) as progress:
        reads(vm, id, count)
    assert progress.used == count
    queue.assert_idle(0.01)


def test_more_than_an_index_can_hold(vm: Virtio) -> None:
    """70,000 in one block: flushes, which need no data."""
    count, batch = 70_000, 50
    queue = vm.guest.driver("blk0", BlkDriver).queue(0)
    flush = BlkRequest(BlkRequestType.FLUSH).pack()
    with vm["blk0"].queue(0).assert_progress(count, at_most=count):
        for _ in range(count // batch):
            requests = [queue.submit(flush, writable=[1], indirect=False) for _ in range(batch)]
            queue.kick()
            for request in requests:
                queue.wait(request)


def test_too_little(vm: Virtio) -> None:
    lines = refused(within(vm["blk0"].queue(0), timeout=0.05))
    first, owed, facts, before, after, with_device, source, ring = lines
    assert first == "blk0.request0: no progress within 0.05 s: 0 used buffers of at least 1"
    assert owed == "  the driver has submitted nothing that is not answered"
    assert facts.startswith("    outstanding 0, avail_idx ")
    assert before.strip().removeprefix("before") == after.strip().removeprefix("after")
    assert with_device == "  with the device: 0"
    assert source == "  source: guest RAM, addresses by x-query-virtio-queue-status"
    assert ring.startswith("  ring (split, ")
    assert ring.endswith(", idle")
    lines = refused(within(vm["blk0"].queue(0), lambda: reads(vm, "blk0", 2), at_least=3, timeout=0.05))
    assert lines[0] == "blk0.request0: too little progress within 0.05 s: 2 used buffers of at least 3"


def test_too_much(vm: Virtio) -> None:
    lines = refused(within(vm["vublk0"].queue(0), lambda: reads(vm, "vublk0", 3), at_most=2))
    assert lines[0] == "vublk0.request0: too much progress: 3 used buffers of at most 2"
    assert lines[-1] == "  source: guest RAM, addresses by x-query-virtio-vhost-queue-status"


@pytest.mark.parametrize("id", ["blk0", "packed"])
def test_not_idle(vm: Virtio, id: str) -> None:
    queue, enough = vm[id].queue(0), threading.Event()

    def work() -> None:
        while not enough.wait(0.001):
            reads(vm, id, 1)

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(work)
        try:
            lines = refused(lambda: queue.assert_idle(10))
            assert queue.wait_progress() >= 1
        finally:
            enough.set()
        working.result()
    assert lines[0].startswith(f"{id}.request0: not idle: ")
    assert refused(lambda: queue.wait_progress(0.05))[0].startswith(f"{id}.request0: no progress within 0.05 s")


def test_what_leaves_the_block_is_not_judged(vm: Virtio) -> None:
    with pytest.raises(KeyError), vm["blk0"].queue(0).assert_progress():
        raise KeyError


def test_a_driver_that_begins_anew_is_noticed(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        reads(virtio, "blk0", 20)
        queue = virtio["blk0"].queue(0)
        with queue.assert_progress(3, at_most=3) as progress:
            virtio.guest.driver("blk0").initialise()
            assert progress.used == 0
            reads(virtio, "blk0", 3)


@pytest.mark.parametrize("packed", ["off", "on"])
def test_what_was_used_just_before_a_reset_counts(virtio_factory: VirtioFactory, packed: str) -> None:
    """Also where the new ring lies where the old one was, and goes as far as that had come, before anybody looks."""
    with virtio_factory(Blk(packed=packed), guest=Scripted(without={"IN_ORDER"})) as virtio:
        driver, queue = virtio.guest.driver("blk0", BlkDriver), virtio["blk0"].queue(0)
        with queue.assert_progress(16, at_most=16):
            for _ in range(4):
                reads(virtio, "blk0", 2)
                driver.initialise()
                reads(virtio, "blk0", 2)
                driver.set_status(0)
                driver.initialise()
        if driver.has(TransportFeature.RING_RESET):
            with queue.assert_progress(6, at_most=6) as progress:
                for _ in range(3):
                    reads(virtio, "blk0", 2)
                    driver.reset_queue(0)
                    assert progress.used % 2 == 0
                    driver.enable_queue(0)


@pytest.mark.parametrize("verb", ["assert_idle", "wait_progress"])
def test_finding_the_ring_is_no_part_of_the_wait(vm: Virtio, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU may be busy: what is used while it is looked for does not count, and the time that takes does not either."""
    enough, found = threading.Event(), indices

    def late(*args: Any) -> Indices:
        time.sleep(0.3)
        return found(*args)

    def work() -> None:
        while not enough.wait(0.001):
            reads(vm, "blk0", 1)

    monkeypatch.setattr(follower, "indices", late)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(work)
        try:
            if verb == "assert_idle":
                assert "not idle" in refused(lambda: vm["blk0"].queue(0).assert_idle(0.3))[0]
            else:
                assert vm["blk0"].queue(0).wait_progress(0.3)
        finally:
            enough.set()


@pytest.mark.parametrize("id", ["blk0", "packed"])
def test_a_wait_that_comes_too_late_says_so(vm: Virtio, id: str) -> None:
    driver, queue = vm.guest.driver(id, BlkDriver), vm[id].queue(0)
    with queue.assert_progress():
        request = driver.submit(BlkRequestType.IN, 0, writable=[SECTOR])
    lines = refused(lambda: queue.wait_progress(0.05))
    assert lines[1] == (
        "  nothing is with the device; what it gave back before the call does not count: "
        "put the kick into `with queue.assert_progress():`"
    )
    driver.queue(0).wait(request)


def test_a_vm_that_is_stopped_is_not_called_idle(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        queue = virtio["blk0"].queue(0)
        virtio.vm.stop()
        first = refused(lambda: queue.assert_idle(0.01))[0]
        assert first.startswith("blk0.request0: whether it is idle can't be told: the VM is stopped")
        virtio.vm.cont()
        queue.assert_idle(0.01)


def test_usage(vm: Virtio) -> None:
    queue = vm["blk0"].queue(0)
    for limits, message in (
        ({"at_least": -1}, r"at_least=-1\): a number from 0 up"),
        ({"at_least": 2, "at_most": 1}, "there is no such number"),
        ({"at_least": 0}, "it can't fail"),
        ({"timeout": -1}, "a timeout is a number"),
    ):
        with pytest.raises(UsageError, match=message):
            queue.assert_progress(**limits)
    block = queue.assert_progress()
    with pytest.raises(UsageError, match="write `with"):
        _ = block.used
    with pytest.raises(UsageError, match=r"rng0.request: the queue is not set up: .* at reset"):
        vm["rng0"].queue(0).wait_progress()


def test_a_translated_ring_is_counted_by_qemu(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(iommu_platform="on"), guest=Scripted()) as virtio:
        with virtio["blk0"].queue(0).assert_progress(2, at_most=2):
            reads(virtio, "blk0", 2)
        lines = refused(within(virtio["blk0"].queue(0), timeout=0))
        assert "  source: x-query-virtio-queue-status" in lines


def test_a_backend_that_stands_still(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk()) as virtio:
        reads(virtio, "vublk0", 2)
        os.kill(virtio._running.backends["vublk0"].child.pid, signal.SIGSTOP)
        driver = virtio.guest.driver("vublk0", BlkDriver)
        queue = virtio["vublk0"].queue(0)
        lines = refused(within(queue, lambda: driver.submit(BlkRequestType.IN, 0, writable=[SECTOR]), timeout=0.1))
        first, owed, _, before, after, with_device, _, ring, element = lines
        assert first == "vublk0.request0: no progress within 0.1 s: 0 used buffers of at least 1"
        assert owed == "  the vhost backend's process is stopped: it serves nothing"
        assert (before, after) == ("  before: avail 2, used 2", "  after: avail 3, used 2")
        assert with_device == "  with the device: 1"
        assert ring.startswith("  ring (split, ")
        assert element.startswith("    in flight or pending: head ")
        assert "+512 write, 0x" in element


def test_a_throttled_disk(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        virtio.vm.qmp(
            "block_set_io_throttle",
            {"id": "/machine/peripheral/blk0/virtio-backend"}
            | dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
            | {"iops": 2},
        )
        driver, queue = virtio.guest.driver("blk0", BlkDriver), virtio["blk0"].queue(0)
        for _ in range(4):
            driver.submit(BlkRequestType.IN, 0, writable=[SECTOR])
        assert queue.wait_progress(20) >= 1


def test_a_vm_that_is_killed(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        queue = virtio["blk0"].queue(0)
        with pytest.raises(QemuExitedError, match="killed by SIGKILL"), queue.assert_progress():
            os.kill(virtio.vm.pid, signal.SIGKILL)


@pytest.mark.guest
def test_linux_at_work(linux: Virtio) -> None:
    queue = linux["blk0"].queue(0)
    with ThreadPoolExecutor(1) as threads, queue.assert_progress(64, timeout=30):
        work = threads.submit(linux.guest.run, "dd if=/dev/vda of=/dev/null iflag=direct bs=4k count=64")
    assert work.result().exit_status == 0
    queue.assert_idle()
