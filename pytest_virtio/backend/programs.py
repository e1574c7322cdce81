"""Where a daemon's program is.

Responsible for looking in the usual places and for saying what is missing and what has it; must not know arguments.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pytest_virtio.errors import MissingError

__all__ = ("found", "program")


def found(name: str, places: Iterable[Path]) -> Path | None:
    """The first of the places that is a program, else what PATH has, if that is any."""
    here = next((path for path in places if path.is_file() and os.access(path, os.X_OK)), None)
    installed = shutil.which(name) if here is None else None
    return Path(installed) if installed else here


def program(name: str, id: str, places: Iterable[Path], packages: str) -> Path:
    """As :func:`found`.

    :param id: the device that needs it.
    :param packages: what to install, in words.
    :raises MissingError: when there is none.
    """
    tried = list(places)
    path = found(name, tried)
    if path is None:
        where = "".join(f" {path}," for path in tried)
        raise MissingError(
            f"{id} needs {name}, which is not in PATH{' nor' if where else ''}{where.rstrip(',')}: install {packages}, "
            "or skip such tests by --virtio-missing=skip"
        )
    return path
