"""Sizes as people write them: ``"64M"`` or a number of bytes.

Responsible for reading them; must not know what is sized.
"""

from __future__ import annotations

import re

from pytest_virtio.errors import UsageError

__all__ = ("MIB", "Size", "parse_size")

Size = int | str

MIB = 1024 * 1024
_UNITS = {"": 1, "K": 1024, "M": MIB, "G": 1024 * MIB, "T": 1024 * 1024 * MIB}
_SIZE = re.compile(r"([0-9]{1,18})\s*(?:([KMGT])(?:i?B)?|B)?", re.IGNORECASE)


def parse_size(value: Size, what: str) -> int:
    """Bytes from an int or from digits with K, M, G or T (powers of 1024).

    :param what: the parameter, for the message.
    :raises UsageError: for anything else, zero and negative numbers included.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    size = int(match[1]) * _UNITS[(match[2] or "").upper()] if match else 0
    if size <= 0:
        raise UsageError(
            f"{what}={value!r} is not a size. Write a number of bytes above 0, or one with K, M, G or T: '64M'."
        )
    return size
