"""What a declared device needs behind it on the host: a network, a disk, memory, a directory.

Responsible for the kinds of backend and their settings; must not know the devices, nor how QEMU spells a backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pytest_virtio.declare.wire import Wire

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
    "Daemon",
    "FoundSocket",
    "KernelScsi",
    "KernelVsock",
    "OwnServer",
    "Passt",
    "Server",
    "StorageDaemon",
    "Testpmd",
    "VhostUser",
    "Virtiofsd",
    "VsockDaemon",
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
class KernelVsock:
    """The host kernel's ``vhost_vsock``.

    :param cid: the guest's context id, from 3 up; None for one of its own.
    """

    cid: int | None = None


@dataclass(frozen=True, slots=True)
class KernelScsi:
    """A target of the host kernel's ``vhost_scsi``, by its name below ``target/vhost`` in configfs."""

    wwpn: str


@dataclass(frozen=True, slots=True)
class StorageDaemon:
    """``disk``, served by a ``qemu-storage-daemon`` of the VM's own."""

    disk: Disk


@dataclass(frozen=True, slots=True)
class Virtiofsd:
    """A host directory, the user's own or a private one that is empty, served by ``virtiofsd``, the Rust or the C one.

    :param program: the binary; None for the one that is installed.
    """

    directory: Path | None = None
    program: Path | None = None


@dataclass(frozen=True, slots=True)
class VsockDaemon:
    """``vhost-device-vsock`` of the rust-vmm project.

    :param cid: the guest's context id, from 3 up.
    """

    cid: int = 3


@dataclass(frozen=True, slots=True)
class Testpmd:
    """DPDK's ``dpdk-testpmd`` with its vhost driver.

    :param forward_mode: what it does with frames: ``"icmpecho"`` answers each ping and ARP request, ``"macswap"`` and
        ``"mac"`` send frames back, ``"rxonly"`` drops them (DPDK, "Testpmd Runtime Functions").
    :param args: further arguments, of testpmd's own part of the command line.
    """

    __test__: ClassVar = False
    """Its name begins as those of the classes do that pytest takes for tests, and users import it into their tests."""
    forward_mode: str = "icmpecho"
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Passt:
    """``passt``, which gives the guest the host's network by ordinary sockets; from 2024_11 on it speaks vhost-user.

    :param args: further arguments.
    """

    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Daemon:
    """Any vhost-user daemon.

    In its arguments ``{socket}`` stands for the path of the socket, ``{fd}`` for the descriptor of one that listens
    already, ``{directory}`` for the VM's private directory, ``{{`` for a brace.
    It stays in the foreground. What it starts is killed, stopped and continued with it, and ends with the VM, in a
    session of its own too, as long as it keeps the environment.

    :param argv: program and arguments.
    :param connects: whether it connects to the socket, at which we listen then, instead of listening there.
    """

    argv: Sequence[str]
    connects: bool = False


@dataclass(frozen=True, slots=True)
class FoundSocket:
    """A daemon that runs already and listens at ``path``; it is not ours to end."""

    path: Path


OwnServer = StorageDaemon | Virtiofsd | VsockDaemon | Testpmd | Passt | Daemon
Server = OwnServer | FoundSocket
"""Who serves rings over vhost-user; those of ours are started with the VM."""


@dataclass(frozen=True, slots=True)
class VhostUser:
    """A vhost-user backend.

    :param server: who it is.
    :param wire: the witness on the wire, if there is to be one.
    :param reconnect: seconds after which QEMU connects again when the connection has ended; None when it doesn't.
    :param queue_pairs: of a network card, which speaks to it through a network backend; None for other devices.
    :param tag: of a file system, what the guest mounts; "" is the device's id; None for other devices.
    """

    server: Server
    wire: Wire | None = None
    reconnect: float | None = None
    queue_pairs: int | None = None
    tag: str | None = None


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
    | KernelVsock
    | KernelScsi
    | VhostUser
)
