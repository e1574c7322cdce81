"""How a device's interrupts reach the driver, in the verdict on its queues: each way, whole and cut off, on real
devices."""

from __future__ import annotations

import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pytest_virtio import (
    Blk,
    CommandError,
    Device,
    DriverQueue,
    Net,
    Request,
    Scripted,
    Virtio,
    VirtioFactory,
    qapi,
)
from pytest_virtio.bus.config_space import CONFIG_ADDRESS, MemoryAccess, PciAddress, PortAccess
from pytest_virtio.bus.observed_config import QUERY_ECAM
from pytest_virtio.introspect.interrupts import interrupts
from pytest_virtio.model.interrupt import Interrupt
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.model.stuck import QueueFacts, Stuck, verdict
from pytest_virtio.spec.transport.pci import (
    NO_VECTOR,
    Command,
    Config,
    IsrStatus,
    MsixControl,
    parse_capabilities,
)
from pytest_virtio.spec.transport.register import Register
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.qtest import Qtest

SECTOR = 512
MACHINES = pytest.mark.parametrize("machine", ["q35", "pc"])
PCI_CFG = 5
"""The type of the capability by which a driver reaches registers through configuration space (4.1.4.9)."""
NOT_NOTICED = Stuck.NOT_NOTICED


def judged(virtio: Virtio, id: str = "blk0", queue: int = 0) -> tuple[Stuck, dict[str, object]]:
    found = virtio[id].queue(queue).verdict()
    return found.stuck, dict(found.evidence)


def interrupt(virtio: Virtio, id: str = "blk0") -> Interrupt:
    """The device's, for its first queue."""
    path, qemu = virtio[id].path, virtio._running.qemu
    calm = virtio._running.calm
    return interrupts(qemu, qemu.qtest, calm, {path: virtio[id].status()}, {path: [0]}, 10)[path, 0]


def wire_of(virtio: Virtio) -> Qtest:
    return virtio._running.qemu.qtest


def function_of(virtio: Virtio, id: str = "blk0") -> PciFunction:
    found = qapi.parse_pci(virtio.vm.qmp("query-pci"))
    return next(function for function in found if function.qdev_id == id)


def chipset_memory(virtio: Virtio) -> int | None:
    """Where configuration space is in memory; None on a board that has it on ports alone."""
    try:
        base = virtio.vm.qmp(*QUERY_ECAM)
    except CommandError:
        return None
    assert isinstance(base, int)
    return base


class Space:
    """A function's configuration space, as a driver reaches it."""

    def __init__(self, virtio: Virtio, id: str = "blk0") -> None:
        self._wire, found = wire_of(virtio), function_of(virtio, id)
        self.address = PciAddress(found.bus, found.slot, found.function)
        base = chipset_memory(virtio)
        self._access = PortAccess(self._wire) if base is None else MemoryAccess(self._wire, base)

    def read(self) -> bytes:
        return self._access.read(self.address, 0, 256)

    def put(self, register: Register, value: int) -> None:
        self._wire.exchange([*self._access.writing(self.address, register, value)])

    def control(self, bits: int) -> None:
        """Set the MSI-X control."""
        found = parse_capabilities(self.read())[1]
        assert found
        self.put(Register("MSI-X control", found[0] + 2, 2), bits)


def read(queue: DriverQueue) -> Request:
    """Submit the read of a sector."""
    request = queue.submit(struct.pack("<IIQ", 0, 0, 0), writable=[SECTOR, 1])
    queue.kick()
    return request


def given_back(virtio: Virtio, queue: DriverQueue, used: int = 1) -> None:
    """Wait until the device gave buffers back, behind the driver's back."""
    until(virtio, lambda: virtio._running.qemu.memory.load16(queue.areas.device + 2) == used)


def until(virtio: Virtio, look: Callable[[], bool]) -> None:
    deadline = Deadline.after(10)
    while not look():
        assert not deadline.passed()
        virtio.vm.qmp("query-status")


def asserted(virtio: Virtio) -> Callable[[], bool]:
    return lambda: interrupt(virtio).untaken


