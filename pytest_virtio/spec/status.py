"""The device status field: its bits, their names, and the order in which a driver sets them.

Responsible for virtio 1.3 sections 2.1 and 3.1.1 alone; it must not know how QEMU words a status, nor judge one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from enum import IntFlag

__all__ = ("INITIALISATION_ORDER", "DeviceStatus", "status_names", "status_value", "unknown_status_bits")


class DeviceStatus(IntFlag):
    """The bits of the device status field, 8 bits wide (virtio 1.3 section 2.1, Linux virtio_config.h)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    # The specification says DEVICE_NEEDS_RESET; Linux (VIRTIO_CONFIG_S_NEEDS_RESET) and QEMU leave DEVICE out.
    NEEDS_RESET = 64
    FAILED = 128


INITIALISATION_ORDER = (
    DeviceStatus.ACKNOWLEDGE,
    DeviceStatus.DRIVER,
    DeviceStatus.FEATURES_OK,
    DeviceStatus.DRIVER_OK,
)
"""The order in which a driver sets the bits (3.1.1); a legacy driver leaves FEATURES_OK out (3.1.2)."""

_HEXADECIMAL = re.compile(r"0x[0-9a-f]+")
_KNOWN = sum(flag.value for flag in DeviceStatus)


def status_names(value: int) -> frozenset[str]:
    """Name the bits of a status: ``0x33`` gives ``{"ACKNOWLEDGE", "DRIVER", "0x30"}``.

    :param value: the status, 0 or more; the field has 8 bits, more are kept. Bits without a name stand together as one
        hexadecimal number.
    """
    names = {flag.name for flag in DeviceStatus if flag.value & value and flag.name is not None}
    unknown = value & ~_KNOWN
    return frozenset(names | {hex(unknown)} if unknown else names)


def status_value(names: AbstractSet[str]) -> int:
    """The status whose bits :func:`status_names` names so."""
    return sum(flag.value for flag in DeviceStatus if flag.name in names) | unknown_status_bits(names)


def unknown_status_bits(names: Iterable[str]) -> int:
    """Return the bits that stand among the names as hexadecimal numbers, as :func:`status_names` writes them."""
    bits = 0
    for name in names:
        if _HEXADECIMAL.fullmatch(name):
            bits |= int(name, 16)
    return bits
