"""HMP ``info mtree -f``: its text, turned into the model. QMP has no command that tells where RAM lies."""

from __future__ import annotations

import re
from typing import Final

from pytest_virtio.model.memory import RamPiece

__all__ = ("HMP", "QUERY_MEMORY_MAP", "parse_ram")

HMP: Final = "human-monitor-command"
QUERY_MEMORY_MAP: Final = "info mtree -f"

_VIEW = re.compile(r"^FlatView #", re.MULTILINE)
_SYSTEM = re.compile(r'^ AS "memory", root: system', re.MULTILINE)
_RANGE = re.compile(r"^ +([0-9a-f]+)-([0-9a-f]+) \(prio -?\d+, ram\): (\S+)(?: @([0-9a-f]+))?", re.MULTILINE)


def parse_ram(reply: object, name: str) -> tuple[RamPiece, ...]:
    """The pieces of the RAM with a name in the guest's address space; none where the text has none.

    :param reply: the ``return`` member of QEMU's answer: text, its lines ending in CRLF.
    :param name: the memory backend's id.
    """
    view = next((text for text in _VIEW.split(str(reply).replace("\r", "")) if _SYSTEM.search(text)), "")
    found = (match.groups() for match in _RANGE.finditer(view))
    return tuple(
        RamPiece(int(first, 16), int(last, 16) - int(first, 16) + 1, int(offset or "0", 16))
        for first, last, called, offset in found
        if called == name
    )
