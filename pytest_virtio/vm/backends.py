"""What stands behind a device, as QEMU's options: pure.

Responsible for the spelling of each kind of backend and for the private files that it needs; must not know the machine
around it, nor start, open or look at anything.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import Path

from pytest_virtio.declare.backends import (
    Audiodev,
    Backend,
    Cryptodev,
    Directory,
    Disk,
    FileMemory,
    KernelScsi,
    KernelVsock,
    Netdev,
    NoBackend,
    Ports,
    RamMemory,
    ScsiDisk,
    VhostUser,
)
from pytest_virtio.errors import MissingError

__all__ = ("Parts", "PrivateFile", "backend_parts", "keyval", "vhost_user_chardev")


FIRST_CID, OWN_CIDS = 0x40000000, 0x40000000
"""Context ids for VMs whose declaration names none: where nobody counts up from 3."""


@dataclass(frozen=True, slots=True)
class PrivateFile:
    """A file (or directory, when ``size`` is None) of the VM's own, below its private directory."""

    path: Path
    size: int | None = None
    content: Mapping[int, bytes] = field(default_factory=dict)
    """What stands in it, by offset; the rest is zeros."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a backend adds: options of its own, properties of its device, devices on its bus, files."""

    options: tuple[str, ...] = ()
    properties: Mapping[str, str] | None = None
    children: tuple[str, ...] = ()
    files: tuple[PrivateFile, ...] = ()
    device_memory: int = 0


def keyval(head: str, pairs: Mapping[str, str]) -> str:
    """``head,key=value,…`` with the commas in values doubled, as QEMU wants them."""
    return ",".join([head, *(f"{key}={_value(value)}" for key, value in pairs.items())])


def _value(value: str) -> str:
    return value.replace(",", ",,")


@singledispatch
def backend_parts(backend: Backend, id: str, directory: Path) -> Parts:
    raise MissingError(f"{id}: no command line is known for the backend {backend!r}")


@backend_parts.register
def _(backend: NoBackend, id: str, directory: Path) -> Parts:
    return Parts()


@backend_parts.register
def _(backend: Netdev, id: str, directory: Path) -> Parts:
    kind, _, options = backend.options.partition(",")
    netdev = f"{kind},id={id}.net" + (f",{options}" if options else "")
    return Parts(options=("-netdev", netdev), properties={"netdev": f"{id}.net"})


def _drive(disk: Disk, id: str, directory: Path) -> tuple[str, tuple[PrivateFile, ...]]:
    if disk.path is not None:
        # snapshot=on puts a temporary overlay between guest and image: the image is opened read-only, and the guest
        # may write. -blockdev has no such thing.
        format = disk.format or "raw"
        options = {"if": "none", "id": f"{id}.drive", "file": str(disk.path), "format": format, "snapshot": "on"}
        return keyval("", options).lstrip(","), ()
    image = PrivateFile(directory / f"{id}.img", disk.size)
    options = {"if": "none", "id": f"{id}.drive", "file": str(image.path), "format": "raw", "discard": "unmap"}
    return keyval("", options).lstrip(","), (image,)


@backend_parts.register
def _(backend: Disk, id: str, directory: Path) -> Parts:
    drive, files = _drive(backend, id, directory)
    return Parts(options=("-drive", drive), properties={"drive": f"{id}.drive"}, files=files)


@backend_parts.register
def _(backend: ScsiDisk, id: str, directory: Path) -> Parts:
    drive, files = _drive(backend.disk, id, directory)
    disk = keyval("scsi-hd", {"id": f"{id}.disk", "bus": f"{id}.0", "drive": f"{id}.drive"})
    return Parts(options=("-drive", drive), children=(disk,), files=files)


@backend_parts.register
def _(backend: Directory, id: str, directory: Path) -> Parts:
    path = backend.path or directory / f"{id}.share"
    fsdev = keyval("local", {"id": f"{id}.fs", "path": str(path), "security_model": "mapped-xattr"})
    files = () if backend.path else (PrivateFile(path),)
    return Parts(("-fsdev", fsdev), {"fsdev": f"{id}.fs", "mount_tag": backend.tag or id}, files=files)


@backend_parts.register
def _(backend: RamMemory, id: str, directory: Path) -> Parts:
    memory = f"memory-backend-ram,id={id}.mem,size={backend.size}"
    return Parts(("-object", memory), {"memdev": f"{id}.mem"}, device_memory=backend.size)


@backend_parts.register
def _(backend: FileMemory, id: str, directory: Path) -> Parts:
    file = PrivateFile(directory / f"{id}.mem", backend.size)
    options = {"id": f"{id}.mem", "size": str(backend.size), "share": "on", "mem-path": str(file.path)}
    memory = keyval("memory-backend-file", options)
    return Parts(("-object", memory), {"memdev": f"{id}.mem"}, files=(file,), device_memory=backend.size)


@backend_parts.register
def _(backend: Cryptodev, id: str, directory: Path) -> Parts:
    return Parts(("-object", f"cryptodev-backend-builtin,id={id}.crypto"), {"cryptodev": f"{id}.crypto"})


@backend_parts.register
def _(backend: Audiodev, id: str, directory: Path) -> Parts:
    return Parts(("-audiodev", f"none,id={id}.audio"), {"audiodev": f"{id}.audio"})


@backend_parts.register
def _(backend: Ports, id: str, directory: Path) -> Parts:
    names = [f"{id}.port{n}" for n in range(backend.count)]
    chardevs = tuple(word for name in names for word in ("-chardev", f"ringbuf,id={name},size=65536"))
    ports = tuple(
        f"virtserialport,id={name}.dev,bus={id}.0,chardev={name},name={id}.{n}" for n, name in enumerate(names)
    )
    return Parts(options=chardevs, children=ports)


@backend_parts.register
def _(backend: KernelVsock, id: str, directory: Path) -> Parts:
    # The whole host shares the context ids: each VM's directory is its own, so what is made of it is not taken.
    cid = backend.cid or FIRST_CID + zlib.crc32(f"{directory}/{id}".encode()) % OWN_CIDS
    return Parts(properties={"guest-cid": str(cid)})


@backend_parts.register
def _(backend: KernelScsi, id: str, directory: Path) -> Parts:
    return Parts(properties={"wwpn": backend.wwpn})


@backend_parts.register
def _(backend: VhostUser, id: str, directory: Path) -> Parts:
    # How the chardev is connected is another matter for us than for who starts the VM by hand.
    if backend.queue_pairs is None:
        tag = {} if backend.tag is None else {"tag": backend.tag or id}
        return Parts(properties={"chardev": vhost_user_chardev(id), **tag})
    netdev = {"id": f"{id}.net", "chardev": vhost_user_chardev(id), "queues": str(backend.queue_pairs)}
    return Parts(("-netdev", keyval("vhost-user", netdev)), {"netdev": f"{id}.net"})


def vhost_user_chardev(id: str) -> str:
    """The id of the chardev that a device speaks vhost-user over."""
    return f"{id}.vhost-user"
