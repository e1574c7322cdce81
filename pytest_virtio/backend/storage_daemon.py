"""``qemu-storage-daemon`` as a vhost-user-blk backend: where the program is, and its command line.

Responsible for the spelling of its options and for the files that they name; must not know processes or sockets.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pytest_virtio.backend.image import Image, look_at, overlay
from pytest_virtio.backend.programs import STORAGE_DAEMON, found
from pytest_virtio.backend.service import HowToStart
from pytest_virtio.declare.backends import StorageDaemon
from pytest_virtio.declare.guests import Scripted
from pytest_virtio.errors import MissingError, NotSupportedError
from pytest_virtio.vm.backends import PrivateFile, keyval
from pytest_virtio.vm.cmdline import CommandLine, Plan, ResolvedDevice

__all__ = ("find_program", "how_to_start", "places")

PROGRAM = STORAGE_DAEMON.name
NODE = "disk"


def how_to_start(server: StorageDaemon, device: ResolvedDevice, plan: Plan) -> HowToStart:
    """Its command line, for a private directory and a socket.

    :raises MissingError: when the program is not here.
    :raises NotSupportedError: for an image in a format that no overlay is made for, and for a driver of the legacy
        interface.
    :raises VirtioError: when an image can't be read.
    """
    id, disk = device.declaration.name, server.disk
    _check_legacy(plan, id)
    image = look_at(disk.path, disk.format) if disk.path else disk.size
    # The device takes a queue for each CPU where it is not told how many, and no more than the backend has.
    queues = device.properties.get("num-queues", str(plan.spec.cpus))
    return HowToStart("inherits", partial(_command_line, find_program(plan.program, id), id, image, queues))


def _check_legacy(plan: Plan, id: str) -> None:
    """The daemon panics at what a legacy driver acknowledges, and its rings stand still (seen in 7.2 and 11.1)."""
    guest = plan.spec.guest
    if plan.spec.transport == "pci-legacy" or (isinstance(guest, Scripted) and guest.legacy):
        raise NotSupportedError(
            f'{id}: {PROGRAM} serves no legacy driver ("virtio legacy devices aren\'t supported by libvhost-user"); '
            "transport='pci' and a modern driver on 'pci-transitional' do"
        )


def find_program(qemu: Path, id: str) -> Path:
    """The storage daemon that belongs to this QEMU: beside it, in its build tree, else in PATH.

    :raises MissingError: when there is none.
    """
    path = found(PROGRAM, places(qemu))
    if path is None:
        raise MissingError(
            f"{id} needs {PROGRAM}, which is neither beside {qemu} nor in PATH: install {STORAGE_DAEMON.packages}, or "
            "skip such tests by --virtio-missing=skip"
        )
    return path


def places(qemu: Path) -> list[Path]:
    """Where the one of this QEMU may be, outside of PATH."""
    beside = [qemu.parent, qemu.resolve().parent]
    return [path / part for path in beside for part in (PROGRAM, f"storage-daemon/{PROGRAM}")]


def _command_line(
    program: Path, id: str, disk: Image | int, queues: str, directory: Path, socket: int | Path
) -> CommandLine:
    """The command line for a user's image or for a private one of so many bytes.

    :param socket: the descriptor of one that listens, or the path of one to be made.
    """
    nodes, file = _private(id, disk, directory) if isinstance(disk, int) else _over(id, disk, directory)
    export = {"id": "export", "node-name": NODE, "writable": "on", "num-queues": queues, **_address(socket)}
    words = [word for node in nodes for word in ("--blockdev", node)]
    return CommandLine((str(program), *words, "--export", keyval("type=vhost-user-blk", export)), (file,))


def _address(socket: int | Path) -> dict[str, str]:
    if isinstance(socket, int):
        return {"addr.type": "fd", "addr.str": str(socket)}
    return {"addr.type": "unix", "addr.path": str(socket)}


def _private(id: str, size: int, directory: Path) -> tuple[tuple[str, ...], PrivateFile]:
    """The block nodes, and the file that they are on."""
    file = PrivateFile(directory / f"{id}.img", size)
    return (keyval("driver=file", {"node-name": NODE, "filename": str(file.path), "discard": "unmap"}),), file


def _over(id: str, image: Image, directory: Path) -> tuple[tuple[str, ...], PrivateFile]:
    """The user's image, only read, with an empty overlay before it."""
    file = overlay(directory / f"{id}.overlay", image.size)
    protocol = "driver=host_device" if image.is_device else "driver=file"
    nodes = (
        keyval(protocol, {"node-name": "image", "filename": str(image.path), "read-only": "on"}),
        keyval(f"driver={image.format}", {"node-name": "base", "file": "image", "read-only": "on"}),
        keyval("driver=file", {"node-name": "overlay", "filename": str(file.path)}),
        keyval("driver=qcow2", {"node-name": NODE, "file": "overlay", "backing": "base", "discard": "unmap"}),
    )
    return nodes, file
