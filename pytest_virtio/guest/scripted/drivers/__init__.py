"""One driver a device type: what its requests are, in as few lines as they take.

Responsible for finding the driver of a device type; those without one of their own are driven by ``Driver`` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import cast

from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.spec import devices as spec

__all__ = ("driver_class",)

_CLASSES: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        spec.CRYPTO.id: ("crypto", "CryptoDriver"),
        spec.GPU.id: ("gpu", "GpuDriver"),
        spec.IOMMU.id: ("iommu", "IommuDriver"),
        spec.SOUND.id: ("sound", "SoundDriver"),
        spec.BLK.id: ("blk", "BlkDriver"),
        spec.INPUT.id: ("input", "InputDriver"),
        spec.NET.id: ("net", "NetDriver"),
        spec.P9.id: ("p9", "P9Driver"),
        spec.BALLOON.id: ("balloon", "BalloonDriver"),
        spec.MEM.id: ("mem", "MemDriver"),
        spec.PMEM.id: ("pmem", "PmemDriver"),
        spec.SCSI.id: ("scsi", "ScsiDriver"),
        spec.CONSOLE.id: ("console", "ConsoleDriver"),
        spec.RNG.id: ("rng", "RngDriver"),
        spec.VSOCK.id: ("vsock", "VsockDriver"),
    }
)
"""Module and class by device type; loaded when such a device is driven."""


def driver_class(device_id: int) -> type[Driver]:
    """The driver for a device type."""
    if device_id not in _CLASSES:
        return Driver
    module, name = _CLASSES[device_id]
    return cast(type[Driver], getattr(import_module(f"{__name__}.{module}"), name))
