"""Who owes a queue its next move: each verdict produced on a real device, most by a driver or backend that fails to do
its part."""

from __future__ import annotations

import os
import signal
import struct

from pytest_virtio import (
    Blk,
    BlkDriver,
    Driver,
    DriverQueue,
    Net,
    Request,
    Rng,
    Scripted,
    VhostUserBlk,
    Virtio,
    VirtioFactory,
    render,
)
from pytest_virtio.model.stuck import QueueVerdict, Stuck
from pytest_virtio.spec.ring import DescriptorFlag
from pytest_virtio.spec.status import DeviceStatus
from pytest_virtio.spec.transport.pci import NO_VECTOR
from pytest_virtio.vm.deadline import Deadline

SECTOR = 512
MSIX_BAR = 1
NOTHING, NOT_NOTICED = Stuck.NOTHING_SUBMITTED, Stuck.NOT_NOTICED


def judged(virtio: Virtio, id: str = "blk0", queue: int | str = 0) -> tuple[Stuck, dict[str, object]]:
    verdict: QueueVerdict = virtio[id].queue(queue).verdict()
    assert verdict.stuck.value in "\n".join(render.stuck(verdict))
    return verdict.stuck, dict(verdict.evidence)


def read(queue: DriverQueue) -> Request:
    """Submit the read of a sector, which the device does not see yet."""
    return queue.submit(struct.pack("<IIQ", 0, 0, 0), writable=[SECTOR, 1])


def await_used(virtio: Virtio, queue: DriverQueue, used: int) -> None:
    """Wait until the device gave buffers back, behind the driver's back."""
    deadline = Deadline.after(10)
    while virtio._running.qemu.memory.load16(queue.areas.device + 2) != used:
        assert not deadline.passed()
        virtio.vm.qmp("query-status")


