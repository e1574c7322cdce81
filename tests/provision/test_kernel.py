"""kernel: a compressed kernel is unpacked if QEMU can start it then, and left alone otherwise."""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import subprocess

import pytest

from pytest_virtio.provision.kernel import unpacked
from pytest_virtio.provision.linux import LinuxImage

PVH_NOTE = struct.pack("<III4s", 4, 8, 18, b"Xen\0")
KERNEL = b"\x7fELF" + bytes(60) + PVH_NOTE + bytes(100)
SIZE = struct.pack("<I", len(KERNEL))


def packed_by(tool: str) -> bytes:
    if tool == "xz":
        return lzma.compress(KERNEL)
    if tool == "gzip":
        return gzip.compress(KERNEL)
    command = [tool, "-c", "-l"] if tool == "lz4" else [tool, "-c"]
    return subprocess.run(command, input=KERNEL, capture_output=True, check=True, timeout=10).stdout


def image_with(payload: bytes) -> bytes:
    header = bytearray(0x1000)
    header[0x1F1] = 1
    header[0x202:0x206] = b"HdrS"
    header[0x248:0x250] = struct.pack("<II", 0x1000 - 1024, len(payload))
    return bytes(header) + payload + b"after"


@pytest.mark.parametrize("packing", ["xz", "gzip", "lz4", "zstd"])
def test_any_packing_that_the_kernel_s_build_uses(packing: str) -> None:
    if packing in ("lz4", "zstd") and shutil.which(packing) is None:
        pytest.skip(f"no {packing} here")
    assert unpacked(image_with(packed_by(packing) + SIZE)) == KERNEL


@pytest.mark.parametrize(
    "image",
    [
        b"",
        KERNEL,
        image_with(b"unknown packing"),
        image_with(b"\xfd7zXZ\0broken"),
        image_with(b"\x1f\x8bbroken"),
        image_with(lzma.compress(b"\x7fELF without a PVH entry")),
        image_with(lzma.compress(b"no ELF" + PVH_NOTE)),
    ],
)
def test_what_can_t_be_unpacked_is_left_alone(image: bytes) -> None:
    assert unpacked(image) is None


def test_a_missing_tool_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert unpacked(image_with(b"\x28\xb5\x2f\xfd")) is None


def test_the_image_s_kernel_is_unpacked(image: LinuxImage) -> None:
    assert image.kernel.read_bytes()[:4] == b"\x7fELF"
