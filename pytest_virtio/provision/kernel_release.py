"""Which Linux a kernel file is, by its own word.

Responsible for finding the release in the files that QEMU boots; it must not know where they come from.
"""

from __future__ import annotations

import functools
import mmap
import re
import struct
from pathlib import Path

__all__ = ("kernel_release",)

_HEADER = 0x260
_LONGEST = 80
# linux_banner (init/version.c). What else in a kernel begins so is a format, without a release in it.
_BANNER = re.compile(rb"Linux version ([0-9][!-~]{0,79}) \(")


def kernel_release(path: Path) -> str:
    """The release of a ``bzImage`` or an ELF kernel, as ``uname -r`` has it; "" of a file that doesn't tell."""
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError):
        # It may be gone meanwhile; an empty file can't be mapped.
        return ""


@functools.lru_cache
def _read(path: Path, _: int) -> str:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        return _of_bzimage(image) if image[0x202:0x206] == b"HdrS" else _of_elf(image)


def _of_bzimage(image: mmap.mmap) -> str:
    """By ``kernel_version`` of the x86 boot protocol (Documentation/arch/x86/boot.rst), where the text is, less 512."""
    if len(image) < _HEADER:
        return ""
    (offset,) = struct.unpack_from("<H", image, 0x20E)
    text = image[offset + 512 : offset + 512 + _LONGEST] if offset else b""
    found = re.match(rb"[!-~]+", text)
    return found[0].decode() if found else ""


def _of_elf(image: mmap.mmap) -> str:
    found = _BANNER.search(image) if image[:4] == b"\x7fELF" else None
    return found[1].decode() if found else ""
