"""virtio over PCI: capabilities, the common configuration, the legacy header, MSI-X (virtio 1.3 section 4.1, PCI 3.0).

Responsible for ids, registers and bits; must not know how configuration space or a BAR is reached.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from pytest_virtio.spec.layout import U8, U16, U32, Layout
from pytest_virtio.spec.transport.register import Register

__all__ = (
    "CAPABILITY_ID",
    "CONFIG_BYTES",
    "FIRST_CAPABILITY",
    "LEGACY_QUEUE_ALIGN",
    "MSIX_ID",
    "NO_VECTOR",
    "VENDOR",
    "Capability",
    "CapabilityType",
    "Command",
    "Common",
    "Config",
    "IsrStatus",
    "Legacy",
    "MsixCapability",
    "MsixControl",
    "MsixEntry",
    "Status",
    "device_id",
    "parse_capabilities",
)

VENDOR = 0x1AF4
"""The vendor id of all virtio devices (4.1.2)."""
CONFIG_BYTES = 256
FIRST_CAPABILITY = 0x40
CAPABILITY_ID, MSIX_ID = 0x09, 0x11
NO_VECTOR = 0xFFFF
"""VIRTIO_MSI_NO_VECTOR: what stands in a vector register when no vector is mapped (4.1.5.1.2)."""
LEGACY_QUEUE_ALIGN = 4096
_MSIX_BAR = 7
_FIRST_MODERN, _FIRST_TRANSITIONAL, _LAST = 0x1040, 0x1000, 0x107F
_TRANSITIONAL = {0x1000: 1, 0x1001: 2, 0x1002: 5, 0x1003: 3, 0x1004: 8, 0x1005: 4, 0x1009: 9}
"""Device types by transitional PCI device id (4.1.2.1)."""


def device_id(vendor: int, device: int) -> int | None:
    """The virtio device id of a PCI function, None if it is no virtio device (4.1.2)."""
    if vendor != VENDOR or not _FIRST_TRANSITIONAL <= device <= _LAST:
        return None
    return device - _FIRST_MODERN if device > _FIRST_MODERN else _TRANSITIONAL.get(device)


class Config:
    """Registers of a function's configuration space (PCI 3.0 section 6.1)."""

    VENDOR_DEVICE = Register("Vendor and Device ID", 0x00, 4)
    COMMAND = Register("Command", 0x04, 2)
    STATUS = Register("Status", 0x06, 2)
    HEADER_TYPE = Register("Header Type", 0x0E, 1)
    BARS = tuple(Register(f"Base Address {n}", 0x10 + 4 * n, 4) for n in range(6))
    CAPABILITIES = Register("Capabilities Pointer", 0x34, 1)
    INTERRUPT_PIN = Register("Interrupt Pin", 0x3D, 1)


class Command(IntFlag):
    """Bits of the command register."""

    IO = 1
    MEMORY = 2
    MASTER = 4
    NO_INTX = 0x400


class Status(IntFlag):
    """Bits of the status register (PCI 3.0 section 6.2.3)."""

    INTX = 0x8
    """The function asserts its pin, or would if the command register did not disable that."""


class CapabilityType(IntEnum):
    """``cfg_type`` of a virtio capability (4.1.4)."""

    COMMON_CFG = 1
    NOTIFY_CFG = 2
    ISR_CFG = 3
    DEVICE_CFG = 4
    PCI_CFG = 5
    SHARED_MEMORY_CFG = 8
    VENDOR_CFG = 9


class Capability(Layout):
    """``struct virtio_pci_cap`` (4.1.4), with the multiplier that follows it in a notification capability (4.1.4.4)."""

    cap_vndr: U8
    cap_next: U8
    cap_len: U8
    cfg_type: U8
    bar: U8
    id: U8
    padding: U16
    offset_in_bar: U32
    length: U32
    notify_off_multiplier: U32


class MsixCapability(Layout):
    """The MSI-X capability (PCI 3.0 section 6.8.2)."""

    cap_id: U8
    cap_next: U8
    control: U16
    table: U32
    pending: U32

    @property
    def vectors(self) -> int:
        """How many vectors there are."""
        return (self.control & MsixControl.SIZE) + 1

    @property
    def table_place(self) -> tuple[int, int]:
        """The table's BAR number, and its offset there."""
        return self.table & _MSIX_BAR, self.table & ~_MSIX_BAR

    @property
    def pending_place(self) -> tuple[int, int]:
        """Likewise the pending bits'."""
        return self.pending & _MSIX_BAR, self.pending & ~_MSIX_BAR


