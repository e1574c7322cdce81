"""Where guest RAM lies.

Responsible for the fields and for finding a place in them; it must not know how they are asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ("RamPiece", "offset_of")


class RamPiece(NamedTuple):
    """A piece of guest RAM: ``size`` bytes at guest-physical ``address``, which stand at ``offset`` of what they are
    read from: of the RAM block ``block``, or of the file that has it.
    """

    address: int
    size: int
    offset: int
    block: str


def offset_of(pieces: Iterable[RamPiece], address: int, length: int) -> int | None:
    """Where ``length`` bytes from guest-physical ``address`` stand; None when they are not all in one piece."""
    for piece in pieces:
        if piece.address <= address and 0 <= length <= piece.address + piece.size - address:
            return piece.offset + address - piece.address
    return None
