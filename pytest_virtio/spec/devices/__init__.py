"""Every device type that virtio 1.3, Linux and QEMU know, by id.

Responsible for bringing the modules of this room together; it must not hold a fact about any one type. Structures and
constants are imported from the module of their type: ``from pytest_virtio.spec.devices.blk import BlkConfig``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from pytest_virtio.errors import UnknownNameError
from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.devices.balloon import BALLOON, BalloonFeature
from pytest_virtio.spec.devices.blk import BLK, BlkFeature
from pytest_virtio.spec.devices.bluetooth import BLUETOOTH, BluetoothFeature
from pytest_virtio.spec.devices.can import CAN, CanFeature
from pytest_virtio.spec.devices.console import CONSOLE, ConsoleFeature
from pytest_virtio.spec.devices.crypto import CRYPTO, CryptoFeature
from pytest_virtio.spec.devices.featureless import FEATURELESS, RNG
from pytest_virtio.spec.devices.fs import FS, FsFeature
from pytest_virtio.spec.devices.gpio import GPIO, GpioFeature
from pytest_virtio.spec.devices.gpu import GPU, GpuFeature
from pytest_virtio.spec.devices.i2c import I2C, I2cFeature
from pytest_virtio.spec.devices.input import INPUT
from pytest_virtio.spec.devices.iommu import IOMMU, IommuFeature
from pytest_virtio.spec.devices.mem import MEM, MemFeature
from pytest_virtio.spec.devices.net import NET, NetFeature
from pytest_virtio.spec.devices.p9 import P9, P9Feature
from pytest_virtio.spec.devices.pmem import PMEM, PmemFeature
from pytest_virtio.spec.devices.rpmsg import RPMSG, RpmsgFeature
from pytest_virtio.spec.devices.rtc import RTC, RtcFeature
from pytest_virtio.spec.devices.scmi import SCMI, ScmiFeature
from pytest_virtio.spec.devices.scsi import SCSI, ScsiFeature
from pytest_virtio.spec.devices.sound import SOUND, SoundFeature
from pytest_virtio.spec.devices.vsock import VSOCK, VsockFeature

__all__ = (
    "BALLOON",
    "BLK",
    "BLUETOOTH",
    "CAN",
    "CONSOLE",
    "CRYPTO",
    "DEVICE_TYPES",
    "FS",
    "GPIO",
    "GPU",
    "I2C",
    "INPUT",
    "IOMMU",
    "MEM",
    "NET",
    "P9",
    "PMEM",
    "RNG",
    "RPMSG",
    "RTC",
    "SCMI",
    "SCSI",
    "SOUND",
    "VSOCK",
    "BalloonFeature",
    "BlkFeature",
    "BluetoothFeature",
    "CanFeature",
    "ConsoleFeature",
    "CryptoFeature",
    "DeviceType",
    "FsFeature",
    "GpioFeature",
    "GpuFeature",
    "I2cFeature",
    "IommuFeature",
    "MemFeature",
    "NetFeature",
    "P9Feature",
    "PmemFeature",
    "RpmsgFeature",
    "RtcFeature",
    "ScmiFeature",
    "ScsiFeature",
    "SoundFeature",
    "VsockFeature",
    "device_type",
    "device_type_named",
)

_WITH_MODULE = (
    *(NET, BLK, CONSOLE, BALLOON, RPMSG, SCSI, P9, GPU, RTC, INPUT, VSOCK, CRYPTO),
    *(IOMMU, MEM, SOUND, FS, PMEM, SCMI, I2C, CAN, BLUETOOTH, GPIO),
)

DEVICE_TYPES: Mapping[int, DeviceType] = MappingProxyType(
    {device.id: device for device in sorted((*_WITH_MODULE, *FEATURELESS), key=lambda device: device.id)}
)
"""Every known device type by its id, in order of ids."""


def device_type(id: int) -> DeviceType:
    """Return the device type of an id; one that nobody knows gets a generic name and no bits of its own."""
    return DEVICE_TYPES.get(id) or DeviceType(id, f"device-{id}", f"device of unknown type {id}")


def device_type_named(name: str) -> DeviceType:
    """Return the device type of a short name, as :func:`device_type` gives them: ``"net"``, ``"device-47"``.

    :raise UnknownNameError: there is none, naming near ones.
    """
    by_name = {device.name: device for device in DEVICE_TYPES.values()}
    unnamed = re.fullmatch(r"device-([1-9][0-9]{0,8})", name, re.ASCII)
    if name not in by_name and not unnamed:
        raise UnknownNameError("device type", name, by_name)
    return by_name[name] if not unnamed else device_type(int(unnamed[1]))
