"""PCI bridges and root ports as firmware leaves them: numbered buses, and windows for what is behind.

Responsible for making functions behind bridges on the root bus reachable; must not know virtio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pytest_virtio.bus.config_space import PciAddress
from pytest_virtio.bus.pci import Function, PciHost, Range
from pytest_virtio.errors import NotSupportedError
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.spec.transport.pci import Command, Config
from pytest_virtio.spec.transport.register import Register

__all__ = ("number_bridges", "opened")

# Type 1 configuration header (PCI-to-PCI Bridge Architecture 1.2, section 3.2).
_BUS_NUMBERS = Register("Bus Numbers", 0x18, 4)
_IO_WINDOW = Register("I/O Base and Limit", 0x1C, 2)
_MEMORY_WINDOW = Register("Memory Base and Limit", 0x20, 4)
_PREFETCHABLE_WINDOW = Register("Prefetchable Memory Base and Limit", 0x24, 4)
_CLOSED = 0x0000FFF0
"""A base above its limit."""
MEMORY_BYTES, IO_BYTES = 0x1000000, 0x1000


def number_bridges(
    functions: tuple[PciFunction, ...], look: Callable[[], tuple[PciFunction, ...]], host: PciHost
) -> tuple[PciFunction, ...]:
    """Number the buses behind the root bus's bridges, so that what is there can be seen; all functions.

    :param functions: those that can be seen before.
    :param look: gives those that can be seen now.
    :raises NotSupportedError: for a bridge behind a bridge.
    """
    bridges = [found for found in functions if found.is_bridge]
    if bridges:
        for number, found in enumerate(bridges, 1):
            _open(host, PciAddress(found.bus, found.slot, found.function), number)
        host.wire.flush()
        functions = look()
    nested = [found for found in functions if found.is_bridge and found.behind is not None]
    if nested:
        raise NotSupportedError(
            f"{nested[0].qdev_id or 'a bridge'}: the scripted guest reaches devices on the root bus and those directly "
            "behind its bridges and root ports, not those behind a second bridge"
        )
    return functions


@contextmanager
def opened(found: PciFunction, host: PciHost) -> Iterator[None]:
    """What is behind a bridge on the root bus can be reached in the block, as bus 1; then the bridge is as before."""
    address = PciAddress(found.bus, found.slot, found.function)
    bridge = Function(host, address)
    before = bridge.config()
    _open(host, address, 1)
    host.wire.flush()
    try:
        yield
    finally:
        for register in (Config.COMMAND, _IO_WINDOW, _MEMORY_WINDOW, _PREFETCHABLE_WINDOW, _BUS_NUMBERS):
            value = before[register.offset : register.offset + register.size]
            bridge.put(register, int.from_bytes(value, "little"))


def _open(host: PciHost, address: PciAddress, number: int) -> None:
    """Number the bus behind a bridge and open its windows: memory always, I/O while that leaves as much to bus 0."""
    memory = host.memory[0].take(MEMORY_BYTES)
    host.memory[number] = Range(f"the memory window of bus {number}", memory, memory + MEMORY_BYTES)
    bridge = Function(host, address)
    bridge.put(_BUS_NUMBERS, number << 8 | number << 16)
    bridge.put(_MEMORY_WINDOW, memory >> 16 & 0xFFF0 | memory + MEMORY_BYTES - 1 & 0xFFF00000)
    bridge.put(_PREFETCHABLE_WINDOW, _CLOSED)
    if host.io[0].has(2 * IO_BYTES):
        io = host.io[0].take(IO_BYTES)
        host.io[number] = Range(f"the I/O window of bus {number}", io, io + IO_BYTES)
        bridge.put(_IO_WINDOW, io >> 8 & 0xF0 | io & 0xF000)
    else:
        host.io[number] = Range(f"the I/O window of bus {number}, which could not be opened", 0, 0)
    bridge.put(Config.COMMAND, Command.IO | Command.MEMORY | Command.MASTER)
