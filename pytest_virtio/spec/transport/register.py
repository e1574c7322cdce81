"""A register: what the specification calls it, where it is and how wide.

Responsible for the shape alone; must not know any one register.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ("Register",)


class Register(NamedTuple):
    """One register within some window.

    :param name: the specification's.
    :param offset: from the window's beginning, in bytes.
    :param size: 1, 2 or 4 bytes; wider ones are written as two of 4 (virtio 1.3 section 4.1.3.1).
    """

    name: str
    offset: int
    size: int
