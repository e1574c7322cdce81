"""The input device, id 18: queues, configuration space, events (virtio 1.3 section 5.8, Linux virtio_input.h).

It has no feature bits. It must not know keys and axes, which are Linux's (input-event-codes.h): of these it holds the
types of events alone.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.layout import U8, U16, U32, Layout
from pytest_virtio.spec.queues import in_order

__all__ = (
    "INPUT",
    "InputConfig",
    "InputConfigSelect",
    "InputAbsinfo",
    "InputDevids",
    "InputEvent",
    "InputEventType",
)

INPUT = DeviceType(
    18,
    "input",
    "input device",
    None,
    in_order(("event", "eventq"), ("status", "statusq")),
    kept=("event",),
)


class InputConfigSelect(IntEnum):
    """``enum virtio_input_config_select`` (section 5.8.4)."""

    UNSET = 0x00
    ID_NAME = 0x01
    ID_SERIAL = 0x02
    ID_DEVIDS = 0x03
    PROP_BITS = 0x10
    EV_BITS = 0x11
    ABS_INFO = 0x12


class InputAbsinfo(Layout):
    """``struct virtio_input_absinfo``: ``u`` after ABS_INFO; signed ones are in two's complement (section 5.8.4)."""

    min: U32
    max: U32
    fuzz: U32
    flat: U32
    res: U32


class InputDevids(Layout):
    """``struct virtio_input_devids``: ``u`` after ID_DEVIDS (section 5.8.4)."""

    bustype: U16
    vendor: U16
    product: U16
    version: U16


class InputConfig(Layout):
    """``struct virtio_input_config`` (section 5.8.4): a window; the driver writes ``select`` and ``subsel`` to move it.

    ``size_``, its ``size``, says how many bytes of ``u`` are valid; 0 when there is nothing. They are text without a
    NUL, a bitmap with bit 0 first, :class:`InputAbsinfo` or :class:`InputDevids`.
    """

    select: U8
    subsel: U8
    size_: U8
    reserved: Annotated[bytes, "5s"]
    u: Annotated[bytes, "128s"]


class InputEventType(IntEnum):
    """EV_* of Linux: values of ``type``, and of ``subsel`` with EV_BITS (section 5.8.4)."""

    SYN = 0x00
    KEY = 0x01
    REL = 0x02
    ABS = 0x03
    MSC = 0x04
    SW = 0x05
    LED = 0x11
    SND = 0x12
    REP = 0x14


class InputEvent(Layout):
    """``struct virtio_input_event``, of both queues (section 5.8.6); a signed ``value`` is in two's complement."""

    type: U16
    code: U16
    value: U32
