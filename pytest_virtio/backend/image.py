"""A user's disk image, and the disposable overlay that stands between it and the guest.

Responsible for what an image's first bytes tell and for an empty overlay's bytes (QEMU's documentation,
interop/qcow2: "The QCOW2 File Format"); must not know who opens them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_virtio.errors import NotSupportedError, VirtioError
from pytest_virtio.vm.backends import PrivateFile

__all__ = ("Image", "format_of", "look_at", "overlay")

_MAGIC = b"QFI\xfb"
_SIZE_OFFSET = 24
_SECTOR = 512

_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
_COVERED = _CLUSTER * (_CLUSTER // 8)
"""Bytes of the disk behind one entry of the first table: a cluster of 8-byte entries, each for a cluster."""
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_TABLE, _BLOCK, _FIRST_LEVEL = 1, 2, 3
"""Where things are, in clusters: the table of reference counts, its only block, the first table of the mapping."""


@dataclass(frozen=True, slots=True)
class Image:
    """A user's image.

    :param size: of the disk that it holds, in bytes, whole sectors.
    """

    path: Path
    format: str
    size: int
    is_device: bool


def format_of(path: Path) -> str:
    """``"qcow2"`` for what begins as that does, else ``"raw"``.

    :raises VirtioError: when it can't be read.
    """
    return "qcow2" if _head(path).startswith(_MAGIC) else "raw"


def look_at(path: Path, format: str | None) -> Image:
    """See what an image is.

    :param format: the user's word for it, if he has said one.
    :raises VirtioError: when it can't be read.
    :raises NotSupportedError: when the size of the disk in it can't be told.
    """
    format = format or format_of(path)
    if format not in _SIZES:
        raise NotSupportedError(
            f"image {str(path)!r}: no overlay is made for format={format!r} here; one of raw and qcow2 is: "
            "`qemu-img convert -O qcow2` makes it"
        )
    sectors = -(-_SIZES[format](path) // _SECTOR)
    return Image(path, format, sectors * _SECTOR, path.is_block_device())


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as image:
            return image.read(_SIZE_OFFSET + 8)
    except OSError as error:
        raise VirtioError(f"image {str(path)!r} can't be read: {error.strerror}") from error


def _length(path: Path) -> int:
    """Of a file or a block device."""
    with path.open("rb") as image:
        return image.seek(0, os.SEEK_END)


_SIZES: Mapping[str, Callable[[Path], int]] = {
    "raw": _length,
    "qcow2": lambda path: int.from_bytes(_head(path)[_SIZE_OFFSET:], "big"),
}


def overlay(path: Path, size: int) -> PrivateFile:
    """An empty qcow2 image of ``size`` bytes, which whoever opens it puts over another.

    ``qemu-img create`` makes the same, but is in a package of its own.
    """
    entries = max(1, -(-size // _COVERED))
    clusters = _FIRST_LEVEL + -(-entries * 8 // _CLUSTER)
    header = _HEADER.pack(
        *(_MAGIC, 3, 0, 0, _CLUSTER_BITS, size, 0),
        *(entries, _FIRST_LEVEL * _CLUSTER, _TABLE * _CLUSTER, 1, 0, 0),
        *(0, 0, 0, 4, _HEADER.size),
    )
    content = {
        0: header,
        _TABLE * _CLUSTER: struct.pack(">Q", _BLOCK * _CLUSTER),
        _BLOCK * _CLUSTER: struct.pack(">H", 1) * clusters,
    }
    return PrivateFile(path, clusters * _CLUSTER, content)
