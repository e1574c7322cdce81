"""virtio over MMIO: registers of version 2 and of the legacy version 1 (virtio 1.3 sections 4.2.2 and 4.2.4).

Responsible for names and places; must not know where a machine has its devices.
"""

from __future__ import annotations

from pytest_virtio.spec.transport.register import Register

__all__ = ("LEGACY_VERSION", "MAGIC", "Mmio")

MAGIC = 0x74726976
"""``"virt"``."""
LEGACY_VERSION = 1


class Mmio:
    """The registers; those of one version only say so."""

    MAGIC_VALUE = Register("MagicValue", 0x000, 4)
    VERSION = Register("Version", 0x004, 4)
    DEVICE_ID = Register("DeviceID", 0x008, 4)
    DEVICE_FEATURES = Register("DeviceFeatures", 0x010, 4)
    DEVICE_FEATURES_SEL = Register("DeviceFeaturesSel", 0x014, 4)
    DRIVER_FEATURES = Register("DriverFeatures", 0x020, 4)
    DRIVER_FEATURES_SEL = Register("DriverFeaturesSel", 0x024, 4)
    # Version 1.
    GUEST_PAGE_SIZE = Register("GuestPageSize", 0x028, 4)
    QUEUE_SEL = Register("QueueSel", 0x030, 4)
    QUEUE_SIZE_MAX = Register("QueueSizeMax", 0x034, 4)
    QUEUE_SIZE = Register("QueueSize", 0x038, 4)
    # Version 1.
    QUEUE_ALIGN = Register("QueueAlign", 0x03C, 4)
    # Version 1.
    QUEUE_PFN = Register("QueuePFN", 0x040, 4)
    QUEUE_READY = Register("QueueReady", 0x044, 4)
    QUEUE_NOTIFY = Register("QueueNotify", 0x050, 4)
    INTERRUPT_STATUS = Register("InterruptStatus", 0x060, 4)
    INTERRUPT_ACK = Register("InterruptACK", 0x064, 4)
    STATUS = Register("Status", 0x070, 4)
    QUEUE_DESC = Register("QueueDescLow", 0x080, 4), Register("QueueDescHigh", 0x084, 4)
    QUEUE_DRIVER = Register("QueueDriverLow", 0x090, 4), Register("QueueDriverHigh", 0x094, 4)
    QUEUE_DEVICE = Register("QueueDeviceLow", 0x0A0, 4), Register("QueueDeviceHigh", 0x0A4, 4)
    QUEUE_RESET = Register("QueueReset", 0x0C0, 4)
    CONFIG_GENERATION = Register("ConfigGeneration", 0x0FC, 4)
    CONFIG_OFFSET = 0x100
