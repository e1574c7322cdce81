"""HMP ``xp`` and ``i``: one register, read through the monitor. Each reads just as many bytes as it is told to."""

from __future__ import annotations

import re
from typing import Final, Literal

from pytest_virtio.errors import ReplyError

__all__ = ("parse_register", "read_register")

_COMMANDS: Final = {"memory": "xp", "io": "i"}
_SIZES: Final = {1: "b", 2: "h", 4: "w"}
# "00000000fea00014: 0x0f" of memory, "portb[0xc0f2] = 0x03" of a port.
_VALUE = re.compile(r"^(?:[0-9a-f]+:|port[bwl]\[0x[0-9a-f]+\] =) 0x([0-9a-f]{1,8})\s*$")


def read_register(space: Literal["memory", "io"], address: int, size: int) -> str:
    """The command that reads a register of 1, 2 or 4 bytes."""
    return f"{_COMMANDS[space]} /1x{_SIZES[size]} {address:#x}"


def parse_register(reply: object) -> int:
    """The register's value.

    :param reply: the ``return`` member of QEMU's answer. Of an address where nothing is it is a sentence, and no error.
    :raise ReplyError: it is no value.
    """
    match = _VALUE.match(str(reply))
    if match is None:
        raise ReplyError("xp", "return", f"a register's value is wanted, not {str(reply)[:80]!r}")
    return int(match[1], 16)
