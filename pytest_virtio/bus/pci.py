"""PCI as firmware sees it: configuration space, BARs, bus mastering; the legacy configuration mechanism of a PC.

Responsible for giving a function its addresses, as firmware would: nothing else runs in the VM that could; must not
know virtio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pytest_virtio.errors import UsageError
from pytest_virtio.spec.transport.pci import CONFIG_BYTES, Command, Config
from pytest_virtio.spec.transport.register import Register
from pytest_virtio.vm.qtest import Qtest, Read, Space, Write

__all__ = ("Bar", "Function", "PciAddress", "PciHost", "Range")

CONFIG_ADDRESS, CONFIG_DATA = 0xCF8, 0xCFC
_IO_BAR, _BAR_64 = 1, 4
_MEMORY_FLAGS, _IO_FLAGS = 0xF, 0x3


class PciAddress(NamedTuple):
    """Bus, slot and function number."""

    bus: int
    slot: int
    function: int

    def __str__(self) -> str:
        """``00:01.0``"""
        return f"{self.bus:02x}:{self.slot:02x}.{self.function}"


class Bar(NamedTuple):
    """A base address register: the space and where we have put it."""

    space: Space
    address: int
    size: int


class Range:
    """Addresses that are given out, each aligned to its size."""

    def __init__(self, title: str, start: int, end: int) -> None:
        self.title, self.start, self.end = title, start, end
        self._next = start

    def has(self, size: int) -> bool:
        """Whether there is room for so much."""
        return -(-self._next // size) * size + size <= self.end

    def take(self, size: int) -> int:
        """Give out ``size`` bytes, a power of two.

        :raises UsageError: when there is no room.
        """
        if not self.has(size):
            raise UsageError(
                f"no room for {size:#x} bytes in {self.title}: there are too many devices, or too large ones"
            )
        address = -(-self._next // size) * size
        self._next = address + size
        return address


class PciHost:
    """The PCI buses of one VM, and what of their address space is given out.

    The ranges lie where neither q35 nor pc has RAM or a chip of its own; BARs that are too large for the 32-bit one go
    above 512 GiB, within the 40 address bits of QEMU's default CPU.
    """

    def __init__(self, wire: Qtest) -> None:
        self.wire = wire
        self.io = {0: Range("I/O space", 0xC000, 0x10000)}
        """Ranges by bus number; a bridge opens further ones."""
        self.memory = {0: Range("32-bit memory space", 0xE0000000, 0xFEB00000)}
        self._high = Range("64-bit memory space", 0x80_0000_0000, 0xFF_0000_0000)

    def bar(self, bus: int, size: int, flags: int) -> Bar:
        """Give out addresses for a BAR on a bus."""
        if flags & _IO_BAR:
            return Bar("io", self.io[bus].take(size), size)
        high = bus == 0 and flags & _BAR_64 and not self.memory[bus].has(size)
        return Bar("memory", (self._high if high else self.memory[bus]).take(size), size)


class Function:
    """One PCI function."""

    def __init__(self, host: PciHost, address: PciAddress) -> None:
        self._host, self.address = host, address
        self._bars: dict[int, Bar] = {}

    def name(self, register: Register) -> str:
        """``Command (configuration space of 00:01.0 + 0x4)``"""
        return f"{register.name} (configuration space of {self.address} + {register.offset:#x})"

    def get(self, register: Register) -> int:
        """Read a configuration register."""
        return self._host.wire.exchange(self._reading(register))[0]

    def put(self, register: Register, value: int) -> None:
        """Post a write of a configuration register."""
        for write in self._writing(register, value):
            self._host.wire.write(write.space, write.address, write.size, write.value)

    def config(self) -> bytes:
        """The whole configuration space of conventional PCI, 256 bytes."""
        words = [Register("", offset, 4) for offset in range(0, CONFIG_BYTES, 4)]
        values = self._host.wire.exchange([op for register in words for op in self._reading(register)])
        return b"".join(value.to_bytes(4, "little") for value in values)

    def map_bars(self, config: bytes) -> dict[int, Bar]:
        """Give every BAR an address and let the function decode them and be bus master; BARs by number.

        :param config: its configuration space as it is before.
        """
        read_back, number = self._bar_sizes(), 0
        while number < len(read_back):
            flags = config[Config.BARS[number].offset]
            wide = not flags & _IO_BAR and bool(flags & _BAR_64) and number + 1 < len(read_back)
            size = _size(read_back[number : number + 1 + wide], flags)
            if size:
                self._map(number, size, flags, wide=wide)
            number += 1 + wide
        self.put(Config.COMMAND, Command.IO | Command.MEMORY | Command.MASTER)
        return self._bars

    def _map(self, number: int, size: int, flags: int, *, wide: bool) -> None:
        bar = self._bars[number] = self._host.bar(self.address.bus, size, flags)
        self.put(Config.BARS[number], bar.address & 0xFFFFFFFF)
        if wide:
            self.put(Config.BARS[number + 1], bar.address >> 32)

    def _bar_sizes(self) -> list[int]:
        """What each BAR reads after all ones were written to it (PCI 3.0 section 6.2.5.1)."""
        operations: list[Read | Write] = []
        for register in Config.BARS:
            operations += [*self._writing(register, 0xFFFFFFFF), *self._reading(register)]
        return self._host.wire.exchange(operations)

    def _reading(self, register: Register) -> Sequence[Read | Write]:
        return self._select(register), Read("io", CONFIG_DATA + register.offset % 4, register.size)

    def _writing(self, register: Register, value: int) -> Sequence[Write]:
        return self._select(register), Write("io", CONFIG_DATA + register.offset % 4, register.size, value)

    def _select(self, register: Register) -> Write:
        place = self.address.bus << 16 | self.address.slot << 11 | self.address.function << 8 | register.offset & 0xFC
        return Write("io", CONFIG_ADDRESS, 4, 1 << 31 | place)


def _size(read_back: list[int], flags: int) -> int:
    """How large a BAR is, by what it reads after all ones were written: the bits that stay 0 are its size. 0: it is
    not there."""
    mask = read_back[0] & ~(_IO_FLAGS if flags & _IO_BAR else _MEMORY_FLAGS)
    if len(read_back) == 1:
        return -mask & 0xFFFFFFFF
    return -(mask | read_back[1] << 32) & 0xFFFFFFFF_FFFFFFFF
