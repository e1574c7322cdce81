"""virtio over MMIO, version 2 and the legacy version 1 (virtio 1.3 section 4.2).

Responsible for its registers; must not know the order in which a driver writes them.
"""

from __future__ import annotations

from typing import NoReturn

from pytest_virtio.bus.registers import Window
from pytest_virtio.bus.transport import Message
from pytest_virtio.errors import DriverError, NotSupportedError
from pytest_virtio.spec.layout import ByteOrder
from pytest_virtio.spec.ring import Areas
from pytest_virtio.spec.transport.mmio import LEGACY_VERSION, MAGIC, Mmio
from pytest_virtio.vm.qtest import Qtest, Read, Write

__all__ = ("LEGACY_PAGE", "MmioDevice")

LEGACY_PAGE = 4096
"""What we choose for GuestPageSize and QueueAlign."""
_LENGTH = 0x200
"""Of registers and configuration, in QEMU."""


class MmioDevice:
    """A virtio MMIO device.

    :param native: the guest's byte order, which a legacy device's rings and configuration have.
    """

    vectors = 0

    def __init__(
        self, wire: Qtest, base: int, line: int | None, controller: str = "ioapic", native: ByteOrder = "little"
    ) -> None:
        """Look at the device.

        :raises DriverError: when there is none.
        """
        self._wire, self.base = wire, base
        # A legacy device's registers are in the guest's own order, the others' little-endian (4.2.2, 4.2.4).
        for order in (native, "little"):
            self._registers = Window(wire, "memory", base, _LENGTH, "MMIO registers", native, order)
            magic, version, self.device_id = self._registers.exchange(
                [self._registers.reading(r) for r in (Mmio.MAGIC_VALUE, Mmio.VERSION, Mmio.DEVICE_ID)]
            )
            if magic == MAGIC:
                break
        self.legacy = version == LEGACY_VERSION
        self.order: ByteOrder = native if self.legacy else "little"
        self.title = f"virtio-mmio (version {version}) at {base:#x}"
        self.line, self.controller = line, controller
        if magic != MAGIC or not self.device_id:
            raise DriverError(
                f"there is no virtio-mmio device at {base:#x}",
                step="finding the registers",
                register=self._registers.name(Mmio.MAGIC_VALUE),
                expected=f"{MAGIC:#x}, and a DeviceID",
                seen=f"{magic:#x}, DeviceID {self.device_id}",
            )
        self.status_register = self._registers.name(Mmio.STATUS)
        self.features_register = self._registers.name(Mmio.DRIVER_FEATURES)
        self.queue_register = self._registers.name(Mmio.QUEUE_SIZE_MAX)

    def status(self) -> int:
        """Read the device status."""
        return self._registers.get(Mmio.STATUS)

    def set_status(self, value: int) -> None:
        """Write the device status. A legacy device is told the page size before it hears of queues (4.2.4)."""
        self._registers.put(Mmio.STATUS, value)
        if self.legacy and not value:
            self._registers.put(Mmio.GUEST_PAGE_SIZE, LEGACY_PAGE)

    def device_features(self) -> int:
        """Read what the device offers: 64 bits, of a legacy device 32."""
        operations: list[Read | Write] = []
        for word in range(1 if self.legacy else 2):
            operations.append(self._registers.writing(Mmio.DEVICE_FEATURES_SEL, word))
            operations.append(self._registers.reading(Mmio.DEVICE_FEATURES))
        return sum(value << 32 * word for word, value in enumerate(self._registers.exchange(operations)))

    def deselect(self) -> None:
        """Leave the selectors as they are after a reset."""
        for register in (Mmio.DEVICE_FEATURES_SEL, Mmio.DRIVER_FEATURES_SEL, Mmio.QUEUE_SEL):
            self._registers.put(register, 0)

    def set_driver_features(self, bits: int) -> None:
        """Write what the driver accepts."""
        for word in range(1 if self.legacy else max(2, -(-bits.bit_length() // 32))):
            self._registers.put(Mmio.DRIVER_FEATURES_SEL, word)
            self._registers.put(Mmio.DRIVER_FEATURES, bits >> 32 * word & 0xFFFFFFFF)

    def read_config(self, offset: int, length: int) -> bytes:
        """Read of the device's configuration."""
        return self._registers.read_bytes(Mmio.CONFIG_OFFSET + offset, length)

    def write_config(self, offset: int, data: bytes) -> None:
        """Write to the device's configuration."""
        self._registers.write_bytes(Mmio.CONFIG_OFFSET + offset, data)

    def config_generation(self) -> int:
        """Read the configuration's counter; 0 of a legacy device."""
        return 0 if self.legacy else self._registers.get(Mmio.CONFIG_GENERATION)

    def queue_sizes(self) -> list[int]:
        """Read every queue's largest size, up to the first that isn't there."""
        return self._registers.count_queues(Mmio.QUEUE_SEL, Mmio.QUEUE_SIZE_MAX)

    def setup_queue(self, index: int, size: int, areas: Areas) -> None:
        """Tell the device of a queue and enable it."""
        self._registers.put(Mmio.QUEUE_SEL, index)
        self._registers.put(Mmio.QUEUE_SIZE, size)
        if self.legacy:
            self._registers.put(Mmio.QUEUE_ALIGN, LEGACY_PAGE)
            self._registers.put(Mmio.QUEUE_PFN, areas.descriptors // LEGACY_PAGE)
            return
        self._registers.put_wide(Mmio.QUEUE_DESC, areas.descriptors)
        self._registers.put_wide(Mmio.QUEUE_DRIVER, areas.driver)
        self._registers.put_wide(Mmio.QUEUE_DEVICE, areas.device)
        self._registers.put(Mmio.QUEUE_READY, 1)

    def reset_queue(self, index: int) -> None:
        """Ask for the reset of one queue."""
        self._registers.put(Mmio.QUEUE_SEL, index)
        self._registers.put(Mmio.QUEUE_RESET, 1)

    def queue_in_reset(self, index: int) -> bool:
        """Whether the reset is still under way."""
        self._registers.put(Mmio.QUEUE_SEL, index)
        return self._registers.get(Mmio.QUEUE_RESET) == 1

    def notify(self, index: int, data: int | None) -> None:
        """Kick a queue."""
        self._registers.put(Mmio.QUEUE_NOTIFY, (data or 0) << 16 | index)

    def isr(self) -> int:
        """Read the interrupt status and acknowledge what it shows."""
        pending = self._registers.get(Mmio.INTERRUPT_STATUS)
        self._registers.put(Mmio.INTERRUPT_ACK, pending)
        return pending

    def set_messages(self, messages: tuple[Message, ...]) -> NoReturn:
        """virtio-mmio has no MSI-X.

        :raises NotSupportedError: always.
        """
        raise NotSupportedError(f"{self.title}: virtio-mmio has no MSI-X")

    def set_config_vector(self, vector: int) -> NoReturn:
        """virtio-mmio has no MSI-X.

        :raises NotSupportedError: always.
        """
        self.set_messages(())

    def set_queue_vector(self, index: int, vector: int) -> NoReturn:
        """virtio-mmio has no MSI-X.

        :raises NotSupportedError: always.
        """
        self.set_messages(())

    def flush(self) -> None:
        """Do all posted writes."""
        self._wire.flush()

    def push(self) -> None:
        """Do all posted writes, but don't wait for a busy QEMU longer than a moment."""
        self._wire.push()
