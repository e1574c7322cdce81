"""Where guest RAM lies.

Responsible for the fields; it must not know how they are asked.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ("RamPiece",)


class RamPiece(NamedTuple):
    """A piece of guest RAM: ``size`` bytes at guest-physical ``address``, which stand at ``offset`` of the RAM file."""

    address: int
    size: int
    offset: int
