"""Virtio devices before anything drives them: what they offer, and where their registers are going to be.

Responsible for finding that out while the VM has not executed an instruction, and for leaving every register as it was;
must not know what it is needed for. Later it could not be done: a selector or a BAR would be moved under a driver's
hands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pytest_virtio import qapi
from pytest_virtio.bus.bridges import close_bridges, number_bridges
from pytest_virtio.bus.config_space import CONFIG_ADDRESS, PciAddress
from pytest_virtio.bus.find import find_mmio
from pytest_virtio.bus.pci import Function, PciHost
from pytest_virtio.bus.virtio_pci import ModernPci
from pytest_virtio.bus.virtio_pci_legacy import LegacyPci
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


def place_of(function: PciFunction) -> Place:
    """What a function is known by."""
    return function.qdev_id, function.slot, function.function


def survey_pci(execute: Execute, wire: Qtest) -> dict[Place, Surveyed]:
    """The virtio functions on the root bus and behind its bridges."""
    host = PciHost(wire)

    def look() -> tuple[PciFunction, ...]:
        return qapi.parse_pci(execute(qapi.QUERY_PCI))

    functions = number_bridges(look(), look, host)
    virtio = [found for found in functions if device_id(found.vendor, found.device) is not None]
    surveyed = {place_of(found): device for found in virtio for device in _survey(host, found)}
    close_bridges(functions, host)
    wire.write("io", CONFIG_ADDRESS, 4, 0)
    wire.flush()
    return surveyed


def _survey(host: PciHost, found: PciFunction) -> Iterator[Surveyed]:
    """The function, if it has virtio's registers, and configuration space is where every PC has it."""
    function = Function(host, PciAddress(found.bus, found.slot, found.function))
    config = function.config()
    if config[:4] != (found.device << 16 | found.vendor).to_bytes(4, "little"):
        return
    bars = function.map_bars(config)
    capabilities, _ = parse_capabilities(config)
    id = device_id(found.vendor, found.device) or 0
    interfaces: list[ModernPci | LegacyPci] = []
    if CapabilityType.COMMON_CFG in capabilities:
        interfaces.append(ModernPci(host.wire, function, id, bars, capabilities, None, None))
    if 0 in bars and bars[0].space == "io":
        interfaces.append(LegacyPci(host.wire, function, id, bars, None, None))
    if interfaces:
        yield _at_rest(interfaces, capabilities.get(CapabilityType.COMMON_CFG))
    function.unmap_bars()


def _at_rest(interfaces: list[ModernPci | LegacyPci], common: Capability | None) -> Surveyed:
    features = 0
    for interface in interfaces:
        features |= interface.device_features()
    queues = len(interfaces[0].queue_sizes())
    interfaces[0].deselect()
    return Surveyed(interfaces[0].device_id, features, queues, interfaces[-1].legacy, common)


def survey_mmio(execute: Execute, wire: Qtest, ids: Iterable[str]) -> dict[str, Surveyed]:
    """The virtio-mmio devices with these QEMU ids."""
    found = find_mmio(execute, wire, ids)
    surveyed = {}
    for id, device in found.items():
        features, queues = device.device_features(), len(device.queue_sizes())
        device.deselect()
        surveyed[id] = Surveyed(device.device_id, features, queues, device.legacy, base=device.base)
    wire.flush()
    return surveyed
