"""The device-specific configuration of a virtio device that somebody else drives, read without disturbing him.

Responsible for where it is on each transport, and for reading it whole while it does not change. Reading it has no
effect, nor has reading its generation (virtio 1.3 section 2.5); nothing is written. Must not know what is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

__all__ = ("Span", "device_config_of_mmio", "device_config_of_pci")

_TRIES = 4

Span = tuple[int, int]
"""A field: its offset and width in bytes."""


def device_config_of_pci(wire: Qtest, function: PciFunction, config: bytes, spans: Sequence[Span]) -> bytes | None:
    """The configuration from its beginning, with these fields in it and zeros between them, up to where the window
    ends; None while nobody could reach it, and where it does not stop changing.

    Each field is read by itself, as drivers have to (4.1.3.1): a read that goes beyond what the device has is all ones
    in QEMU, also where it begins within.

    A transitional device shows the same by both interfaces; its modern one has the generation, and a place that does
    not depend on MSI-X.

    :param config: its PCI configuration space as it is now, as far as :func:`.observed_config.configurations` reads it.
    """
    capabilities, msix = parse_capabilities(config)
    common, specific = (_window(wire, function, capabilities.get(type)) for type in _MODERN)
    if common is not None and specific is not None:
        return _unchanged(lambda: common.get(Common.CONFIG_GENERATION), lambda: _read(specific.read_bytes, spans))
    bar = function.bar(0)
    if bar is None or bar.space != "io" or bar.address is None or capabilities:
        return None
    enabled = msix is not None and msix[1].control & MsixControl.ENABLE
    offset = Legacy.CONFIG_OFFSET_WITH_MSIX if enabled else Legacy.CONFIG_OFFSET
    header = Window(wire, "io", bar.address, bar.size, "legacy header")
    return _read(lambda place, length: header.read_bytes(offset + place, length), spans)


def device_config_of_mmio(device: MmioDevice, spans: Sequence[Span]) -> bytes | None:
    """Likewise."""
    return _unchanged(device.config_generation, lambda: _read(device.read_config, spans))


_MODERN = (CapabilityType.COMMON_CFG, CapabilityType.DEVICE_CFG)


def _window(wire: Qtest, function: PciFunction, capability: Capability | None) -> Window | None:
    address = function.address_of(capability.bar) if capability else None
    if capability is None or address is None:
        return None
    place, length = address + capability.offset_in_bar, capability.length
    return Window(wire, "memory", place, length, "a modern interface")


def _read(read: Callable[[int, int], bytes], spans: Sequence[Span]) -> bytes:
    data = b""
    for offset, width in spans:
        data = data.ljust(offset, b"\0") + read(offset, width)
    return data


def _unchanged(generation: Callable[[], int], read: Callable[[], bytes]) -> bytes | None:
    """What was read between two equal generations (2.5.1)."""
    before = generation()
    for _ in range(_TRIES):
        found, after = read(), generation()
        if before == after:
            return found
        before = after
    return None
