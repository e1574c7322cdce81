"""QEMU's trace events as its log has them: lines of text into values.

Responsible for the two events that tell a device status's steps and whose they are; must not know which device an
object is, nor where the lines are kept. The guest chooses nothing in these lines but the value that it wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

__all__ = ("STATUS_EVENTS", "Reset", "SetStatus", "parse_trace")

STATUS_EVENTS: Final = ("virtio_set_status", "resettable_phase_enter_begin")
"""What has to be enabled. The second names the type of each object that is reset, and machines begin with a reset; of
all events that print pointer and type, 7.2, 10.0 and 11.1 have only the resettable ones in common."""

# 7.2 and 10.0: "3137@1795328754.983530:EVENT"; 11.1: "2026-11-22T06:25:57.369395Z EVENT". Nothing before EVENT without
# -msg timestamp=on.
_LINE: Final = re.compile(
    r"(?:\d+@(?P<epoch>\d+\.\d{6}):|(?P<iso>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) )"
    r"(?:virtio_set_status vdev 0x(?P<device>[0-9a-f]+) val (?P<value>\d+)"
    r"|resettable_phase_enter_begin obj=0x(?P<object>[0-9a-f]+)\((?P<type>[\w.-]+)\) count=\d+ type=\d+)"
)


@dataclass(frozen=True, slots=True)
class SetStatus:
    """The device status was written.

    :param time: seconds of the host's clock.
    :param device: QEMU's pointer to the device.
    :param value: what was to be its status.
    """

    time: float
    device: int
    value: int


@dataclass(frozen=True, slots=True)
class Reset:
    """An object is about to be reset from outside: with its machine or bus.

    :param object: QEMU's pointer to it.
    :param type: its QOM type.
    """

    object: int
    type: str


def parse_trace(text: str) -> Iterator[SetStatus | Reset]:
    """Yield the events of a log in their order; other lines, and the end of one being written, are left out."""
    for line in text.split("\n")[:-1]:
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        if found["device"]:
            yield SetStatus(_time(found), int(found["device"], 16), int(found["value"]))
        else:
            yield Reset(int(found["object"], 16), found["type"])


def _time(found: re.Match[str]) -> float:
    return float(found["epoch"]) if found["epoch"] else datetime.fromisoformat(found["iso"]).timestamp()