@MACHINES
def test_msix(virtio_factory: VirtioFactory, machine: str) -> None:
    with virtio_factory(Blk(), machine=machine) as virtio:
        driver, space = virtio.guest.driver("blk0"), Space(virtio)
        queue = driver.queue(0)
        whole = {"MSI-X vector": queue.vector, "MSI-X masked": False, "MSI-X function masked": False}
        assert judged(virtio)[1].items() >= {**whole, "MSI-X pending": False}.items()
        space.control(MsixControl.ENABLE | MsixControl.MASK_ALL)
        request = read(queue)
        given_back(virtio, queue)
        until(virtio, asserted(virtio))
        stuck, evidence = judged(virtio)
        assert stuck is NOT_NOTICED
        assert evidence.items() >= {**whole, "MSI-X function masked": True, "MSI-X pending": True}.items()
        space.control(MsixControl.ENABLE)
        assert judged(virtio)[1].items() >= {**whole, "MSI-X pending": False}.items()
        # It asks for the next interrupt by that.
        queue.wait(request)
        table = function_of(virtio).address_of(1)
        assert table is not None
        wire_of(virtio).write("memory", table + 16 * queue.vector + 12, 4, 1)
        read(queue)
        given_back(virtio, queue, 2)
        until(virtio, asserted(virtio))
        assert judged(virtio)[1].items() >= {**whole, "MSI-X masked": True, "MSI-X pending": True}.items()
        driver.transport.set_queue_vector(0, NO_VECTOR)
        stuck, evidence = judged(virtio)
        assert stuck is NOT_NOTICED
        assert evidence["MSI-X vector"] == "none"


@MACHINES
@pytest.mark.parametrize("vectors", [0, 2])
def test_intx(virtio_factory: VirtioFactory, machine: str, vectors: int) -> None:
    """Of a function without MSI-X, and of one whose driver has not enabled it."""
    with virtio_factory(Blk(vectors=vectors), machine=machine, guest=Scripted(interrupts="intx")) as virtio:
        queue, space = virtio.guest.driver("blk0").queue(0), Space(virtio)
        quiet = {"INTx asserted": False, "INTx disabled by the driver": False}
        assert judged(virtio)[1].items() >= quiet.items()
        request = read(queue)
        given_back(virtio, queue)
        until(virtio, asserted(virtio))
        stuck, evidence = judged(virtio)
        assert stuck is NOT_NOTICED
        assert evidence.items() >= {**quiet, "INTx asserted": True}.items()
        # Who looks has not acknowledged it.
        assert judged(virtio)[1]["INTx asserted"]
        queue.wait(request)
        assert queue.interrupted()
        stuck, evidence = judged(virtio)
        assert stuck is Stuck.NOTHING_SUBMITTED
        assert evidence.items() >= quiet.items()
        space.put(Config.COMMAND, Command.IO | Command.MEMORY | Command.MASTER | Command.NO_INTX)
        read(queue)
        given_back(virtio, queue, 2)
        until(virtio, asserted(virtio))
        assert judged(virtio)[1].items() >= {"INTx asserted": True, "INTx disabled by the driver": True}.items()


def test_mmio(virtio_factory: VirtioFactory) -> None:
    guest = Scripted(interrupts="intx")
    with virtio_factory(Blk(), Blk(), transport="mmio", guest=guest) as virtio:
        queue = virtio.guest.driver("blk1").queue(0)
        assert judged(virtio, "blk1")[1]["InterruptStatus used buffer"] is False
        request = read(queue)
        given_back(virtio, queue)
        until(virtio, lambda: interrupt(virtio, "blk1").untaken)
        stuck, evidence = judged(virtio, "blk1")
        assert stuck is NOT_NOTICED
        assert evidence["InterruptStatus used buffer"] is True
        assert judged(virtio, "blk0")[1]["InterruptStatus used buffer"] is False
        queue.wait(request)
        assert queue.interrupted()
        assert judged(virtio, "blk1")[1]["InterruptStatus used buffer"] is False


@MACHINES
def test_what_nobody_counts_is_told_by_the_interrupt(virtio_factory: VirtioFactory, machine: str) -> None:
    """As with a guest whose driver is not ours."""
    with virtio_factory(Blk(vectors=0), machine=machine) as virtio:
        queue, device = virtio.guest.driver("blk0").queue(0), virtio["blk0"]

        def facts() -> QueueFacts:
            return QueueFacts(
                status=device.status(),
                queue=device.queue(0).status(),
                ring=device.queue(0).ring(),
                answered=True,
                interrupt=interrupt(virtio),
            )

        assert verdict(facts()).stuck is Stuck.NOTHING_SUBMITTED
        read(queue)
        given_back(virtio, queue)
        until(virtio, asserted(virtio))
        assert verdict(facts()).stuck is NOT_NOTICED
        assert verdict(replace(facts(), interrupt=None)).stuck is Stuck.NOTHING_SUBMITTED


