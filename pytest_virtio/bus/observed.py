"""Registers of a virtio device that somebody else drives, read without disturbing him.

Responsible for what may be read when, and for leaving selectors as they were found; must not know what QEMU's
introspection would say. A selector is moved only after FEATURES_OK, when drivers are done with it (virtio 1.3 section
3.1.1), and in one breath with its return. Registers whose reading has an effect (ISR status) are never read.
"""

from __future__ import annotations

from typing import NamedTuple

from pytest_virtio.bus.registers import Window
from pytest_virtio.bus.survey import Surveyed
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.spec.status import DeviceStatus
from pytest_virtio.spec.transport.mmio import Mmio
from pytest_virtio.spec.transport.pci import Common, Legacy
from pytest_virtio.vm.qtest import Qtest, Read, Write

__all__ = ("Sight", "observe_mmio", "observe_pci")

_FEATURE_WORDS = 4
_ATTEMPTS = 3


class Sight(NamedTuple):
    """A device at one moment."""

    status: int
    driver_features: int | None
    """What the driver wrote, offered or not; None where registers do not tell."""
    queue_select: int | None


AT_REST = Sight(0, 0, 0)


def observe_pci(wire: Qtest, device: Surveyed, function: PciFunction) -> Sight:
    """Look at a PCI device.

    One whose BARs are not decoded is at rest: no driver can reach it, and what takes its addresses away, a reset of the
    machine or of its bus, resets the device too.

    :param function: where its BARs are now.
    """
    header, common = _header(wire, device, function), _common(wire, device, function)
    low = header.get(Legacy.DRIVER_FEATURES) if header else None
    if common is None:
        return _by_header(header, low or 0) if header else AT_REST
    registers = (Common.DEVICE_STATUS, Common.DRIVER_FEATURE_SELECT, Common.QUEUE_SELECT)
    status, selected, queue = common.exchange([common.reading(register) for register in registers])
    return Sight(status, _driver_features(common, status, selected, low), queue)


def observe_mmio(wire: Qtest, base: int, *, legacy: bool) -> Sight:
    """Look at an MMIO device, whose driver features and selectors can be written only (4.2.2).

    Of a version 2 device QEMU takes the features in when FEATURES_OK is set, not before.
    """
    registers = Window(wire, "memory", base, Mmio.CONFIG_OFFSET, "MMIO registers")
    status = registers.get(Mmio.STATUS)
    written = status if legacy else status & DeviceStatus.FEATURES_OK
    return Sight(status, None if written else 0, None)


def _common(wire: Qtest, device: Surveyed, function: PciFunction) -> Window | None:
    address = function.address_of(device.common.bar) if device.common else None
    if device.common is None or address is None:
        return None
    base, length = address + device.common.offset_in_bar, device.common.length
    return Window(wire, "memory", base, length, "common configuration")


def _header(wire: Qtest, device: Surveyed, function: PciFunction) -> Window | None:
    address = function.address_of(0) if device.legacy else None
    return None if address is None else Window(wire, "io", address, Legacy.CONFIG_OFFSET, "legacy header")


def _by_header(header: Window, low: int) -> Sight:
    status, queue = header.exchange([header.reading(r) for r in (Legacy.DEVICE_STATUS, Legacy.QUEUE_SELECT)])
    return Sight(status, low, queue)


def _driver_features(common: Window, status: int, selected: int, low: int | None) -> int | None:
    """What the driver wrote.

    The common configuration shows what was written there last, be it before a reset, and nothing of what was written by
    the legacy interface, so before FEATURES_OK it tells nothing.

    :param low: the lower 32 bits by the legacy header, which shows them as they are.
    """
    if not status:
        return 0
    if status & DeviceStatus.FEATURES_OK:
        words = _words(common, selected)
        return words if words is None or low is None else words >> 32 << 32 | low
    # A legacy driver knows no FEATURES_OK; until a modern one sets it, its upper half is not known.
    return low if low == 0 or status & DeviceStatus.DRIVER_OK else None


def _words(common: Window, selected: int) -> int | None:
    """All words of the driver's features, and the selector as it was; None when a driver is writing them just now."""
    for _ in range(_ATTEMPTS):
        status, found, *words = common.wire.at_once(_reading_words(common, selected))
        if found == selected and status & DeviceStatus.FEATURES_OK:
            return sum(word << 32 * number for number, word in enumerate(words))
        # A driver has begun anew since the selector was read.
        common.put(Common.DRIVER_FEATURE_SELECT, found)
        common.wire.flush()
        selected = found
    return None


def _reading_words(common: Window, selected: int) -> list[Read | Write]:
    operations: list[Read | Write] = [
        common.reading(Common.DEVICE_STATUS),
        common.reading(Common.DRIVER_FEATURE_SELECT),
    ]
    for word in range(_FEATURE_WORDS):
        operations.append(common.writing(Common.DRIVER_FEATURE_SELECT, word))
        operations.append(common.reading(Common.DRIVER_FEATURE))
    return [*operations, common.writing(Common.DRIVER_FEATURE_SELECT, selected)]
