"""The daemons that are known by name, and where a daemon's program is.

Responsible for looking in the usual places and for saying what is missing and what has it; must not know arguments.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_virtio.errors import MissingError
from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.devices import BLK, FS, NET, VSOCK

__all__ = (
    "KNOWN",
    "PASST",
    "STORAGE_DAEMON",
    "TESTPMD",
    "VIRTIOFSD",
    "VIRTIOFSD_IN_RUST",
    "VSOCK_DAEMON",
    "Known",
    "found",
    "program",
    "usable",
)


@dataclass(frozen=True, slots=True)
class Known:
    """A daemon that a declaration starts by itself.

    :param name: its program's.
    :param type: what it serves.
    :param packages: what has it, in words.
    :param places: where it may be, outside of PATH.
    """

    name: str
    type: DeviceType
    packages: str
    places: tuple[Path, ...] = ()


STORAGE_DAEMON = Known(
    "qemu-storage-daemon", BLK, "the package qemu-system-common (Debian 12) or qemu-utils (Debian 13)"
)
VIRTIOFSD = Known(
    "virtiofsd",
    FS,
    "the package virtiofsd (Debian 13) or qemu-system-common (Debian 12)",
    # Debian 13, Arch and Fedora, Debian 12: not meant to be started by hand, so none is in PATH.
    (Path("/usr/libexec/virtiofsd"), Path("/usr/lib/virtiofsd"), Path("/usr/lib/qemu/virtiofsd")),
)
VIRTIOFSD_IN_RUST = replace(
    VIRTIOFSD,
    places=VIRTIOFSD.places[:-1],
    packages="the package virtiofsd (Debian 13): the one of Debian 12, in C, runs as root only",
)
TESTPMD = Known("dpdk-testpmd", NET, "the packages dpdk-dev and librte-net-vhost23")
PASST = Known("passt", NET, "the package passt, 2024_11 or later")
VSOCK_DAEMON = Known("vhost-device-vsock", VSOCK, "the package vhost-device-vsock (Debian 14), or build the crate")
KNOWN = (STORAGE_DAEMON, VIRTIOFSD, TESTPMD, PASST, VSOCK_DAEMON)


def found(name: str, places: Iterable[Path]) -> Path | None:
    """The first of the places that is a program, else what PATH has, if that is any."""
    here = next((path for path in places if path.is_file() and os.access(path, os.X_OK)), None)
    installed = shutil.which(name) if here is None else None
    return Path(installed) if installed else here


def usable(daemon: Known) -> Known:
    """The daemon, as this user can run it."""
    return VIRTIOFSD_IN_RUST if daemon is VIRTIOFSD and os.geteuid() != 0 else daemon


def program(daemon: Known, id: str, place: Path | None = None) -> Path:
    """As :func:`found`.

    :param id: the device that needs it.
    :param place: where the user says that it is.
    :raises MissingError: when there is none.
    """
    daemon = usable(daemon)
    tried = (place,) if place else daemon.places
    path = found(daemon.name, tried)
    if path is None:
        where = "".join(f" {path}," for path in tried)
        raise MissingError(
            f"{id} needs {daemon.name}, which is not in PATH{' nor' if where else ''}{where.rstrip(',')}: install "
            f"{daemon.packages}, or skip such tests by --virtio-missing=skip"
        )
    return path
