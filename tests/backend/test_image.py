"""A user's image by its first bytes; that the overlay is one is seen by the storage daemon, which opens it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pytest_virtio.backend.image import format_of, look_at, overlay
from pytest_virtio.errors import NotSupportedError, VirtioError

from .conftest import made


@pytest.mark.parametrize("size", [512, 64 << 20, (64 << 20) + 512, 513 << 20, 5 << 40])
def test_an_overlay_says_its_size_and_counts_its_clusters(tmp_path: Path, size: int) -> None:
    file = overlay(tmp_path / "overlay", size)
    content = made(file)
    file.path.write_bytes(content)
    assert look_at(file.path, None).size == size
    assert look_at(file.path, None).format == "qcow2"
    entries = struct.unpack_from(">I", content, 36)[0]
    assert (entries - 1) * (512 << 20) < size <= entries * (512 << 20)
    table = struct.unpack_from(">Q", content, 48)[0]
    (block,) = struct.unpack_from(">Q", content, table)
    counts = struct.unpack_from(f">{len(content) // 65536 + 1}H", content + bytes(65536), block)
    assert counts == (*([1] * (len(content) // 65536)), 0)


def test_a_raw_image_has_whole_sectors(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x" * 513)
    image = look_at(path, None)
    assert (image.format, image.size, image.is_device) == ("raw", 1024, False)


def test_the_users_word_wins(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"QFI\xfb".ljust(1024, b"\0"))
    assert format_of(path) == "qcow2"
    assert look_at(path, "raw").size == 1024


def test_an_image_whose_size_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.touch()
    with pytest.raises(NotSupportedError, match=r"no overlay is made for format='vmdk' here; .*qemu-img convert"):
        look_at(path, "vmdk")


def test_an_image_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(VirtioError, match=r"image '.*/image' can't be read: No such file"):
        look_at(tmp_path / "image", None)
