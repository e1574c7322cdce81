"""A QEMU that is made up: it answers what a test wants it to, and remembers what was asked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_virtio.errors import CommandError, VirtioError
from pytest_virtio.vm.monitor import Command
from pytest_virtio.vm.process_memory import ProcessMemory

PATH = "/machine/peripheral/net0/virtio-backend"


class Script:
    """Plays QEMU's monitor.

    :param others: replies by command.
    :param replies: those of the introspection, by command less ``x-query-virtio``. A string is an error.
    """

    def __init__(self, others: Mapping[str, object] | None = None, /, **replies: Any) -> None:
        ours = {f"x-query-virtio{name.replace('_', '-')}": reply for name, reply in replies.items()}
        self.replies = {**ours, **(others or {})}
        self.process_memory = ProcessMemory(os.getpid())
        self.sent: list[tuple[str, Mapping[str, object] | None, float]] = []

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, timeout: float = 1.0, /) -> object:
        self.sent.append((command, arguments, timeout))
        reply = self.replies[command]
        if isinstance(reply, str) and command.startswith("x-"):
            raise CommandError(command, "GenericError", reply)
        return reply

    def execute_all(self, commands: Sequence[Command], timeout: float, /) -> list[object | VirtioError]:
        return [self._answer(command, arguments, timeout) for command, arguments in commands]

    def _answer(self, command: str, arguments: Mapping[str, object] | None, timeout: float) -> object | VirtioError:
        try:
            return self.execute(command, arguments, timeout)
        except VirtioError as error:
            return error

    @property
    def commands(self) -> list[str]:
        return [command for command, _, _ in self.sent]


def status(**more: object) -> dict[str, Any]:
    """A reply of x-query-virtio-status."""
    features: dict[str, list[str]] = {"transports": [], "dev-features": []}
    return {
        "name": "virtio-net",
        "device-id": 1,
        "vhost-started": False,
        "device-endian": "little",
        "guest-features": features,
        "host-features": features,
        "backend-features": features,
        "num-vqs": 3,
        "status": {"statuses": []},
        "isr": 0,
        "queue-sel": 0,
        "vm-running": True,
        "broken": False,
        "disabled": False,
        "use-started": True,
        "started": False,
        "start-on-kick": False,
        "disable-legacy-check": False,
        "bus-name": "",
        "use-guest-notifier-mask": True,
        **more,
    }


def vhost() -> dict[str, Any]:
    """What such a reply has more when a vhost backend runs."""
    features: dict[str, list[str]] = {"transports": [], "dev-features": []}
    numbers = ("n-mem-sections", "n-tmp-sections", "nvqs", "vq-index", "max-queues", "backend-cap", "log-size")
    device = {
        **dict.fromkeys(numbers, 1),
        "features": features,
        "acked-features": features,
        "backend-features": features,
        "protocol-features": {"protocols": []},
        "log-enabled": False,
    }
    return {"vhost-started": True, "vhost-dev": device}


def vhost_queue(**more: object) -> dict[str, Any]:
    """A reply of x-query-virtio-vhost-queue-status."""
    areas = {
        "desc-phys": 0x1000,
        "desc-size": 16,
        "avail-phys": 0x2000,
        "avail-size": 6,
        "used-phys": 0x3000,
        "used-size": 6,
    }
    return {"name": "virtio-net", "kick": 0, "call": 0, "num": 256, **areas, **more}
