"""The two ways to PCI configuration space: ports, which every PC has, and memory, which q35 has (ECAM).

Responsible for turning a function's register into operations of the wire; must not know any one register. A function's
whole space takes one command by memory, and 128 by ports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pytest_virtio.spec.transport.register import Register
from pytest_virtio.vm.qtest import Qtest, Read, Write

__all__ = ("ConfigSpace", "MemoryAccess", "PciAddress", "PortAccess")

CONFIG_ADDRESS, CONFIG_DATA = 0xCF8, 0xCFC


class PciAddress(NamedTuple):
    """Bus, slot and function number."""

    bus: int
    slot: int
    function: int

    def __str__(self) -> str:
        """``00:01.0``"""
        return f"{self.bus:02x}:{self.slot:02x}.{self.function}"


class ConfigSpace(Protocol):
    """A way to configuration space."""

    def read(self, address: PciAddress, offset: int, length: int) -> bytes:
        """Read a stretch, both numbers multiples of 4."""

    def writing(self, address: PciAddress, register: Register, value: int) -> Sequence[Write]:
        """The operations that write a register."""


class PortAccess:
    """Configuration mechanism #1 (PCI 3.0 section 3.2.2.3.2)."""

    def __init__(self, wire: Qtest) -> None:
        self._wire = wire

    def read(self, address: PciAddress, offset: int, length: int) -> bytes:
        """Read a stretch, word by word."""
        places = range(offset, offset + length, 4)
        operations = [operation for place in places for operation in self.reading(address, place)]
        return b"".join(value.to_bytes(4, "little") for value in self._wire.exchange(operations))

    @staticmethod
    def reading(address: PciAddress, offset: int) -> tuple[Write, Read]:
        """The operations that read a word of 4 bytes."""
        return _select(address, offset), Read("io", CONFIG_DATA, 4)

    def writing(self, address: PciAddress, register: Register, value: int) -> Sequence[Write]:
        """Select the word, write the register's part of it."""
        data = Write("io", CONFIG_DATA + register.offset % 4, register.size, value)
        return _select(address, register.offset), data


class MemoryAccess:
    """Enhanced configuration access (PCI Express 4.0 section 7.2.2): 1 MiB of memory for each bus from ``base`` on."""

    def __init__(self, wire: Qtest, base: int) -> None:
        self._wire, self._base = wire, base

    def read(self, address: PciAddress, offset: int, length: int) -> bytes:
        """Read a stretch at once."""
        return self._wire.read_block(self._place(address) + offset, length)

    def reading(self, address: PciAddress, offset: int) -> Read:
        """The operation that reads a word of 4 bytes."""
        return Read("memory", self._place(address) + offset, 4)

    def writing(self, address: PciAddress, register: Register, value: int) -> Sequence[Write]:
        """Write the register."""
        return (Write("memory", self._place(address) + register.offset, register.size, value),)

    def _place(self, address: PciAddress) -> int:
        return self._base + (address.bus << 20 | address.slot << 15 | address.function << 12)


def _select(address: PciAddress, offset: int) -> Write:
    place = address.bus << 16 | address.slot << 11 | address.function << 8 | offset & 0xFC
    return Write("io", CONFIG_ADDRESS, 4, 1 << 31 | place)
