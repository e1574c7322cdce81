"""Interrupts: messages arrive where they were sent to and nowhere else; lines are those that QEMU raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import pytest

from pytest_virtio import Blk, Declaration, Device, NotSupportedError, Rng, Scripted, VirtioFactory
from pytest_virtio.bus.transport import Message
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
from pytest_virtio.guest.scripted.drivers.rng import RngDriver
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.handle import Virtio
from pytest_virtio.spec.devices.blk import BlkRequestType
from pytest_virtio.spec.transport.pci import IsrStatus
from pytest_virtio.vm.deadline import Deadline

from .conftest import qemu_of, transport_of, wire_of

pytestmark = pytest.mark.qemu

D = TypeVar("D", bound=Driver)

PLACE = 0x800000
SECTOR = 512
TIMER = 0
"""The PC's own timer, which rises by itself (seen on 11.1)."""


def at(addresses: list[str], **properties: Any) -> list[Declaration]:
    return [Rng(addr=address, **properties) for address in addresses]


def behind(bridge: Declaration, addresses: list[str]) -> list[Declaration]:
    return [bridge, *at(addresses, bus=str(bridge.id))]


BRIDGE = Device("pci-bridge", id="br0", addr="7")
FOUR = ["1", "2", "3", "4"]
"""All four turns of the pins."""

BOARDS: dict[str, tuple[list[Declaration], dict[str, Any]]] = {
    "q35": (at(["1", "2", "3", "4", "18"]), {"machine": "q35"}),
    "q35, the last slots": (at([f"{slot:x}" for slot in range(0x18, 0x1F)] + ["1f.5"]), {"machine": "q35"}),
    "q35, functions": (at(["5.0", "5.1", "5.2", "6.0"], multifunction="on"), {"machine": "q35"}),
    "q35, a bridge": (behind(BRIDGE, FOUR), {"machine": "q35"}),
    "q35, a bridge in a late slot": (behind(Device("pci-bridge", id="br0", addr="1a"), FOUR), {"machine": "q35"}),
    "q35, a bridge in slot 30": (behind(Device("pci-bridge", id="br0", addr="1e"), FOUR), {"machine": "q35"}),
    "q35, a root port": (behind(Device("pcie-root-port", id="rp0", addr="2"), ["0"]), {"machine": "q35"}),
    "pc": (at(["2", "3", "4", "5", "1f"]), {"machine": "pc"}),
    "pc, a bridge": (behind(BRIDGE, FOUR), {"machine": "pc"}),
    "microvm": ([Rng() for _ in range(4)], {"transport": "mmio"}),
}


@pytest.mark.parametrize("board", BOARDS)
def test_the_line_that_rises_is_ours(virtio_factory: VirtioFactory, board: str) -> None:
    """And reading the interrupt status lowers it (virtio 1.3 section 4.1.4.5)."""
    declared, options = BOARDS[board]
    guest = Scripted(interrupts="intx")
    with virtio_factory(*declared, guest=guest, args=["-global", "pci-bridge.chassis_nr=1"], **options) as virtio:
        wire = wire_of(virtio)
        for id in [device.id for device in virtio if device.id.startswith("rng")]:
            transport, before = transport_of(virtio, id), wire.raises
            assert wire.raised() <= {TIMER}
            driver_of(virtio, id, RngDriver).read(8)
            assert wire.await_interrupt(before, Deadline.after(10))
            assert wire.raised() - {TIMER} == {transport.line}
            assert transport.isr() == IsrStatus.QUEUE
            assert wire.raised() <= {TIMER}
            assert transport.isr() == 0


