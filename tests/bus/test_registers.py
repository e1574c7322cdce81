"""Windows of registers: widths, bounds and byte orders, against a wire that only remembers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from pytest_virtio.bus.config_space import PciAddress
from pytest_virtio.bus.msix import Msix
from pytest_virtio.bus.pci import Bar, Function, PciHost
from pytest_virtio.bus.registers import Window
from pytest_virtio.bus.virtio_mmio import MmioDevice
from pytest_virtio.bus.virtio_pci import ModernPci
from pytest_virtio.bus.virtio_pci_legacy import LegacyPci
from pytest_virtio.errors import DriverError, UsageError
from pytest_virtio.spec.layout import ByteOrder
from pytest_virtio.spec.ring import Areas
from pytest_virtio.spec.transport.pci import Capability, MsixCapability
from pytest_virtio.spec.transport.register import Register
from pytest_virtio.vm.qtest import Qtest, Read, Space, Write

BASE = 0x1000


class Bytes:
    """Plays a wire to plain memory, as QEMU does for a guest of some byte order; it notes the accesses."""

    def __init__(self, order: ByteOrder = "little", contents: bytes = bytes(range(64))) -> None:
        self.order, self.data = order, bytearray(contents)
        self.accesses: list[tuple[int, int]] = []

    def write(self, space: Space, address: int, size: int, value: int) -> None:
        self.exchange([Write(space, address, size, value)])

    def exchange(self, operations: list[Read | Write]) -> list[int]:
        return list(self._done(operations))

    def _done(self, operations: list[Read | Write]) -> Iterator[int]:
        for operation in operations:
            self.accesses.append((operation.address - BASE, operation.size))
            place = slice(operation.address - BASE, operation.address - BASE + operation.size)
            if isinstance(operation, Write):
                self.data[place] = operation.value.to_bytes(operation.size, self.order)
            else:
                yield int.from_bytes(self.data[place], self.order)


def wire(memory: Bytes) -> Qtest:
    return cast(Qtest, memory)


@pytest.mark.parametrize(
    ("offset", "length", "accesses"),
    [
        (0, 8, [(0, 4), (4, 4)]),
        (1, 8, [(1, 1), (2, 2), (4, 4), (8, 1)]),
        (2, 3, [(2, 2), (4, 1)]),
        (3, 1, [(3, 1)]),
        (62, 4, [(62, 2)]),
        (64, 4, []),
        (100, 4, []),
        (5, 0, []),
    ],
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_a_stretch_is_read_by_aligned_accesses(
    order: ByteOrder, offset: int, length: int, accesses: list[tuple[int, int]]
) -> None:
    memory = Bytes(order)
    window = Window(wire(memory), "memory", BASE, 64, "window", native=order)
    assert window.read_bytes(offset, length) == bytes(range(64))[offset : offset + length]
    assert memory.accesses == accesses


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_stretch_is_written_likewise(order: ByteOrder) -> None:
    memory = Bytes(order)
    Window(wire(memory), "memory", BASE, 64, "window", native=order).write_bytes(3, b"abcdefg")
    assert bytes(memory.data[:12]) == b"\x00\x01\x02abcdefg\x0a\x0b"
    assert memory.accesses == [(3, 1), (4, 4), (8, 2)]


def test_nothing_is_written_beyond_the_end() -> None:
    memory = Bytes()
    with pytest.raises(UsageError, match="2 bytes can't be written at 0xf: the window is 0x10 bytes long"):
        Window(wire(memory), "memory", BASE, 16, "window").write_bytes(15, b"ab")
    assert memory.accesses == []


@pytest.mark.parametrize("native", ["little", "big"])
@pytest.mark.parametrize("order", ["little", "big"])
def test_registers_have_an_order_of_their_own(native: ByteOrder, order: ByteOrder) -> None:
    memory, register = Bytes(native), Register("", 4, 4)
    window = Window(wire(memory), "memory", BASE, 64, "window", native, order)
    assert window.get(register) == int.from_bytes(b"\x04\x05\x06\x07", order)
    window.put(register, 0x11223344)
    assert bytes(memory.data[4:8]) == (0x11223344).to_bytes(4, order)


def mmio(magic: int, version: int, device: int, order: ByteOrder) -> Bytes:
    registers = b"".join(value.to_bytes(4, order) for value in (magic, version, device))
    return Bytes("big", registers.ljust(0x200, b"\0"))


def test_a_legacy_mmio_device_of_a_big_endian_guest() -> None:
    """Its registers are in the guest's order (virtio 1.3 section 4.2.4)."""
    memory = mmio(0x74726976, 1, 2, "big")
    device = MmioDevice(wire(memory), BASE, None, native="big")
    assert (device.legacy, device.order, device.device_id) == (True, "big", 2)
    device.set_status(0)
    device.setup_queue(1, 128, Areas(0x5000, 0x5800, 0x6000))
    written = {offset: int.from_bytes(memory.data[offset : offset + 4], "big") for offset in (0x28, 0x30, 0x38, 0x40)}
    assert written == {0x28: 4096, 0x30: 1, 0x38: 128, 0x40: 5}
    device.write_config(0, (7).to_bytes(8, "big"))
    assert device.read_config(0, 8) == bytes(7) + b"\x07" == bytes(memory.data[0x100:0x108])


