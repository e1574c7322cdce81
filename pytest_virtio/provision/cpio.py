"""Write cpio archives of the ``newc`` kind, as the Linux kernel unpacks them for an initramfs; pure, entries in and
bytes out. It must not know what the entries are for, and it opens no file."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ("Entry", "archive", "character", "directory", "pad", "regular", "symlink")

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of an archive. Use the functions below to make one.

    :param name: path in the archive, without a leading slash.
    :param mode: file type and permission bits, as ``st_mode``.
    :param content: bytes of a regular file, target of a symbolic link; empty otherwise.
    :param device: major and minor number of a device node.
    """

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str, mode: int = 0o755) -> Entry:
    """A directory; one must stand before what it contains, for the kernel makes no parents itself."""
    return Entry(name, stat.S_IFDIR | mode)


def regular(name: str, content: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(name, stat.S_IFREG | mode, content)


def symlink(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def character(name: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device node, such as 5:1 for ``dev/console``."""
    return Entry(name, stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The entries, in their order, as one archive: times and owners are 0, so equal entries give equal bytes."""
    parts: list[bytes] = []
    for inode, entry in enumerate((*entries, Entry(_TRAILER, 0)), start=1):
        parts.extend(_member(inode, entry))
    return b"".join(parts)


def pad(content: bytes, alignment: int = 4) -> bytes:
    """The content, followed by zeros up to the alignment in bytes: the kernel wants it between two archives."""
    return content + bytes(-len(content) % alignment)


def _member(inode: int, entry: Entry) -> Iterator[bytes]:
    name = entry.name.encode() + b"\0"
    yield pad(_header(inode, entry, len(name)) + name)
    yield pad(entry.content)


def _header(inode: int, entry: Entry, name_length: int) -> bytes:
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    owner = group = mtime = check = 0
    own_device = (0, 0)
    fields = (inode, entry.mode, owner, group, links, mtime, len(entry.content), *own_device, *entry.device)
    return _MAGIC + b"".join(b"%08X" % field for field in (*fields, name_length, check))
