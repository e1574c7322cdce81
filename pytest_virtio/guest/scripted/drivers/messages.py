"""Answers as bytes, and numbers: what the drivers of several device types do alike.

Responsible for turning an answer that is too short, a status that is no success and a number of the caller's that fits
no field into errors that name them; must not know any request.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

from pytest_virtio.errors import RequestFailedError, UsageError
from pytest_virtio.spec.layout import ByteOrder, Layout

__all__ = ("check_status", "number", "unpacked")

L = TypeVar("L", bound=Layout)


def number(name: str, value: int, bits: int) -> int:
    """A number of the caller's, which is to fit into so many bits; one bit is for True and False, too.

    :param name: the parameter's, for the error.
    :raises UsageError: when it doesn't, or is no number.
    """
    if not isinstance(value, int) or not 0 <= value < 1 << bits:
        expected = f"a number of {bits} bits" if bits > 1 else "True or False"
        raise UsageError(f"{name}={value!r}: {expected} is expected")
    return value


def unpacked(layout: type[L], answer: bytes, id: str, request: str, order: ByteOrder = "little") -> L:
    """Read an answer.

    :param answer: what the device says it wrote.
    :param request: its name, for the error.
    :raises RequestFailedError: when the device wrote less than such an answer takes.
    """
    if len(answer) < layout.size():
        raise RequestFailedError(
            f"{id}: the device's answer is too short",
            step=request,
            register=layout.__name__,
            expected=f"{layout.size()} bytes",
            seen=f"{len(answer)} bytes",
        )
    return layout.unpack(answer, order)


def check_status(status: int, success: IntEnum, id: str, request: str) -> None:
    """See to it that an answer says success.

    :param success: the status that does, a member of the enumeration of all.
    :raises RequestFailedError: naming the status that it says instead.
    """
    if status != success:
        raise RequestFailedError(
            f"{id}: the device answers the request with an error",
            step=request,
            register=type(success).__name__,
            expected=_shown(success, type(success)),
            seen=_shown(status, type(success)),
        )


def _shown(status: int, kind: type[IntEnum]) -> str:
    known = status in tuple(kind)
    return f"{status:#x} ({kind(status).name})" if known else f"{status:#x}, which means nothing"
