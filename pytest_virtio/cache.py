"""Where the user's cache is, and how an entry of it is made whole.

Responsible for the place and for atomicity between processes; must not know what is kept there.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

__all__ = ("ENVIRONMENT", "root", "write")

ENVIRONMENT = "PYTEST_VIRTIO_CACHE"
"""Environment variable that names another directory for the cache."""


def root() -> Path:
    """The cache directory: ``PYTEST_VIRTIO_CACHE`` or the platform's own place for caches. It may not exist yet."""
    override = os.environ.get(ENVIRONMENT)
    return Path(override) if override else platformdirs.user_cache_path("pytest-virtio")


def write(path: Path, data: bytes) -> None:
    """Write a whole file or none, also when several processes write it at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
