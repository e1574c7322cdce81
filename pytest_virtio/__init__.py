"""pytest-virtio: boot QEMU with virtio devices, and assert on what guest and device made of each other.

Responsible for the public names alone. They are loaded when first used (PEP 562), for pytest loads this package in
every run, also in those that use none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_virtio.declare.backends import Daemon, Passt, Testpmd
    from pytest_virtio.declare.devices import (
        P9,
        Balloon,
        Blk,
        Crypto,
        Declaration,
        Device,
        Gpu,
        Iommu,
        Keyboard,
        Mem,
        Mouse,
        Net,
        Pmem,
        Rng,
        Scsi,
        Serial,
        Sound,
        Tablet,
    )
    from pytest_virtio.declare.guests import Firmware, Linux, Scripted
    from pytest_virtio.declare.vhost_kernel import VhostScsi, VhostVsock
    from pytest_virtio.declare.vhost_user import (
        VhostUserBlk,
        VhostUserFs,
        VhostUserGpio,
        VhostUserGpu,
        VhostUserI2c,
        VhostUserInput,
        VhostUserNet,
        VhostUserRng,
        VhostUserScsi,
        VhostUserSound,
        VhostUserVsock,
    )
    from pytest_virtio.declare.wire import Cut, Delay, Drop, Duplicate, Rewrite, Wire
    from pytest_virtio.errors import (
        BackendError,
        BaselineError,
        CommandError,
        DeviceStalledError,
        DisturbingQueryError,
        DriverError,
        GuestError,
        GuestPanicError,
        GuestSilentError,
        GuestTimeoutError,
        MissingError,
        MonitorClosedError,
        MonitorError,
        MonitorTimeoutError,
        NeedsResetError,
        NoPendingElement,
        NotSupportedError,
        QemuExitedError,
        QueueFullError,
        ReplyError,
        RequestFailedError,
        RequestTimeoutError,
        RingError,
        UnknownNameError,
        UsageError,
        VirtioAssertionError,
        VirtioError,
    )
    from pytest_virtio.guest.scripted.driver import Driver
    from pytest_virtio.guest.scripted.drivers.balloon import BalloonDriver
    from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
    from pytest_virtio.guest.scripted.drivers.console import ConsoleDriver
    from pytest_virtio.guest.scripted.drivers.crypto import CryptoDriver
    from pytest_virtio.guest.scripted.drivers.gpu import GpuDriver
    from pytest_virtio.guest.scripted.drivers.input import InputDriver
    from pytest_virtio.guest.scripted.drivers.iommu import IommuDriver
    from pytest_virtio.guest.scripted.drivers.mem import MemDriver
    from pytest_virtio.guest.scripted.drivers.net import NetDriver
    from pytest_virtio.guest.scripted.drivers.p9 import P9Driver
    from pytest_virtio.guest.scripted.drivers.pmem import PmemDriver
    from pytest_virtio.guest.scripted.drivers.rng import RngDriver
    from pytest_virtio.guest.scripted.drivers.scsi import ScsiDriver
    from pytest_virtio.guest.scripted.drivers.sound import SoundDriver
    from pytest_virtio.guest.scripted.drivers.vsock import VsockDriver
    from pytest_virtio.guest.scripted.guest import ScriptedGuest
    from pytest_virtio.guest.scripted.queue import DriverQueue, Request
    from pytest_virtio.handle import DeviceWire, VhostBackend, Virtio, VirtioDevice, VirtioQueue, Vm
    from pytest_virtio.model.features import Features
    from pytest_virtio.model.history import History, StatusStep
    from pytest_virtio.model.negotiation import Difference, FeatureNegotiation
    from pytest_virtio.model.queue import (
        VirtioQueueElement,
        VirtioRingAvail,
        VirtioRingDesc,
        VirtioRingUsed,
        VirtQueueStatus,
        VirtVhostQueueStatus,
    )
    from pytest_virtio.model.ring import Ring, RingElement
    from pytest_virtio.model.status import VhostStatus, VirtioStatus
    from pytest_virtio.model.stuck import QueueVerdict, Stuck
    from pytest_virtio.model.verdict import Stage
    from pytest_virtio.model.wire import ToldBackend, ToldQueue, WireMessage
    from pytest_virtio.plugin.factory import VirtioFactory
    from pytest_virtio.ring.driver import Buffer
    from pytest_virtio.spec.devices import (
        BalloonFeature,
        BlkFeature,
        ConsoleFeature,
        CryptoFeature,
        FsFeature,
        GpuFeature,
        IommuFeature,
        MemFeature,
        NetFeature,
        P9Feature,
        PmemFeature,
        ScsiFeature,
        SoundFeature,
        VsockFeature,
    )
    from pytest_virtio.spec.features import TransportFeature
    from pytest_virtio.spec.vhost_user import ProtocolFeature

_HOMES = {
    "declare.devices": (
        "P9", "Balloon", "Blk", "Crypto", "Declaration", "Device", "Gpu", "Iommu", "Keyboard", "Mem", "Mouse", "Net",
        "Pmem", "Rng", "Scsi", "Serial", "Sound", "Tablet",
    ),
    "declare.backends": ("Daemon", "Passt", "Testpmd"),
    "declare.vhost_kernel": ("VhostScsi", "VhostVsock"),
    "declare.vhost_user": (
        "VhostUserBlk", "VhostUserFs", "VhostUserGpio", "VhostUserGpu", "VhostUserI2c", "VhostUserInput",
        "VhostUserNet", "VhostUserRng", "VhostUserScsi", "VhostUserSound", "VhostUserVsock",
    ),
    "declare.wire": ("Cut", "Delay", "Drop", "Duplicate", "Rewrite", "Wire"),
    "declare.guests": ("Firmware", "Linux", "Scripted"),
    "errors": (
        "BackendError", "BaselineError", "CommandError", "DeviceStalledError", "DisturbingQueryError", "DriverError",
        "GuestError", "GuestPanicError", "GuestSilentError", "GuestTimeoutError", "MissingError",
        "MonitorClosedError", "MonitorError", "MonitorTimeoutError", "NeedsResetError", "NoPendingElement",
        "NotSupportedError", "QemuExitedError", "QueueFullError", "ReplyError", "RequestFailedError",
        "RequestTimeoutError", "RingError", "UnknownNameError", "UsageError", "VirtioAssertionError", "VirtioError",
    ),
    "guest.scripted.driver": ("Driver",),
    "guest.scripted.drivers.balloon": ("BalloonDriver",),
    "guest.scripted.drivers.blk": ("BlkDriver",),
    "guest.scripted.drivers.console": ("ConsoleDriver",),
    "guest.scripted.drivers.crypto": ("CryptoDriver",),
    "guest.scripted.drivers.gpu": ("GpuDriver",),
    "guest.scripted.drivers.input": ("InputDriver",),
    "guest.scripted.drivers.iommu": ("IommuDriver",),
    "guest.scripted.drivers.mem": ("MemDriver",),
    "guest.scripted.drivers.net": ("NetDriver",),
    "guest.scripted.drivers.p9": ("P9Driver",),
    "guest.scripted.drivers.pmem": ("PmemDriver",),
    "guest.scripted.drivers.rng": ("RngDriver",),
    "guest.scripted.drivers.scsi": ("ScsiDriver",),
    "guest.scripted.drivers.sound": ("SoundDriver",),
    "guest.scripted.drivers.vsock": ("VsockDriver",),
    "guest.scripted.guest": ("ScriptedGuest",),
    "guest.scripted.queue": ("DriverQueue", "Request"),
    "ring.driver": ("Buffer",),
    "handle": ("DeviceWire", "VhostBackend", "Virtio", "VirtioDevice", "VirtioQueue", "Vm"),
    "model.features": ("Features",),
    "model.history": ("History", "StatusStep"),
    "model.negotiation": ("Difference", "FeatureNegotiation"),
    "model.queue": (
        "VirtQueueStatus", "VirtVhostQueueStatus", "VirtioQueueElement", "VirtioRingAvail", "VirtioRingDesc",
        "VirtioRingUsed",
    ),
    "model.status": ("VhostStatus", "VirtioStatus"),
    "model.ring": ("Ring", "RingElement"),
    "model.stuck": ("QueueVerdict", "Stuck"),
    "model.verdict": ("Stage",),
    "model.wire": ("ToldBackend", "ToldQueue", "WireMessage"),
    "plugin.factory": ("VirtioFactory",),
    "spec.devices": (
        "BalloonFeature", "BlkFeature", "ConsoleFeature", "CryptoFeature", "FsFeature", "GpuFeature", "IommuFeature",
        "MemFeature", "NetFeature", "P9Feature", "PmemFeature", "ScsiFeature", "SoundFeature", "VsockFeature",
    ),
    "spec.features": ("TransportFeature",),
    "spec.vhost_user": ("ProtocolFeature",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = (
    # Declarations: devices, guests
    "Net",
    "Blk",
    "Rng",
    "Balloon",
    "Serial",
    "Scsi",
    "Keyboard",
    "Mouse",
    "Tablet",
    "Gpu",
    "Crypto",
    "Iommu",
    "Mem",
    "Pmem",
    "P9",
    "Sound",
    "VhostVsock",
    "VhostScsi",
    "VhostUserBlk",
    "VhostUserFs",
    "VhostUserNet",
    "VhostUserVsock",
    "VhostUserRng",
    "VhostUserInput",
    "VhostUserI2c",
    "VhostUserGpio",
    "VhostUserScsi",
    "VhostUserSound",
    "VhostUserGpu",
    "Device",
    # Who serves those over vhost-user, and the witness on the wire
    "Daemon",
    "Testpmd",
    "Passt",
    "Wire",
    "Drop",
    "Delay",
    "Duplicate",
    "Rewrite",
    "Cut",
    # The rest of a VM
    "Declaration",
    "Scripted",
    "Linux",
    "Firmware",
    # Handles, most to least important
    "Virtio",
    "VirtioDevice",
    "VirtioQueue",
    "VhostBackend",
    "DeviceWire",
    "Vm",
    "VirtioFactory",
    # Drivers of the scripted guest
    "ScriptedGuest",
    "Driver",
    "DriverQueue",
    "Request",
    "Buffer",
    "NetDriver",
    "BlkDriver",
    "RngDriver",
    "BalloonDriver",
    "ConsoleDriver",
    "ScsiDriver",
    "InputDriver",
    "GpuDriver",
    "CryptoDriver",
    "IommuDriver",
    "MemDriver",
    "PmemDriver",
    "SoundDriver",
    "P9Driver",
    "VsockDriver",
    # What they answer
    "VirtioStatus",
    "History",
    "StatusStep",
    "Stage",
    "Features",
    "FeatureNegotiation",
    "Difference",
    "VhostStatus",
    "VirtQueueStatus",
    "VirtVhostQueueStatus",
    "QueueVerdict",
    "Ring",
    "RingElement",
    "Stuck",
    "WireMessage",
    "ToldBackend",
    "ToldQueue",
    "VirtioQueueElement",
    "VirtioRingDesc",
    "VirtioRingAvail",
    "VirtioRingUsed",
    # Feature bits
    "TransportFeature",
    "NetFeature",
    "BlkFeature",
    "ConsoleFeature",
    "BalloonFeature",
    "ScsiFeature",
    "P9Feature",
    "GpuFeature",
    "VsockFeature",
    "CryptoFeature",
    "IommuFeature",
    "MemFeature",
    "SoundFeature",
    "FsFeature",
    "PmemFeature",
    "ProtocolFeature",
    # Errors, most generic to most explicit
    "VirtioError",
    "UsageError",
    "UnknownNameError",
    "NotSupportedError",
    "BaselineError",
    "MissingError",
    "ReplyError",
    "MonitorError",
    "CommandError",
    "MonitorTimeoutError",
    "MonitorClosedError",
    "QemuExitedError",
    "BackendError",
    "GuestError",
    "GuestPanicError",
    "GuestSilentError",
    "GuestTimeoutError",
    "DeviceStalledError",
    "DriverError",
    "NeedsResetError",
    "RequestTimeoutError",
    "RequestFailedError",
    "RingError",
    "QueueFullError",
    "DisturbingQueryError",
    "NoPendingElement",
    "VirtioAssertionError",
)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
