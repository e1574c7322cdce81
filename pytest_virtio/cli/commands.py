"""What the modules of verbs share: where they declare them.

Responsible for the one name that argparse keeps to itself; must not know a verb.
"""

from __future__ import annotations

import argparse
from typing import TypeAlias

__all__ = ("Commands",)

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Each command's parser sets ``act`` by default: called with the parsed arguments, it gives the exit status."""