def test_the_driver_submits(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        queue = virtio.guest.driver("blk0").queue(0)
        assert judged(virtio)[0] is NOTHING
        request = read(queue)
        assert judged(virtio)[0] is NOTHING
        queue.ring.publish()
        stuck, evidence = judged(virtio)
        assert stuck is Stuck.NOT_KICKED
        assert (evidence["avail_idx"], evidence["used_idx"], evidence["outstanding"]) == (1, 0, 1)
        queue.kick(always=True)
        await_used(virtio, queue, 1)
        stuck, evidence = judged(virtio)
        assert stuck is NOT_NOTICED
        assert (evidence["used_idx"], evidence["noticed"]) == (1, 0)
        queue.wait(request)
        assert judged(virtio)[0] is NOTHING


def test_a_kick_that_is_not_wanted(virtio_factory: VirtioFactory) -> None:
    """A network card that sends by a timer asks for no kicks while it runs, for up to 2**32 ns."""
    guest = Scripted(without={"EVENT_IDX"})
    with virtio_factory(Net(tx="timer", x_txtimer=4_000_000_000), guest=guest) as virtio:
        queue = virtio.guest.driver("net0").queue("tx0")
        # The first kick of all came with DRIVER_OK; one while the timer runs makes it send, and begin anew.
        for _ in range(3):
            queue.submit(bytes(12 + 60))
            if not queue.kick():
                break
        assert judged(virtio, "net0", "tx0")[0] is Stuck.KICK_SUPPRESSED
        assert judged(virtio, "net0", "rx0")[0] is Stuck.KEPT


def test_a_device_that_takes_nothing(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng(max_bytes=1, period=3_600_000)) as virtio:
        queue = virtio.guest.driver("rng0").queue(0)
        queue.request(writable=[1])
        queue.submit(writable=[64])
        queue.kick()
        stuck, evidence = judged(virtio, "rng0")
        assert stuck is Stuck.NOT_TAKEN
        assert (evidence["shadow_avail_idx"], evidence["last_avail_idx"]) == (2, 1)


def test_a_device_that_holds_requests(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        queue = virtio.guest.driver("blk0").queue(0)
        limits = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
        virtio.vm.qmp("block_set_io_throttle", {"id": virtio["blk0"].path, **limits, "iops": 1})
        for _ in range(4):
            read(queue)
        queue.kick()
        stuck, evidence = judged(virtio)
        assert stuck is Stuck.IN_FLIGHT
        assert evidence["inuse"] == evidence["outstanding"] != 0
        virtio.vm.qmp("block_set_io_throttle", {"id": virtio["blk0"].path, **limits, "iops": 0})
        await_used(virtio, queue, 4)
        assert judged(virtio)[0] is NOT_NOTICED


def test_a_vector_that_is_masked_or_unset(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        driver = virtio.guest.driver("blk0")
        queue, bar = driver.queue(0), msix_table(virtio)
        assert judged(virtio)[1]["MSI-X vector"] == queue.vector
        virtio._running.qemu.qtest.write("memory", bar + 16 * queue.vector + 12, 4, 1)
        read(queue)
        queue.kick()
        await_used(virtio, queue, 1)
        stuck, evidence = judged(virtio)
        assert stuck is NOT_NOTICED
        assert (evidence["MSI-X masked"], evidence["MSI-X pending"]) == (True, True)
        driver.transport.set_queue_vector(0, NO_VECTOR)
        read(queue)
        queue.kick()
        await_used(virtio, queue, 2)
        stuck, evidence = judged(virtio)
        assert stuck is NOT_NOTICED
        assert evidence["MSI-X vector"] == "none"


def msix_table(virtio: Virtio) -> int:
    buses = virtio.vm.qmp("query-pci")
    assert isinstance(buses, list)
    functions = [function for bus in buses for function in bus["devices"] if function["qdev_id"] == "blk0"]
    address: int = next(region["address"] for region in functions[0]["regions"] if region["bar"] == MSIX_BAR)
    return address


def test_asking_leaves_the_selector_alone(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Net()) as virtio:
        selected = virtio["net0"].status().queue_sel
        for queue in virtio["net0"].queues:
            queue.verdict()
        assert virtio["net0"].status().queue_sel == selected


def test_a_device_that_breaks(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        driver = virtio.guest.driver("blk0")
        queue = driver.queue(0)
        queue.submit(struct.pack("<IIQ", 0, 0, 0), writable=[SECTOR, 1], indirect=False)
        wrong = struct.pack("<IHH", 16, DescriptorFlag.NEXT, 9999)
        virtio._running.qemu.memory.write(queue.areas.descriptors + 8, wrong)
        queue.kick()
        stuck, evidence = judged(virtio)
        assert stuck is Stuck.BROKEN
        assert "NEEDS_RESET" in str(evidence["status"])


def test_what_is_not_set_up(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        driver: Driver = virtio.guest.driver("blk0")
        driver.reset_queue(0)
        assert judged(virtio)[0] is Stuck.NOT_ENABLED
        driver.set_status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FAILED)
        assert judged(virtio)[0] is Stuck.GIVEN_UP
        driver.reset()
        assert judged(virtio) == (Stuck.NOT_LIVE, {"status": "0", **broken(virtio)})


def broken(virtio: Virtio) -> dict[str, object]:
    """Registers do not tell it, on 11.1."""
    told = virtio["blk0"].status().broken
    return {} if told is None else {"broken": told}


def test_a_vm_that_is_stopped(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        virtio.vm.stop()
        assert judged(virtio) == (Stuck.VM_STOPPED, {"vm_running": False})
        virtio.vm.cont()
        assert judged(virtio)[0] is NOTHING


def test_a_backend(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(VhostUserBlk()) as virtio:
        driver = virtio.guest.driver("vublk0", BlkDriver)
        driver.read(0, SECTOR)
        assert judged(virtio, "vublk0")[0] is NOTHING
        queue = driver.queue(0)
        read(queue)
        queue.ring.publish()
        stuck, evidence = judged(virtio, "vublk0")
        assert stuck is Stuck.WITH_DEVICE
        assert (evidence["outstanding"], evidence["backend"]) == (1, "running")
        backend = virtio._running.backends["vublk0"].child
        os.kill(backend.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, backend.pid, os.WSTOPPED | os.WNOWAIT)
        assert judged(virtio, "vublk0")[0] is Stuck.BACKEND_STOPPED
        os.kill(backend.pid, signal.SIGKILL)
        assert backend.wait(Deadline.after(10))
        assert judged(virtio, "vublk0")[0] is Stuck.BACKEND_ENDED


def test_packed_and_mmio(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(packed="on"), transport="mmio") as virtio:
        queue = virtio.guest.driver("blk0").queue(0)
        assert judged(virtio)[0] is NOTHING
        request = read(queue)
        queue.ring.publish()
        assert judged(virtio)[0] is Stuck.NOT_KICKED
        queue.kick(always=True)
        queue.wait(request)
        assert judged(virtio)[0] is NOTHING
