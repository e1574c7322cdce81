"""A VM as a test declares it: devices, guest, machine, transport, and how the marks that say so merge.

Responsible for the options of the marker and the factory, their defaults and what contradicts itself; must not know
pytest's marks themselves, nor QEMU's syntax.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pytest_virtio.declare.devices import Declaration, assign_ids
from pytest_virtio.declare.guests import Guest, NoGuest, Scripted, guest_named
from pytest_virtio.declare.sizes import MIB, parse_size
from pytest_virtio.errors import NotSupportedError, UnknownNameError, UsageError

__all__ = ("TRANSPORTS", "VmSpec", "check_keywords", "vm_spec")

TRANSPORTS = ("pci", "pci-transitional", "pci-legacy", "mmio", "ccw")

_MACHINES = {"mmio": "microvm", "ccw": "s390-ccw-virtio"}
"""The machine that has the transport; q35 has PCI."""

_WITH_LEGACY_INTERFACE = ("pci-transitional", "pci-legacy")


@dataclass(frozen=True, slots=True)
class VmSpec:
    """One VM, checked and complete."""

    devices: tuple[Declaration, ...]
    guest: Guest
    machine: str
    transport: str
    memory: int
    """Guest RAM in bytes."""
    cpus: int
    args: tuple[str, ...]
    """Further QEMU arguments, appended as they are."""
    timeout: float
    """Seconds from start to ready."""
    stall: float | None = None
    """Seconds that a queue may stand still with buffers that the device has to answer; None: for ever."""


KEYWORDS = (*(f.name for f in fields(VmSpec) if f.name != "devices"), "boot")


def check_keywords(given: Mapping[str, object], *also: str) -> None:
    """Refuse keywords that neither the marker nor the factory takes.

    :param also: what is taken besides.
    :raises UnknownNameError: naming the near ones.
    """
    known = (*KEYWORDS, *also)
    for name in given:
        if name not in known:
            raise UnknownNameError("keyword of virtio", name, known, "Device properties belong to the device.")


def vm_spec(devices: Iterable[Declaration], options: Mapping[str, Any], defaults: Mapping[str, Any]) -> VmSpec:
    """Check a declaration and complete it.

    :param options: what the marker or factory says; :data:`KEYWORDS`.
    :param defaults: what the command line, ini file and fixtures say, for what ``options`` leaves open.
    :raises UsageError: naming what can't be and what could.
    """
    check_keywords(options)
    chosen = {**defaults, **options}
    transport = _transport(chosen.get("transport", "pci"))
    boot = _truth("boot", chosen.get("boot", True))
    return VmSpec(
        devices=assign_ids(tuple(_declaration(d) for d in devices)),
        guest=_guest(chosen.get("guest", "scripted"), transport) if boot else NoGuest(),
        machine=_word("machine", chosen.get("machine") or _MACHINES.get(transport, "q35")),
        transport=transport,
        memory=_memory(chosen.get("memory", "256M")),
        cpus=_count("cpus", chosen.get("cpus", 1)),
        args=_args(chosen.get("args", ())),
        timeout=_seconds("timeout", chosen.get("timeout", 60.0)),
        stall=None if chosen.get("stall") is None else _seconds("stall", chosen["stall"]),
    )


def _guest(value: str | Guest, transport: str) -> Guest:
    guest = guest_named(value)
    if isinstance(guest, Scripted) and guest.legacy and transport not in _WITH_LEGACY_INTERFACE:
        raise NotSupportedError(
            f"Scripted(legacy=True): devices have no legacy interface with transport={transport!r}; "
            "write transport='pci-transitional'"
        )
    return guest


def _declaration(device: object) -> Declaration:
    if isinstance(device, Declaration):
        return device
    called = f"{device.__name__}()" if callable(device) and hasattr(device, "__name__") else "Net(), Blk(), Device('…')"
    raise UsageError(f"{device!r} is not a device declaration; write {called}")


def _transport(value: object) -> str:
    if value not in TRANSPORTS:
        raise UnknownNameError("transport", str(value), TRANSPORTS)
    if value == "ccw":
        raise NotSupportedError("transport='ccw' needs an s390x guest, which this version does not boot")
    return str(value)


def _word(name: str, value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise UsageError(f"{name}={value!r}: a name is expected")


def _truth(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise UsageError(f"{name}={value!r}: True or False is expected")


def _count(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise UsageError(f"{name}={value!r}: a number from 1 up is expected")


def _seconds(name: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return float(value)
    raise UsageError(f"{name}={value!r}: a number of seconds above 0 is expected")


def _memory(value: Any) -> int:
    size = parse_size(value, "memory")
    if size % MIB:
        raise UsageError(f"memory={value!r}: whole mebibytes are expected: '256M'")
    return size


def _args(value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise UsageError(f"args={value!r}: a list of strings is expected, one for each QEMU argument")
    if {"-daemonize", "--daemonize"} & set(value):
        raise UsageError("args: -daemonize would take QEMU away from the test that must end it")
    return tuple(value)
