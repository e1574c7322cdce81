"""HMP ``info mtree -f`` and ``gpa2hva``: their texts, turned into the model. QMP has no command that tells where RAM
lies, neither in the guest nor in QEMU.
"""

from __future__ import annotations

import re
from typing import Final

from pytest_virtio.model.memory import RamPiece

__all__ = ("HMP", "QUERY_HOST_ADDRESS", "QUERY_MEMORY_MAP", "parse_host_address", "parse_ram", "parse_regions")

HMP: Final = "human-monitor-command"
QUERY_MEMORY_MAP: Final = "info mtree -f"
QUERY_HOST_ADDRESS: Final = "gpa2hva"
"""To be followed by a guest-physical address."""

_VIEW = re.compile(r"^FlatView #", re.MULTILINE)
_SYSTEM = re.compile(r'^ AS "memory", root: system', re.MULTILINE)
_RANGE = re.compile(r"^ +([0-9a-f]+)-([0-9a-f]+) \(prio -?\d+, ram\): (\S+)(?: @([0-9a-f]+))?", re.MULTILINE)
_REGISTERS = re.compile(r"^ +([0-9a-f]+)-[0-9a-f]+ \(prio -?\d+, i/o\): (\S+)", re.MULTILINE)
_HOST_ADDRESS = re.compile(r"^Host virtual address for 0x[0-9a-f]+ \((.*)\) is 0x([0-9a-f]+)\s*$")


def parse_ram(reply: object) -> tuple[RamPiece, ...]:
    """All pieces of RAM in the guest's address space, with their places in the blocks; none where the text has none.

    ROM is left out, and so is what firmware has made read-only: no device can write a ring there.

    :param reply: the ``return`` member of QEMU's answer: text, its lines ending in CRLF.
    """
    found = (match.groups() for match in _RANGE.finditer(_system(reply)))
    return tuple(
        RamPiece(int(first, 16), int(last, 16) - int(first, 16) + 1, int(offset or "0", 16), block)
        for first, last, block, offset in found
    )


def parse_regions(reply: object) -> dict[int, str]:
    """What QEMU calls the registers in the guest's address space, by where each region begins.

    :param reply: as above.
    """
    return {int(match[1], 16): match[2] for match in _REGISTERS.finditer(_system(reply))}


def _system(reply: object) -> str:
    """The lines of the guest's address space."""
    views = _VIEW.split(str(reply).replace("\r", ""))
    return next((text for text in views if _SYSTEM.search(text)), "")


def parse_host_address(reply: object, block: str) -> int | None:
    """Where a guest-physical address is in QEMU's address space; None where it is not RAM, or that of another block.

    :param reply: the ``return`` member of QEMU's answer. Of a hole or registers it is a sentence, and no error.
    :param block: the name of the RAM block that is meant.
    """
    match = _HOST_ADDRESS.match(str(reply))
    return int(match[2], 16) if match and match[1] == block else None
