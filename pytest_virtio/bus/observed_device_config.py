"""The device-specific configuration of a virtio device that somebody else drives, read without disturbing him.

Responsible for where it is on each transport, and for reading it whole while it does not change. Reading it has no
effect, nor has reading its generation (virtio 1.3 section 2.5); nothing is written. Must not know what is in it.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_virtio.bus.registers import Window
from pytest_virtio.bus.virtio_mmio import MmioDevice
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.spec.transport.pci import (
    Capability,
    CapabilityType,
    Common,
    Legacy,
    MsixControl,
    parse_capabilities,
)
from pytest_virtio.vm.qtest import Qtest

__all__ = ("device_config_of_mmio", "device_config_of_pci")

_TRIES = 4


def device_config_of_pci(wire: Qtest, function: PciFunction, config: bytes, length: int) -> bytes | None:
    """The first ``length`` bytes, or as many as the window has; None while nobody could reach it, and where it does not
    stop changing. What a device does not have is in the window all the same, as ones.

    A transitional device shows the same by both interfaces; its modern one has the generation, and a place that does
    not depend on MSI-X.

    :param config: its PCI configuration space as it is now, as far as :func:`.observed_config.configurations` reads it.
    """
    capabilities, msix = parse_capabilities(config)
    common, specific = (_window(wire, function, capabilities.get(type)) for type in _MODERN)
    if common is not None and specific is not None:
        return _unchanged(lambda: common.get(Common.CONFIG_GENERATION), lambda: specific.read_bytes(0, length))
    bar = function.bar(0)
    if bar is None or bar.space != "io" or bar.address is None or capabilities:
        return None
    enabled = msix is not None and msix[1].control & MsixControl.ENABLE
    offset = Legacy.CONFIG_OFFSET_WITH_MSIX if enabled else Legacy.CONFIG_OFFSET
    header = Window(wire, "io", bar.address, bar.size, "legacy header")
    return header.read_bytes(offset, length)


def device_config_of_mmio(device: MmioDevice, length: int) -> bytes | None:
    """Likewise."""
    return _unchanged(device.config_generation, lambda: device.read_config(0, length))


_MODERN = (CapabilityType.COMMON_CFG, CapabilityType.DEVICE_CFG)


def _window(wire: Qtest, function: PciFunction, capability: Capability | None) -> Window | None:
    address = function.address_of(capability.bar) if capability else None
    if capability is None or address is None:
        return None
    place, length = address + capability.offset_in_bar, capability.length
    return Window(wire, "memory", place, length, "a modern interface")


def _unchanged(generation: Callable[[], int], read: Callable[[], bytes]) -> bytes | None:
    """What was read between two equal generations (2.5.1)."""
    before = generation()
    for _ in range(_TRIES):
        found, after = read(), generation()
        if before == after:
            return found
        before = after
    return None
