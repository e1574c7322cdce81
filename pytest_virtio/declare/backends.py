"""What a declared device needs behind it on the host: a network, a disk, memory, a directory.

Responsible for the kinds of backend and their settings; must not know the devices, nor how QEMU spells a backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = (
    "Backend",
    "NoBackend",
    "Netdev",
    "Disk",
    "ScsiDisk",
    "Directory",
    "RamMemory",
    "FileMemory",
    "Cryptodev",
    "Audiodev",
    "Ports",
    "StorageDaemon",
)


@dataclass(frozen=True, slots=True)
class NoBackend:
    """The device needs nothing behind it."""


@dataclass(frozen=True, slots=True)
class Netdev:
    """A QEMU network backend, in QEMU's own words: ``"user,restrict=on"``."""

    options: str


@dataclass(frozen=True, slots=True)
class Disk:
    """A private image of ``size`` bytes, or a disposable overlay over the user's image at ``path``."""

    size: int
    path: Path | None = None
    format: str | None = None


@dataclass(frozen=True, slots=True)
class ScsiDisk:
    """A disk behind the device's SCSI bus."""

    disk: Disk


@dataclass(frozen=True, slots=True)
class Directory:
    """A host directory shared with the guest: the user's own, or a private one that is empty."""

    tag: str
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class RamMemory:
    """Anonymous host memory of ``size`` bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class FileMemory:
    """A private file of ``size`` bytes, mapped shared."""

    size: int


@dataclass(frozen=True, slots=True)
class Cryptodev:
    """QEMU's built-in crypto backend."""


@dataclass(frozen=True, slots=True)
class Audiodev:
    """A sound backend that plays to nowhere."""


@dataclass(frozen=True, slots=True)
class Ports:
    """``count`` serial ports, each on a ring buffer that ``ringbuf-read`` and ``ringbuf-write`` reach."""

    count: int


@dataclass(frozen=True, slots=True)
class StorageDaemon:
    """``disk``, served by a ``qemu-storage-daemon`` of the VM's own over vhost-user."""

    disk: Disk


Backend = (
    NoBackend
    | Netdev
    | Disk
    | ScsiDisk
    | Directory
    | RamMemory
    | FileMemory
    | Cryptodev
    | Audiodev
    | Ports
    | StorageDaemon
)
