"""The console device, id 3: features, queues, configuration space, control messages (virtio 1.3 section 5.3, Linux
virtio_console.h).

It must not know what goes through a port, nor when a driver sends which message.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from itertools import count as count_from
from typing import Final

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.layout import U16, U32, Layout
from pytest_virtio.spec.queues import QueueNames

__all__ = (
    "CONSOLE",
    "ConsoleFeature",
    "ConsoleConfig",
    "ConsoleControl",
    "ConsoleEvent",
    "ConsoleResize",
    "BAD_ID",
)

BAD_ID: Final = 0xFFFFFFFF
"""VIRTIO_CONSOLE_BAD_ID of Linux's header: the port of a message that is about none, as DEVICE_READY."""


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


CONSOLE = DeviceType(3, "console", "console device", ConsoleFeature, _queues, kept=("rx", "ctrl_rx"))


class ConsoleConfig(Layout):
    """``struct virtio_console_config`` (section 5.3.4): each field depends on a feature.

    The driver writes ``emerg_wr`` alone, at any time; it's offered with EMERG_WRITE.
    """

    cols: U16
    rows: U16
    max_nr_ports: U32
    emerg_wr: U32


class ConsoleEvent(IntEnum):
    """Values of ``event`` of a control message (section 5.3.6.2).

    The specification calls 1 and 2 DEVICE_ADD and DEVICE_REMOVE in its list, and PORT_ADD elsewhere, as Linux does.
    """

    DEVICE_READY = 0
    PORT_ADD = 1
    DEVICE_ADD = 1
    PORT_REMOVE = 2
    DEVICE_REMOVE = 2
    PORT_READY = 3
    CONSOLE_PORT = 4
    RESIZE = 5
    PORT_OPEN = 6
    PORT_NAME = 7


class ConsoleControl(Layout):
    """``struct virtio_console_control`` (section 5.3.6.2): a message of the control queues.

    PORT_NAME is followed by the name without a NUL, RESIZE by :class:`ConsoleResize`.
    """

    id: U32
    event: U16
    value: U16 = 0


class ConsoleResize(Layout):
    """``struct virtio_console_resize`` (section 5.3.6.2).

    Linux read ``rows`` first until commit 5326ab737a47, so that a device may well write them so.
    """

    cols: U16
    rows: U16
