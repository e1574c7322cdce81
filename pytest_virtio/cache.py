"""Where the user's cache is, and how an entry of it is made whole.

Responsible for the place and for atomicity between processes; must not know what is kept there.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

import platformdirs

__all__ = ("ENVIRONMENT", "recall", "remember", "root")

ENVIRONMENT = "PYTEST_VIRTIO_CACHE"
"""Environment variable that names another directory for the cache."""


def root() -> Path:
    """The cache directory: ``PYTEST_VIRTIO_CACHE`` or the platform's own place for caches. It may not exist yet."""
    override = os.environ.get(ENVIRONMENT)
    return Path(override) if override else platformdirs.user_cache_path("pytest-virtio")


def recall(path: Path) -> object:
    """What was remembered under this path; None when nothing was, or when it is no JSON any more."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def remember(path: Path, data: object) -> None:
    """Remember something of JSON's types. Where the cache can't be written it is forgotten, and found out anew."""
    with contextlib.suppress(OSError):
        _write(path, json.dumps(data).encode())


def _write(path: Path, data: bytes) -> None:
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
