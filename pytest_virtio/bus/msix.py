"""MSI-X of one PCI function: vectors that write a message into guest RAM, where the test reads them.

Responsible for the table and its capability; must not know what a vector stands for.
"""

from __future__ import annotations

from pytest_virtio.bus.pci import Bar, Function
from pytest_virtio.bus.registers import Window
from pytest_virtio.bus.transport import Message
from pytest_virtio.errors import DriverError, NotSupportedError
from pytest_virtio.spec.transport.pci import MsixCapability, MsixControl, MsixEntry
from pytest_virtio.spec.transport.register import Register
from pytest_virtio.vm.qtest import Qtest

__all__ = ("Msix",)


class Msix:
    """The MSI-X capability of a function and its table; ``vectors`` is 0 if it has none.

    :raises DriverError: when it has one whose table is nowhere.
    """

    def __init__(
        self, wire: Qtest, function: Function, found: tuple[int, MsixCapability] | None, bars: dict[int, Bar]
    ) -> None:
        self._function = function
        self.vectors = 0
        self.enabled = False
        """Whether it was when this was made."""
        self._place, self._table = 0, Window(wire, "memory", 0, 0, "MSI-X table")
        if found is not None:
            self._place, capability = found
            self.vectors = capability.vectors
            self.enabled = bool(capability.control & MsixControl.ENABLE)
            self._table = self._found(wire, capability, bars)

    def _found(self, wire: Qtest, capability: MsixCapability, bars: dict[int, Bar]) -> Window:
        number, offset = capability.table_place
        length, bar = self.vectors * MsixEntry.size(), bars.get(number)
        if bar is None or bar.space != "memory" or offset + length > bar.size:
            raise DriverError(
                f"the MSI-X table of the function at {self._function.address} is nowhere",
                step="finding the registers",
                seen=f"{self.vectors} vectors at {offset:#x} in BAR {number} ({bar})",
            )
        return Window(wire, "memory", bar.address + offset, length, "MSI-X table")

    def set_messages(self, messages: tuple[Message, ...]) -> None:
        """Fill the table from its beginning, and enable MSI-X.

        :raises NotSupportedError: when the function has fewer vectors.
        """
        if len(messages) > self.vectors:
            raise NotSupportedError(
                f"{len(messages)} MSI-X vectors: the function at {self._function.address} has {self.vectors}"
            )
        entries = [MsixEntry(to & 0xFFFFFFFF, to >> 32, data, 0).pack() for to, data in messages]
        self._table.write_block(b"".join(entries))
        self._function.put(Register("MSI-X control", self._place + 2, 2), MsixControl.ENABLE)
