"""virtio over PCI, the modern interface: capabilities and the common configuration (virtio 1.3 section 4.1).

Responsible for its registers; must not know the order in which a driver writes them.
"""

from __future__ import annotations

from typing import Literal

from pytest_virtio.bus.msix import Msix
from pytest_virtio.bus.pci import Bar, Function
from pytest_virtio.bus.registers import Window
from pytest_virtio.bus.transport import Message
from pytest_virtio.errors import DriverError
from pytest_virtio.spec.ring import Areas
from pytest_virtio.spec.transport.pci import Capability, CapabilityType, Common, MsixCapability
from pytest_virtio.spec.transport.register import Register
from pytest_virtio.vm.qtest import Qtest, Read, Write

__all__ = ("ModernPci",)

_NEEDED = (CapabilityType.COMMON_CFG, CapabilityType.NOTIFY_CFG, CapabilityType.ISR_CFG)
_ISR = Register("ISR status", 0, 1)
_FEATURE_WORDS = 4


class ModernPci:
    """A virtio PCI device by its modern interface."""

    legacy = False
    order: Literal["little", "big"] = "little"

    def __init__(
        self,
        wire: Qtest,
        function: Function,
        device_id: int,
        bars: dict[int, Bar],
        capabilities: dict[int, Capability],
        msix: tuple[int, MsixCapability] | None,
        line: int | None,
    ) -> None:
        """Find the windows.

        :raises DriverError: when a capability that every device has is missing, or points nowhere.
        """
        self.title = f"virtio-pci (modern) at {function.address}"
        self.device_id, self.line, self.controller = device_id, line, "ioapic"
        missing = [type.name for type in _NEEDED if type not in capabilities]
        if missing:
            raise DriverError(f"{self.title}: no {missing[0]} capability", step="finding the registers")
        self._wire = wire
        self._common = self._window(capabilities[CapabilityType.COMMON_CFG], bars, "common configuration")
        self._isr = self._window(capabilities[CapabilityType.ISR_CFG], bars, "ISR status")
        self._notify = self._window(capabilities[CapabilityType.NOTIFY_CFG], bars, "notification")
        self._multiplier = capabilities[CapabilityType.NOTIFY_CFG].notify_off_multiplier
        # Absent where a device has no configuration (4.1.4.6).
        config = capabilities.get(CapabilityType.DEVICE_CFG)
        title = "device configuration"
        self._config = self._window(config, bars, title) if config else Window(wire, "memory", 0, 0, title)
        self._msix = Msix(wire, function, msix, bars)
        self.vectors = self._msix.vectors
        self._notify_registers: dict[int, Register] = {}
        self.status_register = self._common.name(Common.DEVICE_STATUS)
        self.features_register = self._common.name(Common.DRIVER_FEATURE)
        self.queue_register = self._common.name(Common.QUEUE_SIZE)

    def _window(self, capability: Capability, bars: dict[int, Bar], title: str) -> Window:
        bar = bars.get(capability.bar)
        if bar is None or bar.space != "memory" or capability.offset_in_bar + capability.length > bar.size:
            raise DriverError(
                f"{self.title}: the capability of the {title} points nowhere",
                step="finding the registers",
                seen=f"{capability.length} bytes at {capability.offset_in_bar:#x} in BAR {capability.bar} ({bar})",
            )
        return Window(self._wire, "memory", bar.address + capability.offset_in_bar, capability.length, title)

    def status(self) -> int:
        """Read the device status."""
        return self._common.get(Common.DEVICE_STATUS)

    def set_status(self, value: int) -> None:
        """Write the device status."""
        self._common.put(Common.DEVICE_STATUS, value)

    def device_features(self) -> int:
        """Read 128 bits of what the device offers; QEMU before 10.2 reads 0 for the upper 64."""
        operations: list[Read | Write] = []
        for word in range(_FEATURE_WORDS):
            operations.append(self._common.writing(Common.DEVICE_FEATURE_SELECT, word))
            operations.append(self._common.reading(Common.DEVICE_FEATURE))
        return sum(value << 32 * word for word, value in enumerate(self._common.exchange(operations)))

    def deselect(self) -> None:
        """Leave the selectors as they are after a reset."""
        for register in (Common.DEVICE_FEATURE_SELECT, Common.DRIVER_FEATURE_SELECT, Common.QUEUE_SELECT):
            self._common.put(register, 0)

    def set_driver_features(self, bits: int) -> None:
        """Write what the driver accepts; the upper words only where there are bits in them."""
        for word in range(max(2, -(-bits.bit_length() // 32))):
            self._common.put(Common.DRIVER_FEATURE_SELECT, word)
            self._common.put(Common.DRIVER_FEATURE, bits >> 32 * word & 0xFFFFFFFF)

    def read_config(self, offset: int, length: int) -> bytes:
        """Read of the device's configuration; what lies beyond its end is not there, so it may be shorter."""
        return self._config.read_bytes(offset, length)

    def write_config(self, offset: int, data: bytes) -> None:
        """Write to the device's configuration."""
        self._config.write_bytes(offset, data)

    def config_generation(self) -> int:
        """Read the configuration's counter."""
        return self._common.get(Common.CONFIG_GENERATION)

    def queue_sizes(self) -> list[int]:
        """Read every queue's largest size, and where each is notified."""
        count = self._common.get(Common.NUM_QUEUES)
        operations: list[Read | Write] = []
        for index in range(count):
            operations.append(self._common.writing(Common.QUEUE_SELECT, index))
            operations.append(self._common.reading(Common.QUEUE_SIZE))
            operations.append(self._common.reading(Common.QUEUE_NOTIFY_OFF))
        values = self._common.exchange(operations)
        self._notify_registers = {
            index: Register(f"queue {index}'s notification", offset * self._multiplier, 4)
            for index, offset in enumerate(values[1::2])
        }
        return values[::2]

    def setup_queue(self, index: int, size: int, areas: Areas) -> None:
        """Tell the device of a queue and enable it."""
        self._common.put(Common.QUEUE_SELECT, index)
        self._common.put(Common.QUEUE_SIZE, size)
        self._common.put_wide(Common.QUEUE_DESC, areas.descriptors)
        self._common.put_wide(Common.QUEUE_DRIVER, areas.driver)
        self._common.put_wide(Common.QUEUE_DEVICE, areas.device)
        self._common.put(Common.QUEUE_ENABLE, 1)

    def reset_queue(self, index: int) -> None:
        """Ask for the reset of one queue."""
        self._common.put(Common.QUEUE_SELECT, index)
        self._common.put(Common.QUEUE_RESET, 1)

    def queue_in_reset(self, index: int) -> bool:
        """Whether the reset is still under way: the register reads 1 until it is done (4.1.4.3.2)."""
        self._common.put(Common.QUEUE_SELECT, index)
        return self._common.get(Common.QUEUE_RESET) == 1

    def notify(self, index: int, data: int | None) -> None:
        """Kick a queue: 16 bits, or 32 with data (4.1.5.2)."""
        register = self._notify_registers[index]
        if data is None:
            self._notify.put(register._replace(size=2), index)
        else:
            self._notify.put(register, data << 16 | index)

    def isr(self) -> int:
        """Read and acknowledge the interrupt status."""
        return self._isr.get(_ISR)

    def set_messages(self, messages: tuple[Message, ...]) -> None:
        """Fill the MSI-X table and enable MSI-X."""
        self._msix.set_messages(messages)

    def set_config_vector(self, vector: int) -> None:
        """Map configuration changes to a vector."""
        self._common.put(Common.CONFIG_MSIX_VECTOR, vector)

    def set_queue_vector(self, index: int, vector: int) -> None:
        """Map a queue to a vector."""
        self._common.put(Common.QUEUE_SELECT, index)
        self._common.put(Common.QUEUE_MSIX_VECTOR, vector)

    def flush(self) -> None:
        """Do all posted writes."""
        self._wire.flush()

    def push(self) -> None:
        """Do all posted writes, but don't wait for a busy QEMU longer than a moment."""
        self._wire.push()
