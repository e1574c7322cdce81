"""Firmware as the guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio import (
    Blk,
    DeviceStalledError,
    Firmware,
    Net,
    NotSupportedError,
    QemuExitedError,
    Rng,
    Scsi,
    UsageError,
    VirtioFactory,
)

pytestmark = pytest.mark.qemu


def test_seabios_and_ipxe_drive_what_they_boot_from(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), Net(), Rng(), guest="firmware") as virtio:
        assert virtio["blk0"].status().guest_features >= {"VERSION_1", "SEG_MAX"}
        assert not virtio["rng0"].status().driver_ok
        with pytest.raises(NotSupportedError, match="firmware has no shell; guest='linux' has"):
            virtio.guest.run("ls")
        with pytest.raises(NotSupportedError, match="firmware does not tell which devices it sees"):
            _ = virtio.guest.devices


def test_scsi(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Scsi(), guest="firmware") as virtio:
        virtio["scsi0"].assert_driver_ok()


def test_what_it_should_drive_and_does_not(virtio_factory: VirtioFactory) -> None:
    strict = Firmware(drives=frozenset({"rng"}))
    with pytest.raises(DeviceStalledError, match="rng0 stands at"), virtio_factory(Rng(), guest=strict, timeout=3):
        pass


def test_a_firmware_that_is_not_there(virtio_factory: VirtioFactory) -> None:
    missing = Firmware(bios="/nonexistent/bios")
    with pytest.raises(UsageError, match="/nonexistent/bios"), virtio_factory(Blk(), guest=missing):
        pass


def test_a_firmware_that_is_none(virtio_factory: VirtioFactory, tmp_path: Path) -> None:
    (tmp_path / "bios").write_bytes(b"not of a size that QEMU takes")
    broken = Firmware(bios=tmp_path / "bios")
    with pytest.raises(QemuExitedError, match="bios"), virtio_factory(Blk(), guest=broken):
        pass
