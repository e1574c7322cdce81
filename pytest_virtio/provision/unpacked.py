"""A QEMU that runs from wherever its packages were unpacked, on what came with it alone: loader, libraries, modules,
firmware. It must not know where the packages come from.

What is in a directory made here::

    files/                        the packages' own files; nothing of ours, for a package may put anything anywhere
    bin/qemu-system-x86_64        a script, to be started
    libexec/qemu-system-x86_64    what it executes: the loader (ld.so) that came along, under QEMU's name
    libexec/qemu-bundle           a link to files/, see :func:`_add_bundle`

and the same for the storage daemon, where the packages have it.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pytest_virtio.errors import MissingError

from . import packages, selfcheck
from .apt import checked

__all__ = ("BINARY", "FORMAT", "STORAGE_DAEMON", "fill")

BINARY = "qemu-system-x86_64"
STORAGE_DAEMON = "qemu-storage-daemon"
FORMAT = "3"
"""Of what this module makes of packages; another number makes other entries in the cache."""

# A quarter of the size or more, of use to those who read or look at a window; qemu-system-i386 is a second QEMU.
_UNNEEDED = (
    *(f"usr/share/{name}" for name in ("doc", "man", "info", "locale", "icons", "fonts", "perl", "iso-codes")),
    *("usr/bin/qemu-system-i386", "usr/lib/systemd", "usr/lib/udev"),
)

_START_SECONDS = 60


def fill(
    directory: Path, final: Path, found: Iterable[packages.Package], progress: Callable[[str], None], *, whole: bool
) -> None:
    """Unpack the packages into the directory and make QEMU run from there.

    :param directory: empty.
    :param final: where the directory will be moved to.
    :param found: QEMU and everything that it can't be without, down to the C library.
    :param whole: whether all its modules are among them; Debian's qemu-system-x86 alone has a virtio-gpu-gl-pci without
        virtio-gpu-gl-device, which ends QEMU 7.2 when it is asked for its properties.
    :raise MissingError: there is no QEMU among them, or it does not run, or not on its own files alone.
    """
    progress("unpacking QEMU into the cache")
    files = directory / "files"
    packages.unpack(found, files)
    _remove_unneeded(files)
    _need(files / "usr" / "bin" / BINARY)
    programs = [name for name in (BINARY, STORAGE_DAEMON) if (files / "usr" / "bin" / name).is_file()]
    _add_bundle(directory, programs)
    progress("starting it once, to see that it runs on files of its own alone")
    _write_scripts(directory, directory, programs)
    selfcheck.check(directory / "bin" / BINARY, directory, whole=whole)
    for name in programs[1:]:
        checked([str(directory / "bin" / name), "--version"], _START_SECONDS)
    _write_scripts(directory, final, programs)


def _remove_unneeded(files: Path) -> None:
    for name in _UNNEEDED:
        path = files / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _need(path: Path) -> None:
    if not path.is_file():
        raise MissingError(f"the packages hold no {path.name}: install QEMU and name it by --virtio-qemu")


def _add_bundle(directory: Path, programs: Iterable[str]) -> None:
    """Let the programs find everything below ``files``.

    Since cf60ccc330 ("cutils: Introduce bundle mechanism", in 7.1) a ``qemu-bundle`` beside the program that runs
    (``/proc/self/exe``: the loader, here) stands in front of every path that QEMU was built with. Without it a module
    that is not in ``QEMU_MODULE_DIR`` would be looked for in the system's directory; if another build's is there, QEMU
    aborts.
    """
    libexec = directory / "libexec"
    libexec.mkdir()
    for name in programs:
        (libexec / name).hardlink_to(_loader(directory / "files"))
    (libexec / "qemu-bundle").symlink_to("../files")


def _loader(files: Path) -> Path:
    loaders = (path for path in files.glob("**/ld-linux-x86-64.so.2") if not path.is_symlink())
    found = next(loaders, None)
    if found is None:
        raise MissingError("the packages hold no ld-linux-x86-64.so.2: only QEMUs for x86-64 hosts can be fetched")
    return found


def _write_scripts(directory: Path, final: Path, programs: Iterable[str]) -> None:
    for name in programs:
        script = directory / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text("".join(f"{line}\n" for line in _script(directory / "files", final, name)))
        script.chmod(0o755)


def _script(files: Path, final: Path, name: str) -> Iterator[str]:
    """``--library-path`` holds for this program alone; what QEMU starts is the machine's, with its libraries."""
    libraries = ":".join(str(final / "files" / path) for path in _library_directories(files))
    yield "#!/bin/sh"
    yield "# Made by pytest-virtio: QEMU as unpacked from Debian's or Ubuntu's packages, with all that it needs."
    yield "unset LD_LIBRARY_PATH QEMU_MODULE_DIR"
    loader = [str(final / "libexec" / name), "--inhibit-cache", "--library-path", libraries]
    yield f'exec {shlex.join([*loader, str(final / "files" / "usr" / "bin" / name)])} "$@"'


def _library_directories(files: Path) -> list[Path]:
    """Directories with shared libraries, relative: the usual ones, and those below them (``pulseaudio`` holds
    ``libpulsecommon-17.0.so``). ``lib`` is a link to ``usr/lib`` from trixie on."""
    real = files.resolve()
    usual = {path.resolve(): None for top in ("lib", "usr/lib") for path in files.glob(f"{top}/*-linux-gnu")}
    below = [path for top in usual for path in sorted(top.iterdir()) if path.is_dir() and any(path.glob("lib*.so*"))]
    return [path.relative_to(real) for path in (*usual, *below)]