def test_a_modern_mmio_device_of_a_big_endian_guest() -> None:
    """Its registers are little-endian (section 4.2.2)."""
    device = MmioDevice(wire(mmio(0x74726976, 2, 4, "little")), BASE, None, native="big")
    assert (device.legacy, device.order, device.device_id) == (False, "little", 4)


@pytest.mark.parametrize(("magic", "device"), [(0, 1), (0x74726976, 0), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_no_mmio_device(magic: int, device: int) -> None:
    """A DeviceID of 0 is a place without a device (section 4.2.2)."""
    with pytest.raises(DriverError, match="there is no virtio-mmio device at 0x1000"):
        MmioDevice(wire(mmio(magic, 2, device, "little")), BASE, None)


BARS = {0: Bar("io", 0xC000, 0x40), 4: Bar("memory", BASE, 0x4000)}


def function() -> Function:
    return Function(PciHost(wire(Bytes())), PciAddress(0, 1, 0))


def capability(type: int, bar: int = 4, offset: int = 0, length: int = 0x1000) -> Capability:
    return Capability(9, 0, 20, type, bar, 0, 0, offset, length, 4)


@pytest.mark.parametrize(
    "common",
    [
        capability(1, bar=1),
        capability(1, bar=0, length=0x40),
        capability(1, offset=0x3001),
        capability(1, length=1 << 31),
    ],
)
def test_a_capability_that_points_nowhere(common: Capability) -> None:
    capabilities = {1: common, 2: capability(2), 3: capability(3)}
    with pytest.raises(DriverError, match="the capability of the common configuration points nowhere"):
        ModernPci(wire(Bytes()), function(), 4, BARS, capabilities, None, None)


@pytest.mark.parametrize(("missing", "name"), [(1, "COMMON_CFG"), (2, "NOTIFY_CFG"), (3, "ISR_CFG")])
def test_a_capability_that_is_missing(missing: int, name: str) -> None:
    capabilities = {type: capability(type) for type in (1, 2, 3) if type != missing}
    with pytest.raises(DriverError, match=f"no {name} capability"):
        ModernPci(wire(Bytes()), function(), 4, BARS, capabilities, None, None)


def test_a_device_without_configuration() -> None:
    """It may leave the capability out (section 4.1.4.6): nothing is read, and nothing else is written instead."""
    memory = Bytes()
    device = ModernPci(wire(memory), function(), 4, BARS, {n: capability(n) for n in (1, 2, 3)}, None, None)
    assert device.read_config(0, 8) == b""
    with pytest.raises(UsageError):
        device.write_config(0, b"x")
    assert memory.accesses == []


def test_a_device_without_a_legacy_header() -> None:
    with pytest.raises(DriverError, match="no legacy header"):
        LegacyPci(wire(Bytes()), function(), 4, {0: Bar("memory", BASE, 64)}, None, None)


@pytest.mark.parametrize("table", [0x3, 0x0, 0x4000 | 4, 0x3FF8 | 4])
def test_an_msix_table_that_is_nowhere(table: int) -> None:
    """In no BAR, in I/O space, beyond the BAR, across its end."""
    with pytest.raises(DriverError, match=r"the MSI-X table of the function at 00:01\.0 is nowhere"):
        Msix(wire(Bytes()), function(), (0x98, MsixCapability(0x11, 0, 1, table, 0)), BARS)
