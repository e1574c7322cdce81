"""The directory below which everything fetched or built is kept, and entries in it that are whole or not there at
all, with several processes at work in it. It must not know what the entries hold."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from pytest_virtio import cache as place
from pytest_virtio.cache import ENVIRONMENT
from pytest_virtio.errors import MissingError

__all__ = ("ENVIRONMENT", "digest", "entry", "lock", "root", "size_bytes", "subdirectory", "temporary")

_SOON_SECONDS = 2.0
_SAME = "which fetches or builds the same"


def root() -> Path:
    """The cache's directory, absolute; it may not exist yet."""
    return place.root().absolute()


def subdirectory(*names: str) -> Path:
    """A directory in the cache, made if it isn't there.

    :raise MissingError: it can't be made.
    """
    path = root().joinpath(*names)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MissingError(
            f"can't make {path} ({error.strerror}): set {ENVIRONMENT} to a directory of yours"
        ) from error
    return path


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A directory in the cache that is removed at the end.

    :raise MissingError: it can't be made.
    """
    with tempfile.TemporaryDirectory(dir=subdirectory("tmp")) as name:
        yield Path(name)


@contextlib.contextmanager
def lock(name: str, timeout_seconds: float = 600, progress: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock of this name among all processes that use the cache.

    :param progress: is told when another process is waited for, and which.
    :raise MissingError: another process held it all the time; the message says which.
    """
    path = subdirectory("locks") / f"{name}.lock"
    holder = path.with_suffix(".holder")
    held = filelock.FileLock(path)
    try:
        _acquire(
            held, timeout_seconds, lambda: progress and progress(f"waiting for process {_holder(holder)}, {_SAME}")
        )
        try:
            holder.write_text(str(os.getpid()))
            yield
        finally:
            held.release()
    except filelock.Timeout as error:
        raise MissingError(
            f"{path} was held for {timeout_seconds:g} s by process {_holder(holder)}, {_SAME}; wait for it to "
            "end, or end it, and try again"
        ) from error


def _acquire(held: filelock.FileLock, timeout_seconds: float, tell: Callable[[], object]) -> None:
    """Take the lock; tell if it is not free soon."""
    soon = min(_SOON_SECONDS, timeout_seconds)
    try:
        held.acquire(timeout=soon)
    except filelock.Timeout:
        tell()
        held.acquire(timeout=timeout_seconds - soon)


def entry(
    kind: str,
    key: str,
    build: Callable[[Path], None],
    timeout_seconds: float = 600,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """The entry's directory, built first if it isn't there: no other process sees it half built, or builds it at that
    time.

    :param key: name of the entry, from :func:`digest` of all that goes into it.
    :param build: fills the empty directory that it is given.
    :param progress: is told when another process is waited for.
    :raise MissingError: another process held the lock all the time.
    """
    path = root() / kind / key
    if path.is_dir():
        return path
    with lock(f"{kind}-{key}", timeout_seconds, progress):
        return path if path.is_dir() else _build(path, build)


def digest(*parts: str | bytes) -> str:
    """A name for content: 16 hexadecimal digits, other ones for other parts."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:16]


def size_bytes() -> int:
    """What the cache takes up on disk."""
    found = 0
    for directory, _, names in os.walk(root()):
        for name in names:
            with contextlib.suppress(OSError):
                found += Path(directory, name).lstat().st_size
    return found


def _build(path: Path, build: Callable[[Path], None]) -> Path:
    subdirectory(path.parent.name)
    building = Path(tempfile.mkdtemp(dir=subdirectory("tmp")))
    try:
        build(building)
        building.replace(path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return path


def _holder(path: Path) -> str:
    try:
        return path.read_text() or "(unknown)"
    except OSError:
        return "(unknown)"