@pytest.mark.parametrize("machine", ["microvm,acpi=off", "microvm,ioapic2=off"])
def test_a_microvm_whose_lines_nobody_tells(virtio_factory: VirtioFactory, machine: str) -> None:
    """It works, without interrupts."""
    with virtio_factory(Rng(), machine=machine, transport="mmio", guest=Scripted(interrupts="intx")) as virtio:
        assert transport_of(virtio, "rng0").line is None
        assert driver_of(virtio, "rng0", RngDriver).read(8)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_message_arrives_where_it_was_sent_to(virtio_factory: VirtioFactory, legacy: bool) -> None:
    """32 bits, and nothing beside them is touched (PCI 3.0 section 6.8.2, virtio 1.3 section 4.1.5.1.2)."""
    transport = "pci-transitional" if legacy else "pci"
    with virtio_factory(Rng(), transport=transport, guest=Scripted(legacy=legacy)) as virtio:
        device, memory = transport_of(virtio, "rng0"), qemu_of(virtio).memory
        assert device.vectors == 2
        device.set_messages((Message(PLACE, 0x11111111), Message(PLACE + 0x40, 0x89ABCDEF)))
        memory.write(PLACE, bytes([0xEE]) * 0x80)
        driver_of(virtio, "rng0", RngDriver).read(8)
        await_change(virtio, lambda: memory.read(PLACE + 0x40, 1) != b"\xee")
        assert memory.read(PLACE, 0x80) == b"\xee" * 0x40 + b"\xef\xcd\xab\x89" + b"\xee" * 0x3C


def test_no_vectors(virtio_factory: VirtioFactory) -> None:
    """Without MSI-X there is the line."""
    with virtio_factory(Rng(vectors=0)) as virtio:
        device = transport_of(virtio, "rng0")
        assert device.vectors == 0
        with pytest.raises(NotSupportedError, match=r"1 MSI-X vectors: the function at .* has 0"):
            device.set_messages((Message(PLACE, 1),))
        driver_of(virtio, "rng0", RngDriver).read(8)
        await_change(virtio, lambda: device.line in wire_of(virtio).raised())


@pytest.mark.parametrize(("vectors", "expected"), [(5, [1, 2, 3, 4]), (2, [1, 1, 1, 1]), (1, [0, 0, 0, 0])])
def test_queues_and_their_vectors(virtio_factory: VirtioFactory, vectors: int, expected: list[int]) -> None:
    """A vector for each queue, or the last for all that have none of their own."""
    with virtio_factory(Blk(num_queues=4, vectors=vectors)) as virtio:
        driver = driver_of(virtio, "blk0", BlkDriver)
        assert [queue.vector for queue in driver.queues] == expected
        for queue in driver.queues:
            assert not queue.interrupted()
            request = driver.submit(BlkRequestType.IN, writable=[SECTOR], queue=queue.index)
            queue.wait(request)
            await_change(virtio, queue.interrupted)
            assert not any(other.interrupted() for other in driver.queues)


@pytest.mark.parametrize(
    ("transport", "interrupts"),
    [
        ("pci", "msix"),
        ("pci", "intx"),
        ("pci", "none"),
        ("pci-legacy", "msix"),
        ("pci-legacy", "intx"),
        ("mmio", "intx"),
    ],
)
def test_a_configuration_change_interrupts(
    virtio_factory: VirtioFactory, transport: str, interrupts: Literal["msix", "intx", "none"]
) -> None:
    """The disk grows, and so does its ``capacity`` (virtio 1.3 sections 2.5 and 4.1.5.1.4)."""
    with virtio_factory(Blk(size="1M"), transport=transport, guest=Scripted(interrupts=interrupts)) as virtio:
        driver = driver_of(virtio, "blk0", BlkDriver)
        assert not driver.config_interrupted()
        assert driver.config().capacity == (1 << 20) // SECTOR
        virtio.vm.qmp("block_resize", {"device": "blk0.drive", "size": 2 << 20})
        await_change(virtio, driver.config_interrupted)
        assert not driver.config_interrupted()
        assert driver.config().capacity == (2 << 20) // SECTOR


def driver_of(virtio: Virtio, id: str, kind: type[D]) -> D:
    return cast(ScriptedGuest, virtio.guest).driver(id, kind)


def await_change(virtio: Virtio, look: Callable[[], bool]) -> None:
    """Look again, a round trip through QEMU's main loop each time, until it has come."""
    deadline = Deadline.after(10)
    while not look():
        assert not deadline.passed()
        wire_of(virtio).read("memory", 0, 1)
