"""Where a result comes from: which programs, in which versions, on which host.

Responsible for the fields; it must not know how a version is found out, and nothing is ever compared by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ("Provenance",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a VM ran on. ``""`` means that nobody tells, or that there is no such part.

    :param qemu: its version, ``"10.0.2"``.
    :param qemu_build: what the distributor calls it, ``"Debian 1:10.0.2+ds-2"``.
    :param machine: the machine type by its versioned name where QEMU tells it: ``"pc-q35-10.0"``.
    :param accelerator: ``"tcg"`` or ``"kvm"``.
    :param guest: ``"scripted"``, ``"firmware"`` or ``"linux"``.
    :param kernel: release of the guest's kernel, ``"6.1.0-37-amd64"``; of one of the user's, its file's name too.
    :param firmware: the firmware that booted it, ``"SeaBIOS"`` with its version where it is told, or a file's name.
    :param backends: program and version of each vhost backend, by the id of the device that it serves.
    :param host: system, release and architecture: ``"Linux 6.1.0-37-amd64 x86_64"``.
    :param plugin: our own version.
    """

    qemu: str = ""
    qemu_build: str = ""
    machine: str = ""
    accelerator: str = ""
    guest: str = ""
    kernel: str = ""
    firmware: str = ""
    backends: Mapping[str, str] = field(default_factory=dict, hash=False)
    host: str = ""
    plugin: str = ""
