"""Where a daemon's program is.

Responsible for looking in the usual places and for saying what is missing and what has it; must not know arguments.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pytest_virtio.errors import MissingError

__all__ = ("program",)


def program(name: str, id: str, places: Iterable[Path], packages: str) -> Path:
    """The first of the places that is a program, else what PATH has.

    :param id: the device that needs it.
    :param packages: what to install, in words.
    :raises MissingError: when there is none.
    """
    tried = list(places)
    found = next((path for path in tried if path.is_file() and os.access(path, os.X_OK)), None)
    if found is None and (installed := shutil.which(name)):
        found = Path(installed)
    if found is None:
        where = "".join(f" {path}," for path in tried)
        raise MissingError(
            f"{id} needs {name}, which is not in PATH{' nor' if where else ''}{where.rstrip(',')}: install {packages}, "
            "or skip such tests by --virtio-missing=skip"
        )
    return found
