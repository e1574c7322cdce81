"""From what a declaration names to what one QEMU binary calls it: types, transports, property spellings. Pure.

Responsible for QEMU's naming of device types by bus and for near misses; must not know how an option is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pytest_virtio.declare.devices import Declaration, Property
from pytest_virtio.errors import MissingError, NotSupportedError, UnknownNameError, near_misses
from pytest_virtio.vm.capabilities import Capabilities
from pytest_virtio.vm.cmdline import ResolvedDevice

__all__ = ("check_introspection", "check_machine", "check_transport", "properties_of", "resolve")

_SUFFIXES = {
    "pci": ("-pci",),
    "pci-transitional": ("-pci",),
    "pci-legacy": ("-pci",),
    "mmio": ("-device", ""),
    "ccw": ("-ccw",),
}
"""virtio-mem and virtio-pmem carry no suffix where the others have ``-device``."""

_TRANSPORT_PROPERTIES: Mapping[str, Mapping[str, str]] = {
    # On a root bus QEMU makes PCI devices transitional unless told otherwise, also those called modern.
    "pci": {"disable-legacy": "on"},
    "pci-transitional": {"disable-legacy": "off", "disable-modern": "off"},
    "pci-legacy": {"disable-legacy": "off", "disable-modern": "on"},
}

_WITH_LEGACY_INTERFACE = frozenset({1, 2, 3, 4, 5, 8, 9})
"""Device types with a transitional PCI device id (virtio 1.3, section 5). QEMU makes modern devices of the others
without a word, whatever their properties say (virtio_pci_force_virtio_1)."""

_DEVICE_OPTIONS = frozenset({"bus"})
"""Of ``-device`` itself, so in no type's list of properties."""

_FIRST_WITH_INTROSPECTION = "7.2"
_NEEDED_COMMANDS = frozenset({"x-query-virtio", "x-query-virtio-status", "x-query-virtio-queue-status"})


def check_introspection(known: Capabilities) -> None:
    """Refuse a QEMU that can't be asked about its virtio devices.

    :raises MissingError: for QEMU older than 7.2, or built without the commands.
    """
    missing = sorted(_NEEDED_COMMANDS - known.commands)
    if missing:
        raise MissingError(
            f"QEMU {known.version} ({known.program}) has no {missing[0]}: QEMU {_FIRST_WITH_INTROSPECTION} was the "
            "first with virtio introspection. Name a newer one by --virtio-qemu=PATH."
        )


def check_machine(known: Capabilities, machine: str) -> None:
    """Refuse a machine type that the binary has not, by name or alias. Options after a comma are QEMU's business.

    :raises MissingError: when it has that machine type in other versions only.
    :raises UnknownNameError: naming the near ones.
    """
    name = machine.partition(",")[0]
    if name in known.machines:
        return
    family, dash, version = name.rpartition("-")
    others = [other for other in known.machines if other.startswith(f"{family}-")]
    if dash and re.fullmatch(r"\d+\.\d+", version) and others:
        # A release adds its own version, and takes away those that are too old.
        raise MissingError(
            f"QEMU {known.version} ({known.program}) has no machine {name}. {near_misses(name, others)} Name another "
            "QEMU by --virtio-qemu=PATH, or skip such tests by --virtio-missing=skip."
        )
    raise UnknownNameError(f"machine of QEMU {known.version}", name, known.machines)


def check_transport(machine: str, transport: str) -> None:
    """Refuse an x86 machine that lacks the bus which the transport needs; of other machines nothing is said.

    :raises NotSupportedError: naming one that has it.
    """
    name, _, options = machine.partition(",")
    on_pci = transport.startswith("pci")
    if on_pci and name.startswith("microvm") and "pcie=on" not in options:
        raise NotSupportedError(f"machine {machine!r} has no PCI, as transport={transport!r} needs: 'microvm,pcie=on'")
    if transport == "mmio" and re.fullmatch(r"q35|pc(-.*)?", name):
        raise NotSupportedError(f"machine {machine!r} has no virtio-mmio, as transport='mmio' needs: 'microvm'")


def properties_of(declaration: Declaration, known: Capabilities, transport: str) -> tuple[str, ...]:
    """QEMU's names of the properties of a declared device; none of a type that the binary has not."""
    try:
        return known.devices.get(_type(declaration, known, transport), ())
    except (MissingError, UnknownNameError):
        return ()


def resolve(declaration: Declaration, known: Capabilities, transport: str) -> ResolvedDevice:
    """The declaration in one binary's words.

    :raises UnknownNameError: for an unknown type (of ``Device``) or property.
    :raises NotSupportedError: for a legacy transport of a device type that has none.
    :raises MissingError: when the binary lacks a type that others have.
    """
    _check_legacy(declaration, transport)
    type = _type(declaration, known, transport)
    own = {_property_name(known, type, name): _text(value) for name, value in declaration.properties.items()}
    properties = known.devices.get(type, ())
    transport_own = {} if declaration.exact else _TRANSPORT_PROPERTIES.get(transport, {})
    implied = {name: value for name, value in transport_own.items() if name in properties}
    return ResolvedDevice(declaration, type, {**implied, **own})


def _check_legacy(declaration: Declaration, transport: str) -> None:
    type = declaration.type
    if declaration.exact or transport not in {"pci-transitional", "pci-legacy"} or type is None:
        return
    if type.id not in _WITH_LEGACY_INTERFACE:
        raise NotSupportedError(
            f"transport={transport!r}: {declaration.name!r} can't have it: {declaration.model} has no legacy interface "
            "(virtio 1.3, section 5). Use transport='pci'."
        )


def _property_name(known: Capabilities, type: str, spelled: str) -> str:
    return spelled if spelled in _DEVICE_OPTIONS else known.property_name(type, spelled)


def _type(declaration: Declaration, known: Capabilities, transport: str) -> str:
    candidates = [declaration.model + suffix for suffix in _SUFFIXES[transport]]
    if declaration.exact:
        candidates.insert(0, declaration.model)
    for candidate in candidates:
        if candidate in known.devices or (declaration.exact and candidate in known.other_types):
            return candidate
    if declaration.exact:
        every = (*known.devices, *known.other_types)
        raise UnknownNameError(f"device of QEMU {known.version}", declaration.model, every)
    raise MissingError(
        f"QEMU {known.version} ({known.program}) has no {candidates[0]}, which {declaration.name!r} needs: it is older "
        "than the device, was built without it, or its module is in a package that is not installed. Name another QEMU "
        "by --virtio-qemu=PATH, or skip such tests by --virtio-missing=skip."
    )


def _text(value: Property) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value.absolute() if isinstance(value, Path) else value)
