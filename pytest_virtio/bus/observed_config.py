"""Configuration space of PCI functions that somebody else drives, read without disturbing him.

Responsible for the way there on each board and for reading no word that was not asked for: one of them may be
``pci_cfg_data``, by which a driver reads the ISR status, and reading that clears it (virtio 1.3 section 4.1.4.9). Must
not know what follows from what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from pytest_virtio.bus.config_space import CONFIG_ADDRESS, MemoryAccess, PciAddress, PortAccess
from pytest_virtio.bus.find import I440FX_BRIDGE
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.spec.transport.pci import (
    CAPABILITY_ID,
    CONFIG_BYTES,
    FIRST_CAPABILITY,
    MSIX_ID,
    CapabilityType,
    Config,
)
from pytest_virtio.vm.monitor import Command
from pytest_virtio.vm.qtest import Qtest, Read, Write

__all__ = ("QUERY_ECAM", "ReadWords", "configurations", "word_reader")

QUERY_ECAM: Final[Command] = ("qom-get", {"path": "/machine/q35", "property": "MCFG"})
"""Asks where a q35 has its configuration space in memory now, without a register being touched (seen on 7.2 to
11.1)."""
UNMAPPED: Final = (1 << 64) - 1
PORT_WORDS_AT_ONCE: Final = 30
_WINDOWS: Final = (CapabilityType.COMMON_CFG, CapabilityType.DEVICE_CFG)

ReadWords = Callable[[Sequence[tuple[PciAddress, int]]], list[int]]
"""Reads words of 4 bytes, each by its function and its offset, a multiple of 4."""


def word_reader(
    wire: Qtest, functions: Sequence[PciFunction], ecam: object, *, ports: bool = False
) -> ReadWords | None:
    """The way to configuration space; None on a board where it is not known, or not mapped.

    :param functions: all of them, the host bridge first.
    :param ecam: the answer to :data:`QUERY_ECAM`.
    :param ports: whether a pc's two ports may be used: only where no guest processor runs, for it may be between its
        write of the one, which selects, and its access to the other.
    """
    if isinstance(ecam, int):
        return None if ecam == UNMAPPED else partial(_by_memory, wire, MemoryAccess(wire, ecam))
    return partial(_by_ports, wire) if ports and functions and functions[0].device == I440FX_BRIDGE else None


def configurations(words: ReadWords, functions: Sequence[PciAddress]) -> dict[PciAddress, bytes]:
    """Of each function's 256 bytes of configuration space what tells how it interrupts and where its windows are: the
    command and status registers, the first word of each capability, and three more of MSI-X and of virtio's common and
    device-specific configuration; the rest is 0. It takes a conversation for each capability of the function that has
    the most."""
    found = {function: bytearray(CONFIG_BYTES) for function in functions}
    _fill(words, found, dict.fromkeys(functions, (Config.COMMAND.offset, Config.CAPABILITIES.offset)))
    seen: dict[PciAddress, set[int]] = {function: set() for function in functions}
    at = {function: config[Config.CAPABILITIES.offset] & 0xFC for function, config in found.items()}
    # A list that loops or leaves configuration space ends there.
    while at := {f: place for f, place in at.items() if place >= FIRST_CAPABILITY and place not in seen[f]}:
        _fill(words, found, {function: (place,) for function, place in at.items()})
        for function, place in at.items():
            seen[function].add(place)
            at[function] = found[function][place + 1] & 0xFC
    located = {f: [place for place in seen[f] if _tells_a_place(config[place:])] for f, config in found.items()}
    _fill(words, found, {f: [place + more for place in places for more in (4, 8, 12)] for f, places in located.items()})
    return {function: bytes(config) for function, config in found.items()}


def _tells_a_place(capability: bytearray) -> bool:
    is_window = capability[0] == CAPABILITY_ID and capability[3] in _WINDOWS
    return is_window or capability[0] == MSIX_ID


def _fill(words: ReadWords, found: Mapping[PciAddress, bytearray], wanted: Mapping[PciAddress, Sequence[int]]) -> None:
    places = [(function, offset) for function, some in wanted.items() for offset in some if offset < CONFIG_BYTES]
    for (function, offset), word in zip(places, words(places), strict=True):
        found[function][offset : offset + 4] = word.to_bytes(4, "little")


def _by_memory(wire: Qtest, access: MemoryAccess, places: Sequence[tuple[PciAddress, int]]) -> list[int]:
    return wire.exchange([access.reading(address, offset) for address, offset in places])


def _by_ports(wire: Qtest, places: Sequence[tuple[PciAddress, int]]) -> list[int]:
    starts = range(0, len(places), PORT_WORDS_AT_ONCE)
    return [word for start in starts for word in _few_by_ports(wire, places[start : start + PORT_WORDS_AT_ONCE])]


def _few_by_ports(wire: Qtest, places: Sequence[tuple[PciAddress, int]]) -> list[int]:
    """Likewise; the address register is left as it was found."""
    selected = wire.read("io", CONFIG_ADDRESS, 4)
    operations: list[Read | Write] = [operation for place in places for operation in PortAccess.reading(*place)]
    return wire.at_once([*operations, Write("io", CONFIG_ADDRESS, 4, selected)])
