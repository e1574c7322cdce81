"""The console device, id 3: feature bits and queues (virtio 1.3 section 5.3, Linux virtio_console.h).

It must not know ports' names, configuration space or anything else of the device but its features and queues.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as count_from

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import QueueNames

__all__ = ("CONSOLE", "ConsoleFeature")


class ConsoleFeature(Feature, prefix="VIRTIO_CONSOLE_F_"):
    """Feature bits of the console device."""

    SIZE = 0
    MULTIPORT = 1
    EMERG_WRITE = 2


def _queues(count: int, features: int) -> Iterator[QueueNames]:
    """Name the queues of section 5.3.2: port 0, then control, then port 1 and so on."""
    yield from _port(0)
    yield "ctrl_rx", "control receiveq"
    yield "ctrl_tx", "control transmitq"
    for port in count_from(1):
        yield from _port(port)


def _port(port: int) -> tuple[QueueNames, QueueNames]:
    return (f"rx{port}", f"receiveq(port{port})"), (f"tx{port}", f"transmitq(port{port})")


CONSOLE = DeviceType(3, "console", "console device", ConsoleFeature, _queues)
