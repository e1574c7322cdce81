"""Where a machine has its virtio devices: every declared device as a transport, by its QEMU id.

Responsible for the boards' own facts (chipsets, interrupt routing, places of MMIO devices) and for choosing the
interface of a PCI device; must not know what a driver does with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from pytest_virtio import qapi
from pytest_virtio.bus.bridges import number_bridges
from pytest_virtio.bus.config_space import PciAddress
from pytest_virtio.bus.pci import Function, PciHost
from pytest_virtio.bus.transport import Transport
from pytest_virtio.bus.virtio_mmio import MmioDevice
from pytest_virtio.bus.virtio_pci import ModernPci
from pytest_virtio.bus.virtio_pci_legacy import LegacyPci
from pytest_virtio.errors import DriverError
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.spec.transport.pci import CapabilityType, device_id, parse_capabilities
from pytest_virtio.spec.transport.register import Register
from pytest_virtio.vm.monitor import Execute
from pytest_virtio.vm.qtest import Qtest

__all__ = ("find_mmio", "find_pci")

MICROVM_BASE, MICROVM_STRIDE = 0xFEB00000, 0x200
_MMIO_BUS = re.compile(r"virtio-mmio-bus\.(\d+)$")

Q35_BRIDGE, I440FX_BRIDGE = 0x29C0, 0x1237
Q35_CONFIG_SPACE = 0xB0000000
"""Below it is RAM at the most, from it on there is none on a q35."""
_PCIEXBAR = Register("PCIEXBAR", 0x60, 4), Register("PCIEXBAR (high)", 0x64, 4)
# PIIX3's PIRQRCA to PIRQRCD: which ISA interrupts the PCI ones become; firmware's job, and disabled until then.
_PIIX_ROUTES = tuple(Register(f"PIRQRC{letter}", 0x60 + n, 1) for n, letter in enumerate("ABCD"))
_PIIX_LINES = (10, 10, 11, 11)


def find_pci(execute: Execute, wire: Qtest, *, legacy: bool) -> dict[str, Transport]:
    """Give the virtio devices that have an id their addresses, as firmware would; them by their ids.

    :param legacy: whether to drive transitional devices by their legacy interface.
    :raises DriverError: for a device that has neither interface.
    """
    host = PciHost(wire)

    def look() -> tuple[PciFunction, ...]:
        return qapi.parse_pci(execute(qapi.QUERY_PCI))

    functions = look()
    chipset = functions[0].device if functions else 0
    _prepare(host, chipset)
    functions = number_bridges(functions, look, host)
    devices: dict[str, Transport] = {
        found.qdev_id: _pci_device(host, found, _line(chipset, found), legacy=legacy)
        for found in functions
        if found.qdev_id and device_id(found.vendor, found.device) is not None
    }
    # QEMU's own views of them (`info pci`) are asked past this wire.
    wire.flush()
    return devices


def _prepare(host: PciHost, chipset: int) -> None:
    """What firmware does to the chipset itself."""
    if chipset == Q35_BRIDGE:
        host.open_memory_access(PciAddress(0, 0, 0), _PCIEXBAR, Q35_CONFIG_SPACE)
    if chipset == I440FX_BRIDGE:
        piix = Function(host, PciAddress(0, 1, 0))
        for register, line in zip(_PIIX_ROUTES, _PIIX_LINES, strict=True):
            piix.put(register, line)


def _pci_device(host: PciHost, found: PciFunction, line: int | None, *, legacy: bool) -> Transport:
    function = Function(host, PciAddress(found.bus, found.slot, found.function))
    id = device_id(found.vendor, found.device) or 0
    config = function.config()
    bars = function.map_bars(config)
    capabilities, msix = parse_capabilities(config)
    modern = CapabilityType.COMMON_CFG in capabilities
    if modern and not (legacy and 0 in bars and bars[0].space == "io"):
        return ModernPci(host.wire, function, id, bars, capabilities, msix, line)
    return LegacyPci(host.wire, function, id, bars, msix, line)


def _line(chipset: int, found: PciFunction) -> int | None:
    """Which input of the I/O APIC a function's interrupt pin is wired to; None if nobody has said.

    A bridge turns the pins of what is behind it by the slot and passes them on as its own (PCI-to-PCI Bridge
    Architecture 1.2, section 9.1).
    """
    if not found.pin:
        return None
    pin, slot = found.pin - 1, found.slot
    if found.behind is not None:
        pin, slot = (pin + slot) % 4, found.behind
    if chipset == Q35_BRIDGE:
        return _q35_line(slot, pin)
    if chipset == I440FX_BRIDGE:
        return _PIIX_LINES[(slot - 1 + pin) % 4]
    return None


def _q35_line(slot: int, pin: int) -> int:
    """By the reset values of the chipset's routing registers: slots 0 to 24 go to PIRQE … PIRQH (inputs 20 to 23) in
    turn, 30 to these without a turn, the others to PIRQA … PIRQD (16 to 19). Seen on QEMU 7.2, 10.0 and 11.1."""
    if slot <= 24:
        return 20 + (slot + pin) % 4
    return (20 if slot == 30 else 16) + pin


def find_mmio(execute: Execute, wire: Qtest, paths: Mapping[str, str]) -> dict[str, MmioDevice]:
    """The virtio-mmio devices of a microvm by id.

    :param paths: their QOM paths by id.
    :raises DriverError: for a device that is on no virtio-mmio bus.
    """
    controller = _second_ioapic(execute)
    return {id: _mmio_device(execute, wire, id, path, controller) for id, path in paths.items()}


def _mmio_device(execute: Execute, wire: Qtest, id: str, path: str, controller: str | None) -> MmioDevice:
    bus = cast(str, execute("qom-get", {"path": path, "property": "parent_bus"}))
    found = _MMIO_BUS.search(bus)
    if found is None:
        raise DriverError(f"{id} is on no virtio-mmio bus", step="finding the registers", seen=bus)
    number = int(found[1])
    base = MICROVM_BASE + number * MICROVM_STRIDE
    return MmioDevice(wire, base, None) if controller is None else MmioDevice(wire, base, number, controller)


def _second_ioapic(execute: Execute) -> str | None:
    """The I/O APIC that a microvm's virtio devices are wired to, input for input; it has no name of its own.

    None where there is only one (acpi=off, ioapic2=off): where they are wired to then, nothing tells.
    """
    listed = cast(list[dict[str, str]], execute("qom-list", {"path": "/machine/unattached"}))
    names = [item["name"] for item in listed if item["type"] == "child<ioapic>"]
    return f"/machine/unattached/{names[0]}" if names else None
