"""PCI as firmware sees it: functions, BARs, bus mastering.

Responsible for giving a function its addresses, as firmware would: nothing else runs in the VM that could; must not
know virtio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pytest_virtio.bus.config_space import ConfigSpace, MemoryAccess, PciAddress, PortAccess
from pytest_virtio.errors import UsageError
from pytest_virtio.spec.transport.pci import CONFIG_BYTES, Command, Config
from pytest_virtio.spec.transport.register import Register
from pytest_virtio.vm.qtest import Qtest, Space

__all__ = ("Bar", "Function", "PciHost", "Range")

_IO_BAR, _BAR_64 = 1, 4
_MEMORY_FLAGS, _IO_FLAGS = 0xF, 0x3


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
        self.config_space: ConfigSpace = PortAccess(wire)
        self.io = {0: Range("I/O space", 0xC000, 0x10000)}
        """Ranges by bus number; a bridge opens further ones."""
        self.memory = {0: Range("32-bit memory space", 0xE0000000, 0xFEB00000)}
        self._high = Range("64-bit memory space", 0x80_0000_0000, 0xFF_0000_0000)

    def open_memory_access(self, host_bridge: PciAddress, register: tuple[Register, Register], base: int) -> None:
        """Map configuration space into memory at ``base`` and use that from now on."""
        function = Function(self, host_bridge)
        function.put(register[1], base >> 32)
        function.put(register[0], base & 0xFFFFFFFF | 1)
        self.config_space = MemoryAccess(self.wire, base)

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

    def put(self, register: Register, value: int) -> None:
        """Post a write of a configuration register."""
        for write in self._host.config_space.writing(self.address, register, value):
            self._host.wire.write(*write)

    def config(self) -> bytes:
        """The whole configuration space of conventional PCI, 256 bytes."""
        return self._host.config_space.read(self.address, 0, CONFIG_BYTES)

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

    def unmap_bars(self) -> None:
        """Leave the BARs and the command register as they are after a reset."""
        for register in (Config.COMMAND, *Config.BARS):
            self.put(register, 0)

    def _map(self, number: int, size: int, flags: int, *, wide: bool) -> None:
        bar = self._bars[number] = self._host.bar(self.address.bus, size, flags)
        self.put(Config.BARS[number], bar.address & 0xFFFFFFFF)
        if wide:
            self.put(Config.BARS[number + 1], bar.address >> 32)

    def _bar_sizes(self) -> tuple[int, ...]:
        """What the BARs read after all ones were written to them (PCI 3.0 section 6.2.5.1)."""
        for register in Config.BARS:
            self.put(register, 0xFFFFFFFF)
        first, size = Config.BARS[0].offset, Config.BARS[0].size
        data = self._host.config_space.read(self.address, first, size * len(Config.BARS))
        return tuple(int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size))


def _size(read_back: Sequence[int], flags: int) -> int:
    """How large a BAR is, by what it reads after all ones were written: the bits that stay 0 are its size. 0: it is
    not there."""
    mask = read_back[0] & ~(_IO_FLAGS if flags & _IO_BAR else _MEMORY_FLAGS)
    if len(read_back) == 1:
        return -mask & 0xFFFFFFFF
    return -(mask | read_back[1] << 32) & 0xFFFFFFFF_FFFFFFFF
