"""What the modules of verbs share: where they declare them, and how they colour what they print.

Responsible for the one name that argparse keeps to itself and for when there is colour; must not know a verb.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TypeAlias

__all__ = ("Commands", "coloured")

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Each command's parser sets ``act`` by default: called with the parsed arguments, it gives the exit status."""


def coloured(text: str, colour: int) -> str:
    """Colour a text if stdout is a terminal and ``NO_COLOR`` is not set.

    :param colour: an SGR code of ECMA-48: 31 is red, 32 green, 33 yellow.
    """
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"
