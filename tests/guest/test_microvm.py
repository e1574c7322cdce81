"""A Linux guest on a microvm: by its ACPI tables alone it knows which virtio-mmio devices there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio import Linux, Rng, VirtioFactory
from pytest_virtio.provision.boot import prepare
from pytest_virtio.provision.linux import root_archive

pytestmark = [pytest.mark.qemu, pytest.mark.guest]

PAGE = 4096


def test_the_initrd_leaves_the_acpi_tables_alone(virtio_factory: VirtioFactory, tmp_path: Path) -> None:
    guest = Linux(initrd=_to_the_end_of_ram(tmp_path))
    with virtio_factory(*(Rng() for _ in range(9)), transport="mmio", guest=guest) as virtio:
        assert all(device.status().driver_ok for device in virtio)


def _to_the_end_of_ram(directory: Path) -> Path:
    """An initrd that has, with our agent behind it, its last 4 bytes in the last of RAM: QEMU aligns only its start."""
    initrd = directory / "initrd"
    initrd.write_bytes(root_archive())
    size = prepare(directory, [], initrd=initrd).initramfs.stat().st_size
    initrd.write_bytes(root_archive() + bytes((PAGE - 4 - size) % PAGE))
    return initrd
