"""boot: what a user brings along is put together with the image, and what is wrong with it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio.errors import MissingError, UsageError
from pytest_virtio.provision import cache
from pytest_virtio.provision.boot import prepare
from pytest_virtio.provision.linux import LinuxImage, recipe, root_archive

from .conftest import elf_module


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    path = tmp_path / "src" / "my-blk.ko"
    path.parent.mkdir()
    path.write_bytes(elf_module("alias=virtio:d00000002v*", "depends=virtio,virtio_ring"))
    return path


def test_by_default_the_image_is_taken_as_it_is(tmp_path: Path, image: LinuxImage) -> None:
    boot = prepare(tmp_path, [2, 8])
    assert (boot.kernel, boot.initramfs, boot.undriven) == (image.kernel, image.initramfs, ())
    assert list(tmp_path.iterdir()) == []
    assert boot.append == f"{recipe().append} pytest_virtio.load={','.join(boot.load)}"
    assert boot.load.index("virtio_ring") < boot.load.index("virtio_pci") < boot.load.index("virtio_blk")
    assert {"virtio_mmio", "virtio_scsi", "sd_mod"} < set(boot.load)


@pytest.mark.usefixtures("image")
def test_a_device_without_a_driver_is_named(tmp_path: Path) -> None:
    assert prepare(tmp_path, [4, 23, 25]).undriven == (23, 25)


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_driver_under_development_replaces_the_other(tmp_path: Path, driver: Path, what: str) -> None:
    boot = prepare(tmp_path, [2], modules=[driver if what == "file" else driver.parent])
    assert boot.load[-1] == "my_blk"
    assert "virtio_blk" not in boot.load
    made = boot.initramfs.read_bytes()
    assert b"pytest-virtio/user-modules/my_blk.ko\0" in made
    assert b"pytest-virtio/modules/virtio_ring.ko\0" in made


@pytest.mark.usefixtures("image")
def test_a_file_is_loaded_whatever_the_devices_and_a_directory_is_not(tmp_path: Path, driver: Path) -> None:
    assert "my_blk" in prepare(tmp_path, [4], modules=[driver]).load
    assert "my_blk" not in prepare(tmp_path, [4], modules=[driver.parent]).load


@pytest.mark.usefixtures("image")
def test_a_kernel_alone_gets_no_module(tmp_path: Path, driver: Path) -> None:
    kernel = tmp_path / "bzImage"
    kernel.touch()
    boot = prepare(tmp_path, [2], kernel=kernel)
    assert (boot.kernel, boot.load, boot.undriven) == (kernel, (), (2,))
    assert b"pytest-virtio/modules" not in boot.initramfs.read_bytes()
    with pytest.raises(MissingError, match=r"my_blk depends on virtio, .*add virtio\.ko to --virtio-modules"):
        prepare(tmp_path, [2], kernel=kernel, modules=[driver])


@pytest.mark.usefixtures("image")
def test_what_is_built_into_the_user_s_kernel_is_not_missed(tmp_path: Path, driver: Path) -> None:
    kernel = tmp_path / "bzImage"
    kernel.touch()
    listed = driver.parent / "modules.builtin"
    listed.write_text("kernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio_ring.ko\n")
    assert prepare(tmp_path, [2], kernel=kernel, modules=[driver.parent]).load == ("my_blk",)


@pytest.mark.usefixtures("image")
def test_the_user_s_initrd_comes_first_and_nothing_of_ours_lies_outside_our_directory(tmp_path: Path) -> None:
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"12345")
    made = prepare(tmp_path, [], initrd=initrd).initramfs.read_bytes()
    assert made.startswith(b"12345\0\0\0" + b"070701")
    assert b"dev/console\0\0\0" in root_archive()
    assert b"dev/console\0\0\0" not in made


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize("option", ["kernel", "initrd"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, option: str) -> None:
    files = {option: tmp_path / "nowhere"}
    with pytest.raises(UsageError, match=rf"--virtio-{option}\): no such file: '.*nowhere'"):
        prepare(tmp_path, [], kernel=files.get("kernel"), initrd=files.get("initrd"))


@pytest.mark.usefixtures("image")
def test_a_command_line_that_the_kernel_would_cut_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="may have 2047"):
        prepare(tmp_path, [], append="x" * 2000)


def test_without_an_image_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path))
    with pytest.raises(MissingError, match="'pytest-virtio image build linux', or name a kernel by --virtio-kernel"):
        prepare(tmp_path, [1])
