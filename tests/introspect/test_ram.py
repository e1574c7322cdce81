"""Guest RAM that we have not mapped: QEMU tells where it lies in its process, and rings are read there as in ours."""

from __future__ import annotations

import os
import signal
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_virtio import (
    Blk,
    Mem,
    Net,
    NotSupportedError,
    QemuExitedError,
    Rng,
    Stuck,
    UsageError,
    Virtio,
    VirtioError,
    VirtioFactory,
)
from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
from pytest_virtio.guest.scripted.drivers.rng import RngDriver
from pytest_virtio.introspect.indices import indices
from pytest_virtio.introspect.ram import Ram, foreign_memory
from pytest_virtio.introspect.rings import ring_in_ram
from pytest_virtio.vm import cmdline
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.foreign_memory import ForeignMemory
from pytest_virtio.vm.memory import GuestMemory
from pytest_virtio.vm.qemu import Qemu
from tests.guest.scripted.conftest import Boot, scripted

__all__ = ("scripted",)

pytestmark = pytest.mark.qemu

MIB = 1 << 20
HIGH = 4 << 30
BY_PROC = "guest RAM by /proc/PID/mem, addresses by "


def other_ram(size: str) -> list[str]:
    return ["-object", f"memory-backend-ram,id=other,size={size}", "-machine", "memory-backend=other"]


def of(qemu: Qemu) -> ForeignMemory:
    return foreign_memory(qemu, qemu.process_memory, Deadline.after(10))


@pytest.mark.parametrize("memory", ["256M", "4G"])
@pytest.mark.parametrize("machine", ["q35", "pc", "microvm"])
def test_both_ways_the_same_bytes(scripted: Boot, machine: str, memory: str) -> None:
    transport = "mmio" if machine == "microvm" else "pci"
    with scripted(Blk(), machine=machine, memory=memory, transport=transport) as virtio:
        qemu = virtio._running.qemu
        virtio.guest.driver("blk0", BlkDriver).read(0, 4096)
        assert virtio["blk0"].queue(0).ring().source == "guest RAM, addresses by x-query-virtio-queue-status"
        ours, theirs = qemu.memory, of(qemu)
        assert theirs.size >= ours.size
        for address in (0x1000, MIB, 100 * MIB, *((HIGH, HIGH + MIB - 16) if memory == "4G" else ())):
            ours.write(address, os.urandom(16))
            assert theirs.read(address, 16) == ours.read(address, 16)
            assert theirs.load16(address + 2) == ours.load16(address + 2)
        ring = virtio["blk0"].queue(0).status().vring_desc & ~(MIB - 1)
        assert theirs.read(ring, MIB) == ours.read(ring, MIB)


def test_what_is_no_ram_is_refused(scripted: Boot) -> None:
    with scripted(Rng()) as virtio:
        ram = of(virtio._running.qemu)
        hole, local_apic, rom, nowhere = 0x20000000, 0xFEE00000, 0xFFFFFFF0, (1 << 64) - 16
        for address in (hole, 256 * MIB - 8, local_apic, rom, nowhere):
            with pytest.raises(UsageError, match=rf"16 bytes at {address:#x} can't be accessed"):
                ram.read(address, 16)


def same_as_qemus(virtio: Virtio, id: str) -> None:
    """A ring at rest: what stands in RAM is what QEMU has made of it."""
    queue = virtio[id].queue(0)
    ring, status = queue.ring(), queue.status()
    assert (ring.faults, ring.source) == ((), f"{BY_PROC}{status.source}")
    assert (ring.avail_idx, ring.used_idx) == (status.shadow_avail_idx, status.used_idx)
    assert len(ring.in_state("used")) == min(ring.used_idx or 0, ring.num)


def test_what_firmware_did_in_other_ram(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), guest="firmware", memory="256M", args=other_ram("256M")) as virtio:
        virtio.vm.stop()
        same_as_qemus(virtio, "blk0")
        virtio["blk0"].assert_conforms()


def test_where_it_is_not_for_us_to_read(virtio_factory: VirtioFactory) -> None:
    """What can be asked is asked, and of the rest it is said why."""
    with virtio_factory(Blk(), guest="firmware", memory="256M", args=other_ram("256M")) as virtio:
        virtio._running.qemu.process_memory.close()
        queue = virtio["blk0"].queue(0)
        (fault,) = queue.ring().faults
        assert fault.startswith("the used ring can't be read: the memory of process")
        with pytest.raises(NotSupportedError, match="the ring can't be read: "):
            queue.element(0)
        found = indices(virtio._running.introspector, virtio["blk0"].path, 0, 5)
        assert found.source == "x-query-virtio-queue-status"
        assert "can't be read" in virtio.dump()


