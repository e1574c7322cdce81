"""Virtio devices before anything drives them: what they offer, and where their registers are going to be.

Responsible for finding that out while the VM has not executed an instruction, and for leaving registers as they were (a
PCI function is then as firmware has it that has switched it off); must not know what it is needed for. Later it could
not be done: a selector or a BAR would be moved under a driver's hands. What can't be reached is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from pytest_virtio import qapi
from pytest_virtio.bus.bridges import opened
from pytest_virtio.bus.config_space import CONFIG_ADDRESS, PciAddress
from pytest_virtio.bus.find import find_mmio
from pytest_virtio.bus.pci import Function, PciHost
from pytest_virtio.bus.virtio_pci import ModernPci
from pytest_virtio.bus.virtio_pci_legacy import LegacyPci
from pytest_virtio.errors import DriverError, UsageError
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.spec.transport.pci import Capability, CapabilityType, device_id, parse_capabilities
from pytest_virtio.vm.monitor import Execute
from pytest_virtio.vm.qtest import Qtest

__all__ = ("Place", "Surveyed", "place_of", "survey_mmio", "survey_pci")

Place = tuple[str, int, int]
"""What tells a PCI function from others also when buses are renumbered: QEMU id, slot and function."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A device at rest."""

    device_id: int
    device_features: int
    """What it offers; less the bits that QEMU shows to legacy drivers only, unless ``legacy``."""
    num_queues: int
    legacy: bool
    """Whether it has a legacy interface: the header in the first BAR, or MMIO version 1."""
    common: Capability | None = None
    """Where its common configuration is; None on MMIO and where there is only the legacy interface."""
    base: int | None = None
    """Its address on MMIO."""


def place_of(function: PciFunction) -> Place | None:
    """What a function is known by; None if by nothing: it has no id, and is behind a bridge."""
    if function.qdev_id or (function.bus == 0 and function.behind is None):
        return function.qdev_id, function.slot, function.function
    return None


def survey_pci(execute: Execute, wire: Qtest, wanted: Collection[Place]) -> dict[Place, Surveyed]:
    """The virtio functions in these places, on the root bus and directly behind its bridges."""

    def look() -> tuple[PciFunction, ...]:
        return qapi.parse_pci(execute(qapi.QUERY_PCI))

    functions = look()
    surveyed = _on_bus(0, functions, PciHost(wire))
    for bridge in (found for found in functions if found.is_bridge and found.behind is None):
        if surveyed.keys() >= set(wanted):
            break
        host = PciHost(wire)
        with opened(bridge, host):
            surveyed |= _on_bus(1, look(), host)
    wire.write("io", CONFIG_ADDRESS, 4, 0)
    wire.flush()
    return surveyed


def _on_bus(bus: int, functions: Iterable[PciFunction], host: PciHost) -> dict[Place, Surveyed]:
    surveyed = {}
    for found in functions:
        place = place_of(found)
        if place is not None and found.bus == bus and device_id(found.vendor, found.device) is not None:
            device = _survey(host, found)
            if device is not None:
                surveyed[place] = device
    return surveyed


def _survey(host: PciHost, found: PciFunction) -> Surveyed | None:
    """The function, if configuration space is where every PC has it, and its registers can be given an address."""
    function = Function(host, PciAddress(found.bus, found.slot, found.function))
    config = function.config()
    if config[:4] != (found.device << 16 | found.vendor).to_bytes(4, "little"):
        return None
    try:
        interfaces = list(_interfaces(host, function, device_id(found.vendor, found.device) or 0, config))
        common = parse_capabilities(config)[0].get(CapabilityType.COMMON_CFG)
        return _at_rest(interfaces, common) if interfaces else None
    except (DriverError, UsageError):
        # There is no room, or the capabilities point nowhere.
        return None
    finally:
        function.unmap_bars()


def _interfaces(host: PciHost, function: Function, id: int, config: bytes) -> Iterator[ModernPci | LegacyPci]:
    bars = function.map_bars(config)
    capabilities, _ = parse_capabilities(config)
    if CapabilityType.COMMON_CFG in capabilities:
        yield ModernPci(host.wire, function, id, bars, capabilities, None, None)
    if 0 in bars and bars[0].space == "io":
        yield LegacyPci(host.wire, function, id, bars, None, None)


def _at_rest(interfaces: list[ModernPci | LegacyPci], common: Capability | None) -> Surveyed:
    features = 0
    for interface in interfaces:
        features |= interface.device_features()
    queues = len(interfaces[0].queue_sizes())
    interfaces[0].deselect()
    return Surveyed(interfaces[0].device_id, features, queues, interfaces[-1].legacy, common)


def survey_mmio(execute: Execute, wire: Qtest, path: str) -> Surveyed | None:
    """The device at a QOM path, if it is on a virtio-mmio bus."""
    try:
        device = find_mmio(execute, wire, {path: path})[path]
    except DriverError:
        return None
    features, queues = device.device_features(), len(device.queue_sizes())
    device.deselect()
    wire.flush()
    return Surveyed(device.device_id, features, queues, device.legacy, base=device.base)
