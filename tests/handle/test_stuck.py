"""Who owes a queue its next move: each verdict produced on a real device, most by a driver or backend that fails to do
its part."""

from __future__ import annotations

import json
import os
import signal
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_virtio import (
    Blk,
    BlkDriver,
    Device,
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
from pytest_virtio.vm.deadline import Deadline

SECTOR = 512
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
        stuck, evidence = judged(virtio)
        assert stuck is Stuck.STAGED
        assert (evidence["staged"], evidence["avail_idx"]) == (1, 0)
        assert f"blk0.request0: {Stuck.STAGED.value}\n" in virtio.dump()
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
        assert judged(virtio, "net0", "rx0")[0] is Stuck.KEPT_OR_NOT_KICKED


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
        queue = virtio.guest.driver("blk0").queue(0)
        request = read(queue)
        queue.kick()
        stuck, evidence = judged(virtio)
        assert stuck is Stuck.VM_STOPPED
        # Whether it serves the queue all the same is QEMU's affair.
        assert evidence.items() >= {"vm_running": False, "avail_idx": 1}.items()
        assert evidence["outstanding"] == 1 - int(str(evidence["used_idx"]))
        virtio.vm.cont()
        queue.wait(request)
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
        stuck, evidence = judged(virtio, "vublk0")
        assert stuck is Stuck.BACKEND_STOPPED
        assert (evidence["backend"], evidence["outstanding"]) == ("stopped", 1)
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


@pytest.mark.parametrize("laps", [1, 2, 3])
def test_a_packed_ring_that_goes_round(virtio_factory: VirtioFactory, laps: int) -> None:
    """The ring has eight entries, so QEMU's positions are 0 again and again."""
    with virtio_factory(Rng(packed="on")) as virtio:
        driver = virtio.guest.driver("rng0")
        queue = driver.queue(0)
        for _ in range(laps * queue.size):
            queue.request(writable=[16])
            assert judged(virtio, "rng0")[0] is NOTHING
        assert "not noticed" not in virtio.dump()
        requests = [queue.submit(writable=[16]) for _ in range(2)]
        assert judged(virtio, "rng0")[0] is Stuck.STAGED
        queue.kick()
        deadline = Deadline.after(10)
        while (found := judged(virtio, "rng0"))[0] is not NOT_NOTICED:
            assert not deadline.passed()
        assert (found[1]["awaited"], found[1]["outstanding"]) == (2, 0)
        for request in requests:
            queue.wait(request)
        assert judged(virtio, "rng0")[0] is NOTHING


def test_buffers_for_which_the_kick_was_forgotten(virtio_factory: VirtioFactory) -> None:
    """Of a queue whose buffers the device keeps anyway."""
    with virtio_factory(Net(netdev="hubport,hubid=0")) as virtio:
        assert judged(virtio, "net0", "rx0")[0] is Stuck.KEPT_OR_NOT_KICKED
        queue = virtio.guest.driver("net0").queue("rx0")
        queue.submit(writable=[4096])
        for _ in range(2):
            stuck, evidence = judged(virtio, "net0", "rx0")
            assert (stuck, evidence["staged"]) == (Stuck.STAGED, 1)
            queue.ring.publish()
        assert evidence["avail_idx"] == evidence["outstanding"] == len(queue.pending)
        queue.kick()
        assert judged(virtio, "net0", "rx0")[0] is Stuck.KEPT_OR_NOT_KICKED


@pytest.mark.guest
def test_a_guest_at_work(virtio_factory: VirtioFactory) -> None:
    """Driver and device that do their part are blamed for nothing, whenever one looks; then the disk holds one request,
    after thousands that came one at a time."""
    blamed = {NOT_NOTICED, Stuck.NOT_KICKED, Stuck.KICK_SUPPRESSED, Stuck.NOT_TAKEN}
    read_all = "dd if=/dev/vda of=/dev/null bs=4k count=2000 iflag=direct"
    with virtio_factory(Blk(), guest="linux") as virtio, ThreadPoolExecutor() as executor:
        work = executor.submit(virtio.guest.run, f"{read_all}; {read_all}; {read_all}; {read_all}", timeout=60)
        seen = set()
        while not work.done():
            seen.add(judged(virtio)[0])
        assert not seen & blamed
        assert seen & {Stuck.MOVING, NOTHING}
        limits = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
        slow = {"iops": 1, "iops_max": 1, "iops_size": 512}
        virtio.vm.qmp("block_set_io_throttle", {"id": virtio["blk0"].path, **limits, **slow})
        work = executor.submit(virtio.guest.run, "dd if=/dev/vda of=/dev/null bs=4k count=2 iflag=direct", timeout=60)
        deadline = Deadline.after(10)
        while judged(virtio)[0] is not Stuck.IN_FLIGHT:
            assert not deadline.passed()
        ring, report = virtio["blk0"].queue(0).ring(), virtio.dump()
        virtio.vm.qmp("block_set_io_throttle", {"id": virtio["blk0"].path, **limits, "iops": 0})
        work.result()
    assert len(ring.in_state("in_flight")) + ring.untold == 1
    picture = report[report.index("queue 0, request0:") :]
    assert "1 in flight" in picture
    assert ": head " in picture
    assert "idle" not in picture[: picture.index("/machine")]
    assert "wrong" not in picture[: picture.index("/machine")]


DISK = "/machine/peripheral/blk0/virtio-backend"


def faulty_disk(**rules: object) -> list[str]:
    """A disk whose reads and writes can be held or fail: QEMU's docs/devel/blkdebug.txt."""
    image = {"driver": "null-co", "size": 1 << 20, "read-zeroes": True}
    blkdebug = {"driver": "blkdebug", "image": image, **rules}
    # It is the raw format above it that tells it of its events.
    return ["-blockdev", json.dumps({"driver": "raw", "node-name": "disk", "file": blkdebug})]


def blkdebug(virtio: Virtio, command: str) -> None:
    """Let it hold the next request (``break EVENT TAG``) or go on with it (``resume TAG``). It is addressed by the
    device: by the disk's own name QEMU 10.0 and 11.1 drain the disk, and wait for ever for the request that is held."""
    assert virtio.vm.hmp(f'qemu-io -d {DISK} "{command}"') == ""


def test_a_request_that_the_disk_holds(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Device("virtio-blk-pci", id="blk0", drive="disk"), args=faulty_disk()) as virtio:
        queue = virtio.guest.driver("blk0").queue(0)
        blkdebug(virtio, "break read_aio A")
        # Its token is its head.
        held = read(queue)
        queue.kick()
        for _ in range(2):
            stuck, evidence = judged(virtio)
            assert stuck is Stuck.IN_FLIGHT
            assert (evidence["inuse"], evidence["outstanding"], evidence["used_idx"]) == (1, 1, 0)
            ring = virtio["blk0"].queue(0).ring()
            assert [(element.head, element.state) for element in ring.outstanding] == [(held.token, "in_flight")]
            report = virtio.dump()
            assert f"blk0.request0: {Stuck.IN_FLIGHT.value}\n" in report
            assert f"    in flight: head {held.token} in slot 0" in report
            assert "no answer" not in report
        # The disk goes on with others.
        read(queue)
        queue.kick()
        await_used(virtio, queue, 1)
        assert [element.head for element in virtio["blk0"].queue(0).ring().in_state("in_flight")] == [held.token]
        blkdebug(virtio, "resume A")
        await_used(virtio, queue, 2)
        assert judged(virtio)[0] is NOT_NOTICED
        queue.wait(held)
        assert judged(virtio)[0] is NOTHING


def test_a_disk_whose_error_stops_the_vm(virtio_factory: VirtioFactory) -> None:
    # QEMU itself reads the first sector, once, for the disk's geometry.
    fails_once = faulty_disk(**{"inject-error": [{"event": "read_aio", "sector": 8, "once": True}]})
    disk = Device("virtio-blk-pci", id="blk0", drive="disk", rerror="stop")
    with virtio_factory(disk, args=fails_once) as virtio:
        queue = virtio.guest.driver("blk0").queue(0)
        request = queue.submit(struct.pack("<IIQ", 0, 0, 8), writable=[SECTOR, 1])
        queue.kick()
        deadline = Deadline.after(10)
        while judged(virtio)[0] is not Stuck.VM_STOPPED:
            assert not deadline.passed()
        assert '"io-error"' in json.dumps(virtio.vm.qmp("query-status"))
        assert [element.head for element in virtio["blk0"].queue(0).ring().outstanding] == [request.token]
        assert "blk0: DRIVER_OK: the driver finished its set-up; the VM is paused\n" in virtio.dump()
        assert judged(virtio)[0] is Stuck.VM_STOPPED
        virtio.vm.cont()
        queue.wait(request)
        assert judged(virtio)[0] is NOTHING


@pytest.mark.parametrize("without", [frozenset(), frozenset({"EVENT_IDX"})])
def test_a_card_whose_network_takes_nothing(virtio_factory: VirtioFactory, without: frozenset[str]) -> None:
    """A hub with one port: the card holds the first packet, and asks for no kick until it is rid of it."""
    with virtio_factory(Net(netdev="hubport,hubid=0"), guest=Scripted(without=without)) as virtio:
        queue = virtio.guest.driver("net0").queue("tx0")
        # With DRIVER_OK the card looks by itself, a moment later; what is asked now is answered after that.
        virtio.vm.qmp("query-status")
        queue.submit(bytes(12 + 60))
        assert queue.kick()
        assert judged(virtio, "net0", "tx0")[0] is Stuck.IN_FLIGHT
        queue.submit(bytes(12 + 60))
        assert not queue.kick()
        stuck, evidence = judged(virtio, "net0", "tx0")
        assert stuck is Stuck.KICK_SUPPRESSED
        assert (evidence["inuse"], evidence["outstanding"]) == (1, 2)
        told = (evidence["no_notify"], evidence.get("avail_event"))
        assert told == ((True, None) if without else (False, 0))


def test_a_ring_that_nobody_may_read(virtio_factory: VirtioFactory) -> None:
    """Behind an IOMMU there is what QEMU tells, and that is not what the driver has made available."""
    disk = Device("virtio-blk-pci", id="blk0", drive="disk", disable_legacy="on", iommu_platform="on")
    with virtio_factory(disk, args=[*faulty_disk(), "-device", "intel-iommu"]) as virtio:
        queue = virtio.guest.driver("blk0").queue(0)
        # Our own driver knows what it waits for.
        assert judged(virtio)[0] is NOTHING
        blkdebug(virtio, "break read_aio A")
        request = read(queue)
        queue.ring.publish()
        assert judged(virtio)[0] is Stuck.STAGED
        queue.kick(always=True)
        assert judged(virtio)[0] is Stuck.IN_FLIGHT
        blkdebug(virtio, "resume A")
        deadline = Deadline.after(10)
        while judged(virtio)[0] is Stuck.IN_FLIGHT:
            assert not deadline.passed()
        stuck, evidence = judged(virtio)
        assert stuck is NOT_NOTICED
        assert (evidence["used_idx"], evidence["noticed"]) == (1, 0)
        queue.wait(request)
        assert judged(virtio)[0] is NOTHING


@pytest.mark.guest
def test_a_ring_that_nobody_may_read_and_a_driver_that_is_not_ours(virtio_factory: VirtioFactory) -> None:
    disk = Device("virtio-blk-pci", id="blk0", drive="disk", disable_legacy="on", iommu_platform="on")
    with virtio_factory(disk, args=[*faulty_disk(), "-device", "intel-iommu"], guest="linux", timeout=120) as virtio:
        assert judged(virtio)[0] is Stuck.UNKNOWN
