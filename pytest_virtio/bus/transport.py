"""What a virtio driver needs of any transport: one small interface.

Responsible for the interface alone. A new transport is a class with these methods, and an entry where devices are
found (``find``). Writes are posted: they happen before the next read, or at :meth:`Transport.flush`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from pytest_virtio.spec.layout import ByteOrder
from pytest_virtio.spec.ring import Areas

__all__ = ("Message", "Transport")


class Message(NamedTuple):
    """An MSI-X message: a write of ``data`` (32 bits) to a guest-physical address."""

    address: int
    data: int


class Transport(Protocol):
    """One virtio device on its bus."""

    title: str
    """In messages: ``"virtio-pci (modern) at 00:01.0"``."""
    device_id: int
    """The virtio device type's id."""
    legacy: bool
    """Whether this is the legacy interface (virtio 1.3 section 2.2.3): one step less, other layouts."""
    order: ByteOrder
    """Byte order of rings and configuration."""
    status_register: str
    features_register: str
    queue_register: str
    """Names of registers in messages."""
    vectors: int
    """How many MSI-X vectors there are; 0 where the transport has none."""
    line: int | None
    """The number of its interrupt line at :attr:`controller`; None if it has none."""
    controller: str
    """Which interrupt controller to intercept to see :attr:`line` (its QOM path)."""

    def status(self) -> int:
        """Read the device status."""

    def set_status(self, value: int) -> None:
        """Write the device status; 0 resets the device."""

    def device_features(self) -> int:
        """Read what the device offers, as far as the interface goes: 32, 64 or 128 bits."""

    def set_driver_features(self, bits: int) -> None:
        """Write what the driver accepts."""

    def read_config(self, offset: int, length: int) -> bytes:
        """Read of the device's configuration space; what lies beyond its end is left out."""

    def write_config(self, offset: int, data: bytes) -> None:
        """Write to the device's configuration space.

        :raises UsageError: beyond its end.
        """

    def config_generation(self) -> int:
        """Read the counter that changes with the configuration; 0 on legacy interfaces, which have none."""

    def queue_sizes(self) -> list[int]:
        """Read the largest size of each virtqueue; 0 for one that isn't there."""

    def setup_queue(self, index: int, size: int, areas: Areas) -> None:
        """Tell the device of a queue and enable it. Legacy interfaces take the descriptors' address only."""

    def reset_queue(self, index: int) -> None:
        """Ask for the reset of one queue (VIRTIO_F_RING_RESET)."""

    def queue_in_reset(self, index: int) -> bool:
        """Whether the reset that was asked for is still under way."""

    def notify(self, index: int, data: int | None) -> None:
        """Kick a queue that :meth:`queue_sizes` has found. ``data`` is what VIRTIO_F_NOTIFICATION_DATA adds in the
        upper 16 bits; None without it."""

    def isr(self) -> int:
        """Read the interrupt status, which acknowledges it (:class:`~pytest_virtio.spec.transport.pci.IsrStatus`)."""

    def set_messages(self, messages: tuple[Message, ...]) -> None:
        """Fill the MSI-X table and enable MSI-X; INTx is off then.

        :raises NotSupportedError: where there is no MSI-X.
        """

    def set_config_vector(self, vector: int) -> None:
        """Map configuration changes to an MSI-X vector."""

    def set_queue_vector(self, index: int, vector: int) -> None:
        """Map a queue to an MSI-X vector."""

    def flush(self) -> None:
        """Do all posted writes."""

    def push(self) -> None:
        """Do all posted writes, but don't wait for a busy QEMU longer than a moment."""
