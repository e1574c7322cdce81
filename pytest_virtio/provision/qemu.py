"""A QEMU by its name: where it is, and how to get the distribution's with root's rights or without. It must not know
what QEMU is started for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pytest_virtio.errors import MissingError

from . import cache, packages, releases, unpacked
from .apt import require_apt
from .install import install
from .unpacked import BINARY

__all__ = ("find_qemu", "install_qemu")

_PACKAGE = "qemu-system-x86"


def find_qemu(name: str = BINARY) -> Path | None:
    """The QEMU of this name: a release that was built (``qemu-10.0``), else the one in PATH, else the one in the cache,
    else None.

    :raise MissingError: it is the name of a release that is not built, nor is there a program of this name.
    """
    is_release = name != BINARY and name in releases.names()
    build = releases.find_release(name) if is_release else None
    if build:
        return build.program
    installed = shutil.which(name)
    if installed:
        return Path(installed)
    if is_release:
        raise MissingError(f"{name} is not built yet: run 'pytest-virtio image build {name}'")
    cached = [path for path in (cache.root() / "qemu").glob(f"*/bin/{name}") if os.access(path, os.X_OK)]
    return max(cached, key=lambda path: path.stat().st_mtime, default=None)


def install_qemu(progress: Callable[[str], None], as_root: bool | None = None) -> Path:
    """Get the distribution's QEMU, with root's rights into the system, without them into the cache.

    :param as_root: whether to install it into the system; by default whoever is root does.
    :raise MissingError: it can't be got; the message says what to do.
    """
    require_apt("QEMU")
    if os.geteuid() == 0 if as_root is None else as_root:
        return _install(progress)
    found = packages.download_closure([_PACKAGE], progress)
    key = cache.digest(unpacked.FORMAT, *(f"{package.name} {package.version}" for package in found))

    def fill(directory: Path) -> None:
        unpacked.fill(directory, cache.root() / "qemu" / key, found, progress, whole=False)

    return cache.entry("qemu", key, fill, progress=progress) / "bin" / BINARY


def _install(progress: Callable[[str], None]) -> Path:
    install([_PACKAGE], progress)
    found = find_qemu()
    if found is None:
        raise MissingError(f"apt-get installed {_PACKAGE}, but there is no {BINARY} in PATH: name it by --virtio-qemu")
    return found
