"""Undo the compression of a kernel for x86, so that QEMU starts it at its PVH entry: under TCG a guest takes seconds to
unpack itself. It must not know where the kernel comes from; pure but for the tools that unpack what Python can't."""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import subprocess
import zlib

__all__ = ("unpacked",)

_TOOL_SECONDS = 60
_TOOLS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x02\x21\x4c\x18": "lz4"}

# An ELF note named "Xen" of type 18, XEN_ELFNOTE_PHYS32_ENTRY: where a PVH loader starts a kernel with CONFIG_PVH.
_PVH_NOTE = re.compile(rb"\x04\0\0\0[\x04\x08]\0\0\0\x12\0\0\0Xen\0")


def unpacked(image: bytes) -> bytes | None:
    """The ELF kernel in a ``bzImage``, if QEMU can start it and this machine can unpack it; None otherwise."""
    payload = _payload(image)
    found = _decompressed(payload) if payload else None
    return found if found and found.startswith(b"\x7fELF") and _PVH_NOTE.search(found) else None


def _payload(image: bytes) -> bytes | None:
    """The compressed part, by the header of the x86 boot protocol 2.08 and newer (Documentation/arch/x86/boot.rst)."""
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS":
        return None
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    return image[start : start + length]


def _decompressed(payload: bytes) -> bytes | None:
    """The payload's content; the kernel's build appends its size, which the decompressors must pass over."""
    try:
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor().decompress(payload)
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(payload)
    except (lzma.LZMAError, zlib.error):
        return None
    tool = _TOOLS.get(payload[:4])
    return _by_tool(tool, payload) if tool and shutil.which(tool) else None


def _by_tool(tool: str, payload: bytes) -> bytes | None:
    """What the tool makes of it; that it then complains of the appended size does no harm."""
    try:
        done = subprocess.run([tool, "-dcq"], input=payload, capture_output=True, check=False, timeout=_TOOL_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout
