"""virtio over PCI, the legacy interface: a header in the first I/O BAR (virtio 1.3 section 4.1.4.10).

Responsible for its registers; must not know the order in which a driver writes them.
"""

from __future__ import annotations

from typing import Literal

from pytest_virtio.bus.msix import Msix
from pytest_virtio.bus.pci import Bar, Function
from pytest_virtio.bus.registers import Window
from pytest_virtio.bus.transport import Message
from pytest_virtio.errors import DriverError, NotSupportedError
from pytest_virtio.spec.ring import Areas
from pytest_virtio.spec.transport.pci import LEGACY_QUEUE_ALIGN, Legacy, MsixCapability
from pytest_virtio.vm.qtest import Qtest

__all__ = ("LegacyPci",)


class LegacyPci:
    """A virtio PCI device by its legacy interface."""

    legacy = True
    order: Literal["little", "big"] = "little"

    def __init__(
        self,
        wire: Qtest,
        function: Function,
        device_id: int,
        bars: dict[int, Bar],
        msix: tuple[int, MsixCapability] | None,
        line: int | None,
    ) -> None:
        """Find the header.

        :raises DriverError: when there is none.
        """
        self.title = f"virtio-pci (legacy) at {function.address}"
        self.device_id, self.line, self.controller = device_id, line, "ioapic"
        bar = bars.get(0)
        if bar is None or bar.space != "io":
            raise DriverError(
                f"{self.title}: no legacy header", step="finding the registers", expected="I/O in BAR 0", seen=str(bar)
            )
        self._wire = wire
        self._header = Window(wire, "io", bar.address, bar.size, "legacy header")
        self._msix = Msix(wire, function, msix, bars)
        self.vectors = self._msix.vectors
        self._config_offset = Legacy.CONFIG_OFFSET_WITH_MSIX if self._msix.enabled else Legacy.CONFIG_OFFSET
        self._sizes: list[int] = []
        self.status_register = self._header.name(Legacy.DEVICE_STATUS)
        self.features_register = self._header.name(Legacy.DRIVER_FEATURES)
        self.queue_register = self._header.name(Legacy.QUEUE_SIZE)

    def status(self) -> int:
        """Read the device status."""
        return self._header.get(Legacy.DEVICE_STATUS)

    def set_status(self, value: int) -> None:
        """Write the device status."""
        self._header.put(Legacy.DEVICE_STATUS, value)

    def device_features(self) -> int:
        """Read what the device offers: 32 bits."""
        return self._header.get(Legacy.DEVICE_FEATURES)

    def deselect(self) -> None:
        """Leave the selector as it is after a reset."""
        self._header.put(Legacy.QUEUE_SELECT, 0)

    def set_driver_features(self, bits: int) -> None:
        """Write what the driver accepts; bits from 32 up have no place here and are left out."""
        self._header.put(Legacy.DRIVER_FEATURES, bits & 0xFFFFFFFF)

    def read_config(self, offset: int, length: int) -> bytes:
        """Read of the device's configuration, which follows the header."""
        return self._header.read_bytes(self._config_offset + offset, length)

    def write_config(self, offset: int, data: bytes) -> None:
        """Write to the device's configuration."""
        self._header.write_bytes(self._config_offset + offset, data)

    def config_generation(self) -> int:
        """0: there is no counter."""
        return 0

    def queue_sizes(self) -> list[int]:
        """Read every queue's size, up to the first that isn't there; legacy devices don't tell how many they are."""
        self._sizes = self._header.count_queues(Legacy.QUEUE_SELECT, Legacy.QUEUE_SIZE)
        return self._sizes

    def setup_queue(self, index: int, size: int, areas: Areas) -> None:
        """Tell the device where a queue is that :meth:`queue_sizes` has found.

        :raises NotSupportedError: for another size than the device's, which can't be told (4.1.5.1.3.1).
        """
        if size != self._sizes[index]:
            raise NotSupportedError(
                f"{self.title}: a queue of {size} entries: a legacy interface leaves the size to the device, and this "
                f"one has {self._sizes[index]}"
            )
        self._header.put(Legacy.QUEUE_SELECT, index)
        self._header.put(Legacy.QUEUE_ADDRESS, areas.descriptors // LEGACY_QUEUE_ALIGN)

    def reset_queue(self, index: int) -> None:
        """Legacy devices have no reset of one queue.

        :raises NotSupportedError: always.
        """
        raise NotSupportedError(
            f"{self.title}: a legacy interface can't reset one queue: VIRTIO_F_RING_RESET is modern"
        )

    def queue_in_reset(self, index: int) -> bool:
        """False: it can't be."""
        return False

    def notify(self, index: int, data: int | None) -> None:
        """Kick a queue."""
        self._header.put(Legacy.QUEUE_NOTIFY, index)

    def isr(self) -> int:
        """Read and acknowledge the interrupt status."""
        return self._header.get(Legacy.ISR_STATUS)

    def set_messages(self, messages: tuple[Message, ...]) -> None:
        """Fill the MSI-X table and enable MSI-X; the device's configuration moves by the two vector registers."""
        self._msix.set_messages(messages)
        self._config_offset = Legacy.CONFIG_OFFSET_WITH_MSIX

    def set_config_vector(self, vector: int) -> None:
        """Map configuration changes to a vector."""
        self._header.put(Legacy.CONFIG_VECTOR, vector)

    def set_queue_vector(self, index: int, vector: int) -> None:
        """Map a queue to a vector."""
        self._header.put(Legacy.QUEUE_SELECT, index)
        self._header.put(Legacy.QUEUE_VECTOR, vector)

    def flush(self) -> None:
        """Do all posted writes."""
        self._wire.flush()

    def push(self) -> None:
        """Do all posted writes, but don't wait for a busy QEMU longer than a moment."""
        self._wire.push()