@MACHINES
def test_behind_a_bridge(virtio_factory: VirtioFactory, machine: str) -> None:
    bridge, guest = Device("pci-bridge", id="br0", addr="7"), Scripted(interrupts="intx")
    args = ["-global", "pci-bridge.chassis_nr=1"]
    with virtio_factory(bridge, Blk(bus="br0", addr="3"), machine=machine, guest=guest, args=args) as virtio:
        assert judged(virtio)[1]["INTx asserted"] is False


@MACHINES
def test_looking_does_not_acknowledge(virtio_factory: VirtioFactory, machine: str) -> None:
    """A driver may reach the ISR status through ``pci_cfg_data``, which stands in the midst of configuration space."""
    with virtio_factory(Blk(vectors=0), machine=machine) as virtio:
        queue, space = virtio.guest.driver("blk0").queue(0), Space(virtio)
        capabilities = parse_capabilities(space.read())[0]
        isr, place = capabilities[3], place_of_pci_cfg(space.read())
        for offset, size, value in ((4, 1, isr.bar), (8, 4, isr.offset_in_bar), (12, 4, 1)):
            space.put(Register("pci_cfg", place + offset, size), value)
        read(queue)
        given_back(virtio, queue)
        until(virtio, asserted(virtio))
        assert judged(virtio)[0] is NOT_NOTICED
        assert virtio.guest.driver("blk0").transport.isr() == IsrStatus.QUEUE


def place_of_pci_cfg(config: bytes) -> int:
    place = config[Config.CAPABILITIES.offset]
    while (config[place], config[place + 3]) != (9, PCI_CFG):
        place = config[place + 1]
        assert place
    return place


def test_ports_are_left_as_they_were(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), Net(), machine="pc") as virtio:
        wire = wire_of(virtio)
        wire.write("io", CONFIG_ADDRESS, 4, 0x80000804)
        assert "MSI-X vector" in judged(virtio)[1]
        assert wire.read("io", CONFIG_ADDRESS, 4) == 0x80000804


@pytest.mark.guest
def test_linux(virtio_factory: VirtioFactory) -> None:
    """Healthy queues are not said to be stuck; those whose interrupts we cut off are, until we let them through."""
    with virtio_factory(Blk(vectors=0), Blk(), guest="linux", timeout=120) as virtio:
        intx, msix = Space(virtio, "blk0"), Space(virtio, "blk1")
        command = int.from_bytes(intx.read()[4:6], "little")

        def disable(cut: bool) -> None:
            intx.put(Config.COMMAND, command | Command.NO_INTX * cut)

        def mask(cut: bool) -> None:
            msix.control(MsixControl.ENABLE | MsixControl.MASK_ALL * cut)

        check_cut_off(virtio, "blk0", "vda", disable, {"INTx asserted": True, "INTx disabled by the driver": True})
        check_cut_off(virtio, "blk1", "vdb", mask, {"MSI-X function masked": True, "MSI-X pending": True})


def check_cut_off(
    virtio: Virtio, id: str, disk: str, set_cut: Callable[[bool], None], evidence: dict[str, object]
) -> None:
    dd = f"dd if=/dev/{disk} of=/dev/null iflag=direct bs=4k count=1"
    assert virtio.guest.run(dd).exit_status == 0
    assert judged(virtio, id)[0] is Stuck.NOTHING_SUBMITTED
    set_cut(True)
    with ThreadPoolExecutor(1) as threads:
        work = threads.submit(virtio.guest.run, dd, timeout=60)
        try:
            until(virtio, lambda: judged(virtio, id)[0] is NOT_NOTICED)
            assert judged(virtio, id)[1].items() >= evidence.items()
        finally:
            set_cut(False)
    assert work.result().exit_status == 0
    assert judged(virtio, id)[0] is Stuck.NOTHING_SUBMITTED


@pytest.mark.guest
def test_an_idle_linux(linux: Virtio) -> None:
    """Of no device, whatever it is, an interrupt is left over."""
    verdicts = {(device.id, queue.index): queue.verdict() for device in linux for queue in device.queues}
    assert len(verdicts) > 10
    assert {place: found for place, found in verdicts.items() if found.stuck is NOT_NOTICED} == {}
