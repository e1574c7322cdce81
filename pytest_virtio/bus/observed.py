"""Registers of a virtio device that somebody else drives, read without disturbing him.

Responsible for what may be read when, and for leaving selectors as they were found; must not know what QEMU's
introspection would say. A selector is moved only after FEATURES_OK, when drivers are done with it (virtio 1.3 section
3.1.1), only when that is asked for, and in one breath with its return. Registers whose reading has an effect (ISR
status) are never read.
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

__all__ = ("Sight", "observe_features", "observe_mmio", "observe_pci")

_FEATURE_WORDS = 4


class Sight(NamedTuple):
    """A device at one moment."""

    status: int
    driver_features: int | None
    """What the driver wrote, offered or not; None where registers do not tell."""
    queue_select: int | None
    num_queues: int | None = None
    """QEMU's network card has as many as were negotiated (seen on 11.1). None where registers do not tell."""


AT_REST = Sight(0, 0, 0)


def observe_pci(wire: Qtest, device: Surveyed, function: PciFunction) -> Sight:
    """Look at a PCI device, as far as that goes without moving a selector.

    One whose BARs are not decoded is at rest: no driver can reach it, and what takes its addresses away, a reset of the
    machine or of its bus, resets the device too.

    :param function: where its BARs are now.
    """
    header, common = _header(wire, device, function), _common(wire, device, function)
    if common is None:
        return _by_header(header) if header else AT_REST
    return _by_common(common, header)


def observe_features(wire: Qtest, device: Surveyed, function: PciFunction) -> Sight:
    """Look again at a PCI device that was seen at FEATURES_OK, for what its driver acknowledged. The selector that this
    moves and puts back is found out first: to be done only while drivers leave it alone.

    :returns: a look without the features where one was found at work after all.
    """
    header, common = _header(wire, device, function), _common(wire, device, function)
    sight = observe_pci(wire, device, function)
    if common is None or not sight.status & DeviceStatus.FEATURES_OK:
        return sight
    return _with_words(common, header, sight)


def observe_mmio(wire: Qtest, base: int, *, legacy: bool) -> Sight:
    """Look at an MMIO device, whose driver features and selectors can be written only (4.2.2).

    Of a version 2 device QEMU takes the features in when FEATURES_OK is set, not before.
    """
    registers = Window(wire, "memory", base, Mmio.CONFIG_OFFSET, "MMIO registers")
    status = registers.get(Mmio.STATUS)
    written = status & ~DeviceStatus.ACKNOWLEDGE if legacy else status & DeviceStatus.FEATURES_OK
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


def _by_header(header: Window) -> Sight:
    registers = (Legacy.DEVICE_STATUS, Legacy.DRIVER_FEATURES, Legacy.QUEUE_SELECT)
    return Sight(*header.wire.at_once([header.reading(register) for register in registers]))


def _by_common(common: Window, header: Window | None) -> Sight:
    """What can be told without moving a selector.

    The common configuration shows the features that were written there last, be it before a reset, and nothing of what
    was written by the legacy interface: before FEATURES_OK it tells nothing. The legacy header shows the lower half as
    it is. A legacy driver knows no FEATURES_OK; until a modern one sets it, its upper half is not known.
    """
    told = (Common.DEVICE_STATUS, Common.QUEUE_SELECT, Common.NUM_QUEUES)
    registers = [common.reading(register) for register in told]
    low = [header.reading(Legacy.DRIVER_FEATURES)] if header else []
    status, queue, count, *shown = common.wire.at_once([*registers, *low])
    if not status & ~DeviceStatus.ACKNOWLEDGE:
        # Features are written from DRIVER on (virtio 1.3 section 3.1.1).
        return Sight(status, 0, queue, count)
    final = shown and (shown[0] == 0 or status & DeviceStatus.DRIVER_OK) and not status & DeviceStatus.FEATURES_OK
    return Sight(status, shown[0] if final else None, queue, count)


def _with_words(common: Window, header: Window | None, sight: Sight) -> Sight:
    """All words of the driver's features and the status of the same moment, and the selector as it was; without the
    features when a driver was found at writing them."""
    selected = common.get(Common.DRIVER_FEATURE_SELECT)
    low = [header.reading(Legacy.DRIVER_FEATURES)] if header else []
    status, found, *words = common.wire.at_once([*_reading_words(common, selected), *low])
    if found != selected:
        common.put(Common.DRIVER_FEATURE_SELECT, found)
        common.wire.flush()
    if found != selected or not status & DeviceStatus.FEATURES_OK:
        return sight._replace(driver_features=None)
    if header:
        words[0] = words.pop()
    bits = sum(word << 32 * number for number, word in enumerate(words))
    return sight._replace(status=status, driver_features=bits)


def _reading_words(common: Window, selected: int) -> list[Read | Write]:
    operations: list[Read | Write] = [
        common.reading(Common.DEVICE_STATUS),
        common.reading(Common.DRIVER_FEATURE_SELECT),
    ]
    for word in range(_FEATURE_WORDS):
        operations.append(common.writing(Common.DRIVER_FEATURE_SELECT, word))
        operations.append(common.reading(Common.DRIVER_FEATURE))
    return [*operations, common.writing(Common.DRIVER_FEATURE_SELECT, selected)]
