"""What a variant of a matrix makes of a test's devices and guest.

Responsible for which devices a property is set on, and for saying why it is none; must not know pytest. A device that
declares the property itself keeps its own value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_virtio.declare.devices import Declaration, assign_ids
from pytest_virtio.declare.guests import Guest, Linux, guest_named
from pytest_virtio.declare.spec import TRANSPORTS
from pytest_virtio.errors import MissingError, NotSupportedError, UnknownNameError, UsageError, nearest
from pytest_virtio.plugin.axes import KEYWORDS, Point, Variant
from pytest_virtio.plugin.session import VirtioSession
from pytest_virtio.vm.capabilities import Capabilities
from pytest_virtio.vm.resolve import properties_of

__all__ = ("check_axis", "has_kernel", "is_property", "varied")


def varied(
    variant: Variant, devices: Sequence[Any], options: Mapping[str, Any], session: VirtioSession, qemu: str | Path
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Devices and options of one variant of a test.

    :param options: of the marker, with guest and machine as the fixtures of these names have them.
    :raises NotSupportedError: when the combination can't be.
    :raises MissingError: when this QEMU lacks what is varied.
    """
    own = {point.axis: point.value for point in variant if point.axis in KEYWORDS}
    kernel = own.pop("kernel", None)
    chosen = {**own, **options}
    if kernel is not None:
        chosen["guest"] = _with_kernel(chosen["guest"] or session.default_guest, kernel)
    properties = [point for point in variant if point.axis not in KEYWORDS]
    if not properties or not _are_declared(devices):
        return tuple(devices), chosen
    known = session.capabilities(str(qemu))
    return _with_properties(devices, properties, known, chosen.get("transport", "pci")), chosen


def _with_properties(
    devices: Sequence[Declaration], points: Iterable[Point], known: Capabilities, transport: str
) -> tuple[Declaration, ...]:
    """The devices with these properties set on those that have them.

    :raises NotSupportedError: when none has one by this transport, or none has one that the run's option varies.
    :raises MissingError: when no device of this QEMU has one that the author varies.
    """
    devices = assign_ids(tuple(devices))
    for point in points:
        devices = _with_property(devices, point, known, transport)
    return devices


def _with_kernel(guest: str | Guest, kernel: object) -> Guest:
    """The guest, booted by another kernel.

    :raises NotSupportedError: when it boots none.
    """
    chosen = guest_named(guest)
    if not isinstance(chosen, Linux):
        raise NotSupportedError(f"matrix: kernel: guest={guest!r} boots no kernel")
    return replace(chosen, kernel=str(kernel))


def has_kernel(guest: str | Guest, *, own: bool) -> bool:
    """Whether the guest is a Linux.

    :param own: also one that has a kernel of its own already.
    :raises UsageError: for what is no guest.
    """
    chosen = guest_named(guest)
    return isinstance(chosen, Linux) and (own or chosen.kernel is None)


def check_axis(axis: str, devices: Sequence[Declaration], known: Capabilities, transports: Iterable[str]) -> None:
    """See that some device takes the property by one of the transports.

    :raises UsageError: naming near misses, or the device that declares it itself.
    """
    if not _are_declared(devices):
        return
    devices = assign_ids(tuple(devices))
    tried = tuple(transports)
    if any(_takes(device, axis, known, tried) for device in devices):
        return
    id, _, name = axis.rpartition(".")
    ids = [device.name for device in devices]
    if id and id not in ids:
        raise UnknownNameError("device of the matrix", id, ids)
    settled = [device.name for device in devices if id in ("", device.id) and _declares(device, name)]
    if settled:
        raise UsageError(f"matrix: {settled[0]} declares {name} itself: leave it to one of them")
    raise UnknownNameError(*_unknown(axis, devices, known, tried))


def is_property(axis: str, known: Capabilities) -> bool:
    """Whether any virtio device of this QEMU has such a property."""
    _, _, name = axis.rpartition(".")
    return any(_folded(own) == name for names in known.devices.values() for own in names)


def _with_property(
    devices: tuple[Declaration, ...], point: Point, known: Capabilities, transport: str
) -> tuple[Declaration, ...]:
    taking = [device for device in devices if _takes(device, point.axis, known, (transport,))]
    if not taking:
        raise _nobody(devices, point, known, transport)
    _, _, name = point.axis.rpartition(".")
    return tuple(
        replace(device, properties={**device.properties, name: point.value}) if device in taking else device
        for device in devices
    )


def _nobody(
    devices: tuple[Declaration, ...], point: Point, known: Capabilities, transport: str
) -> UsageError | MissingError:
    if any(_takes(device, point.axis, known, TRANSPORTS) for device in devices):
        return NotSupportedError(f"matrix: {point.axis}: no device has it with transport={transport!r}")
    unknown = _unknown(point.axis, devices, known, (transport,))
    said = f"matrix: {UnknownNameError(*unknown)}"
    if not point.authors:
        return NotSupportedError(said)
    # What is like one that is there is a slip of the pen, and no test skips for that; else this QEMU lacks it.
    return UsageError(said) if nearest(point.axis, unknown[2]) else MissingError(said)


def _unknown(
    axis: str, devices: Sequence[Declaration], known: Capabilities, transports: Sequence[str]
) -> tuple[str, str, tuple[str, ...]]:
    """What an :class:`UnknownNameError` is made of."""
    id, dot, _ = axis.rpartition(".")
    asked = [device for device in devices if id in ("", device.id)]
    names = {own for device in asked for by in transports for own in properties_of(device, known, by)}
    near = (*(f"{id}{dot}{own}" for own in names), *KEYWORDS, "qemu")
    return (
        f"axis of the matrix, or property of {' and '.join(d.name for d in asked)} in QEMU {known.version}",
        axis,
        near,
    )


def _takes(device: Declaration, axis: str, known: Capabilities, transports: Sequence[str]) -> bool:
    id, _, name = axis.rpartition(".")
    if id not in ("", device.id) or _declares(device, name):
        return False
    return any(_folded(own) == name for by in transports for own in properties_of(device, known, by))


def _declares(device: Declaration, name: str) -> bool:
    return any(_folded(own) == name for own in device.properties)


def _are_declared(devices: Sequence[object]) -> bool:
    """Whether there are devices to look at; of anything else the declaration's own check says what it is."""
    return bool(devices) and all(isinstance(device, Declaration) for device in devices)


def _folded(name: str) -> str:
    return name.replace("-", "_")