@pytest.mark.parametrize("memory", ["512M", "4G"])
def test_what_linux_does_in_other_ram(virtio_factory: VirtioFactory, memory: str) -> None:
    options = {"memory": memory, "args": other_ram(memory), "timeout": 120, "stall": 5}
    with virtio_factory(Blk(), Blk(packed="on"), Net(), guest="linux", **options) as virtio:
        virtio.guest.run("ip link set eth0 up")
        split, packed = virtio["blk0"].queue(0), virtio["blk1"].queue(0)
        assert (split.status().vring_desc >= HIGH) == (memory == "4G")
        for queue, disk in ((split, "vda"), (packed, "vdb")):
            with queue.assert_progress(at_least=8):
                virtio.guest.run(f"dd if=/dev/{disk} of=/dev/null bs=4k count=8 iflag=direct")
            queue.assert_idle(0.2)
        same_as_qemus(virtio, "blk0")
        assert split.ring().in_state("used")
        assert packed.ring().faults == ()
        receive = virtio["net0"].queue("rx0")
        assert len(receive.elements()) > 100
        assert receive.element().source.startswith(BY_PROC)
        assert split.verdict().stuck is Stuck.NOTHING_SUBMITTED


def test_a_ring_on_a_memory_device(scripted: Boot) -> None:
    """The machine's RAM is ours, that of the memory device is not."""
    with scripted(Rng(driver=None), Mem(driver=None)) as virtio:
        virtio.guest.driver("rng0", RngDriver).initialise(sizes=8)
        qemu, told = virtio._running.qemu, virtio["rng0"].queue(0).status()
        (device,) = (piece for piece in of(qemu)._pieces if "mem0" in piece.block)
        places = device.address, device.address + 0x1000, device.address + 0x2000
        qemu.qtest.write_block(places[0], struct.pack("<QIHH", device.address, 16, 2, 0))
        qemu.qtest.write_block(places[1], struct.pack("<HHH", 0, 1, 0))
        qemu.qtest.flush()
        elsewhere = replace(told, vring_desc=places[0], vring_avail=places[1], vring_used=places[2])
        ram = Ram(qemu, qemu.memory).find(Deadline.after(10))
        assert (ram.source, ram.load16(2)) == ("guest RAM", qemu.memory.load16(2))
        ring = ring_in_ram(virtio["rng0"].status(), elsewhere, ram, iommu=False)
        assert ring.faults == ()
        assert [[(d.addr, d.len) for d in element.descs] for element in ring.elements] == [[(device.address, 16)]]
        assert ring.source.startswith("guest RAM and guest RAM by /proc/PID/mem, ")


def test_two_nodes_of_two_backends(program: Path) -> None:
    """A QEMU to which we have given no RAM at all; its VM has two gigabytes of it, half of each node's."""
    nodes = [
        word
        for name, kind in (("a", "ram"), ("b", "memfd"))
        for word in ("-object", f"memory-backend-{kind},id={name},size=1G", "-numa", f"node,memdev={name}")
    ]

    def build(wires: cmdline.Wires) -> tuple[str, ...]:
        machine = ("-machine", "q35,accel=tcg,max-ram-below-4g=512M", "-m", "2G", "-smp", "2", "-S", "-display", "none")
        load = ("-device", f"loader,addr={HIGH + 0x40000000:#x},data=0x0102030405060708,data-len=8")
        return str(program), "-nodefaults", *machine, *nodes, *load, *cmdline._monitor(wires.monitor)

    with Qemu.start(build, Deadline.after(30), label="nodes") as qemu, GuestMemory(MIB) as none:
        ram = Ram(qemu, none).find(Deadline.after(10))
        assert isinstance(ram, ForeignMemory)
        assert {piece.block for piece in ram._pieces} == {"a", "b"}
        assert ram.read(HIGH + 0x40000000, 8) == bytes(range(8, 0, -1))
        assert ram.size == HIGH + 0x60000000


def test_a_qemu_that_is_killed_or_stopped(scripted: Boot) -> None:
    with scripted(Rng()) as virtio:
        qemu, ram = virtio._running.qemu, of(virtio._running.qemu)
        expected = qemu.memory.read(0x1000, 64)
        os.kill(qemu.pid, signal.SIGSTOP)
        assert ram.read(0x1000, 64) == expected
        os.kill(qemu.pid, signal.SIGKILL)
        assert qemu.child.wait(Deadline.after(20))
        with pytest.raises(QemuExitedError):
            of(qemu)
        with pytest.raises(VirtioError, match=f"process {qemu.pid} has ended"):
            ram.read(0x1000, 64)
