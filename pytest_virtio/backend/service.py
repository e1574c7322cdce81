"""A vhost-user backend before it runs: how it is started, and how it and we come to be connected.

Responsible for the fields that all daemons share; must not know any one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pytest_virtio.backend.wire import Masks
from pytest_virtio.declare.wire import Wire
from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.vm.cmdline import CommandLine

__all__ = ("HowToStart", "Meeting", "Service")

Meeting = Literal["inherits", "listens", "connects"]
"""Who makes the socket: the daemon inherits one of ours that listens, or listens at a path itself, or connects to a
path at which we listen."""


@dataclass(frozen=True, slots=True)
class HowToStart:
    """A daemon to be started.

    :param meeting: how it is met.
    :param build: gives its command line for a private directory and a socket: the descriptor of one that listens
        already, if it inherits that, else a path.
    :param may_stray: whether what it starts may leave its process group, as a user's own daemon may have it do.
    """

    meeting: Meeting
    build: Callable[[Path, int | Path], CommandLine]
    may_stray: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A backend.

    :param id: the device that it serves.
    :param type: of that device.
    :param how: how it is started, or the path of its socket where it runs already.
    :param wire: the witness, if there is to be one, and what it masks.
    :param by_path: whether QEMU connects to a path, and is not given a connection.
    :param reconnect: seconds after which it connects again when the connection has ended; None when it doesn't.
    """

    id: str
    type: DeviceType
    how: HowToStart | Path
    wire: Wire | None = None
    masks: Masks = field(default_factory=Masks)
    by_path: bool = False
    reconnect: float | None = None