class MsixControl(IntFlag):
    """Bits of ``control``."""

    SIZE = 0x7FF
    MASK_ALL = 0x4000
    ENABLE = 0x8000


class MsixEntry(Layout):
    """An entry of the MSI-X table (PCI 3.0 section 6.8.2.6): the message, and bit 0 of ``control`` masks it."""

    address_low: U32
    address_high: U32
    data: U32
    control: U32


def parse_capabilities(config: bytes) -> tuple[dict[int, Capability], tuple[int, MsixCapability] | None]:
    """The first virtio capability of each type, and the MSI-X capability with its place.

    A list that loops or leaves configuration space ends there. Capabilities with a reserved BAR are ignored (4.1.4.1).

    :param config: all of the configuration space of conventional PCI, 256 bytes.
    """
    found: dict[int, Capability] = {}
    msix: tuple[int, MsixCapability] | None = None
    place, seen = config[Config.CAPABILITIES.offset] & 0xFC, set[int]()
    while FIRST_CAPABILITY <= place < CONFIG_BYTES and place not in seen:
        seen.add(place)
        if config[place] == CAPABILITY_ID:
            capability = Capability.unpack(config[place:])
            if capability.bar < len(Config.BARS):
                found.setdefault(capability.cfg_type, capability)
        elif config[place] == MSIX_ID and msix is None:
            msix = place, MsixCapability.unpack(config[place:])
        place = config[place + 1] & 0xFC
    return found, msix


class Common:
    """``struct virtio_pci_common_cfg`` (4.1.4.3)."""

    DEVICE_FEATURE_SELECT = Register("device_feature_select", 0x00, 4)
    DEVICE_FEATURE = Register("device_feature", 0x04, 4)
    DRIVER_FEATURE_SELECT = Register("driver_feature_select", 0x08, 4)
    DRIVER_FEATURE = Register("driver_feature", 0x0C, 4)
    CONFIG_MSIX_VECTOR = Register("config_msix_vector", 0x10, 2)
    NUM_QUEUES = Register("num_queues", 0x12, 2)
    DEVICE_STATUS = Register("device_status", 0x14, 1)
    CONFIG_GENERATION = Register("config_generation", 0x15, 1)
    QUEUE_SELECT = Register("queue_select", 0x16, 2)
    QUEUE_SIZE = Register("queue_size", 0x18, 2)
    QUEUE_MSIX_VECTOR = Register("queue_msix_vector", 0x1A, 2)
    QUEUE_ENABLE = Register("queue_enable", 0x1C, 2)
    QUEUE_NOTIFY_OFF = Register("queue_notify_off", 0x1E, 2)
    QUEUE_DESC = Register("queue_desc", 0x20, 4), Register("queue_desc (high)", 0x24, 4)
    QUEUE_DRIVER = Register("queue_driver", 0x28, 4), Register("queue_driver (high)", 0x2C, 4)
    QUEUE_DEVICE = Register("queue_device", 0x30, 4), Register("queue_device (high)", 0x34, 4)
    QUEUE_RESET = Register("queue_reset", 0x3A, 2)


class Legacy:
    """The legacy header in the first I/O BAR (4.1.4.10)."""

    DEVICE_FEATURES = Register("Device Features", 0x00, 4)
    DRIVER_FEATURES = Register("Driver Features", 0x04, 4)
    QUEUE_ADDRESS = Register("Queue Address", 0x08, 4)
    QUEUE_SIZE = Register("Queue Size", 0x0C, 2)
    QUEUE_SELECT = Register("Queue Select", 0x0E, 2)
    QUEUE_NOTIFY = Register("Queue Notify", 0x10, 2)
    DEVICE_STATUS = Register("Device Status", 0x12, 1)
    ISR_STATUS = Register("ISR Status", 0x13, 1)
    CONFIG_VECTOR = Register("Configuration Vector", 0x14, 2)
    QUEUE_VECTOR = Register("Queue Vector", 0x16, 2)
    CONFIG_OFFSET = 0x14
    CONFIG_OFFSET_WITH_MSIX = 0x18


class IsrStatus(IntFlag):
    """Bits of the interrupt status (4.1.4.5, 4.2.2)."""

    QUEUE = 1
    CONFIGURATION = 2
