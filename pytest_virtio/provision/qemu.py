"""A QEMU from the distribution: where it is, and how to get one with root's rights or without. It must not know what
QEMU is started for, and starts none."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_virtio.errors import MissingError

from . import cache, packages

__all__ = ("find_qemu", "install_qemu")

_PACKAGE = "qemu-system-x86"
_BINARY = "qemu-system-x86_64"
_INSTALL_SECONDS = 1800

# Where Debian's and Ubuntu's packages put firmware and option ROMs (seabios, ipxe-qemu, qemu-system-data).
_DATA = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")


def find_qemu(name: str = _BINARY) -> Path | None:
    """The QEMU that is in PATH, else the one in the cache, else None."""
    installed = shutil.which(name)
    if installed:
        return Path(installed)
    cached = [path for path in (cache.root() / "qemu").glob(f"*/bin/{name}") if os.access(path, os.X_OK)]
    return max(cached, key=lambda path: path.stat().st_mtime, default=None)


def install_qemu(
    progress: Callable[[str], None], as_root: bool | None = None, installed: Path = packages.INSTALLED
) -> Path:
    """Get the distribution's QEMU, with root's rights into the system, without them into the cache.

    :param as_root: whether to install it into the system; by default whoever is root does.
    :param installed: dpkg's record of what the system has, and the cache therefore need not get.
    :raise MissingError: it can't be got; the message says what to do.
    """
    packages.require_apt("QEMU")
    if os.geteuid() == 0 if as_root is None else as_root:
        return _install(progress)
    found = packages.download_closure([_PACKAGE], progress, installed)
    key = cache.digest(*(f"{package.name} {package.version}" for package in found))
    return cache.entry("qemu", key, lambda directory: _unpack(found, directory, key, progress)) / "bin" / _BINARY


def _install(progress: Callable[[str], None]) -> Path:
    progress(f"apt-get install {_PACKAGE}")
    packages.checked(("apt-get", "update", "-q"), _INSTALL_SECONDS)
    packages.checked(("apt-get", "install", "-q", "-y", "--no-install-recommends", _PACKAGE), _INSTALL_SECONDS)
    found = find_qemu()
    if found is None:
        raise MissingError(f"apt-get installed {_PACKAGE}, but there is no {_BINARY} in PATH: name it by --virtio-qemu")
    return found


def _unpack(found: Iterable[packages.Package], directory: Path, key: str, progress: Callable[[str], None]) -> None:
    progress("unpacking QEMU into the cache")
    packages.unpack(found, directory)
    if not (directory / "usr" / "bin" / _BINARY).is_file():
        raise MissingError(f"the package {_PACKAGE} holds no {_BINARY}: install QEMU and name it by --virtio-qemu")
    wrapper = directory / "bin" / _BINARY
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text(_wrapper(directory, cache.root() / "qemu" / key))
    wrapper.chmod(0o755)


def _wrapper(unpacked: Path, final: Path) -> str:
    """A script that starts QEMU from where it will be, with the libraries, modules and firmware that came with it."""
    libraries = ":".join(str(final / path) for path in _library_directories(unpacked))
    modules = next((final / path.relative_to(unpacked) for path in unpacked.glob("usr/lib/*-linux-gnu/qemu")), None)
    data = [word for name in _DATA if (unpacked / name).is_dir() for word in ("-L", str(final / name))]
    command = shlex.join([*_loader(unpacked, final, libraries), str(final / "usr" / "bin" / _BINARY), *data])
    return "\n".join(
        (
            "#!/bin/sh",
            "# Made by pytest-virtio: QEMU as unpacked from the distribution's packages.",
            f"LD_LIBRARY_PATH={shlex.quote(libraries)}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}",
            *([f"QEMU_MODULE_DIR={shlex.quote(str(modules))}", "export QEMU_MODULE_DIR"] if modules else []),
            "export LD_LIBRARY_PATH",
            f'exec {command} "$@"',
            "",
        )
    )


def _loader(unpacked: Path, final: Path, libraries: str) -> list[str]:
    """The loader that fits the C library, if one came along: the system's own would refuse another version's."""
    found = next(unpacked.glob("**/ld-linux-x86-64.so.2"), None)
    return [str(final / found.relative_to(unpacked)), "--library-path", libraries] if found else []


def _library_directories(unpacked: Path) -> list[Path]:
    """Directories with shared libraries, relative: the usual ones, and those below them (Debian has
    ``…/pulseaudio``)."""
    usual = [*unpacked.glob("lib/*-linux-gnu"), *unpacked.glob("usr/lib/*-linux-gnu")]
    below = [path for top in usual for path in sorted(top.iterdir()) if path.is_dir() and any(path.glob("lib*.so.*"))]
    return [path.relative_to(unpacked) for path in (*usual, *below)]
