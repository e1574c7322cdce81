"""How a virtio device that somebody else drives interrupts him, read without disturbing him.

Responsible for INTx and MSI-X of a PCI function and for an MMIO device's interrupt status; none of these changes by
being read. Must not know what follows from them. The queue selector is moved at DRIVER_OK only, when drivers are done
with it (virtio 1.3 section 3.1.1), and in one breath with its return.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_virtio.bus.registers import QUEUES_AT_ONCE, Window
from pytest_virtio.model.interrupt import Interrupt, Intx, MmioInterrupt, Msix
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.spec.transport.mmio import Mmio
from pytest_virtio.spec.transport.pci import (
    NO_VECTOR,
    CapabilityType,
    Command,
    Common,
    Config,
    IsrStatus,
    MsixCapability,
    MsixControl,
    MsixEntry,
    Status,
    parse_capabilities,
)
from pytest_virtio.spec.transport.register import Register
from pytest_virtio.vm.qtest import Qtest, Read, Write

__all__ = ("interrupt_of_mmio", "interrupts_of_pci")

_MASKED = 1
_NOBODY = b"\xff\xff\xff\xff"
"""What is read where no function is."""


def interrupts_of_pci(
    wire: Qtest, function: PciFunction, config: bytes, queues: Sequence[int], *, select: bool
) -> Iterator[tuple[int, Interrupt]]:
    """How the queues of a function at DRIVER_OK interrupt, less those of which it can't be told.

    :param config: its configuration space as it is now, as far as :func:`.observed_config.configurations` reads it.
    :param select: whether the queue selector may be moved, without which nothing is told of vectors.
    """
    if config[Config.COMMAND.offset :].startswith(_NOBODY):
        return
    capabilities, found = parse_capabilities(config)
    if found is None or not found[1].control & MsixControl.ENABLE:
        intx = _intx(config)
        yield from ((queue, intx) for queue in queues)
        return
    common = capabilities.get(CapabilityType.COMMON_CFG)
    address = _address(function, (common.bar, common.offset_in_bar)) if common else None
    if select and address is not None:
        yield from _msix(wire, function, found[1], list(zip(queues, _vectors(wire, address, queues), strict=True)))


def interrupt_of_mmio(wire: Qtest, base: int) -> MmioInterrupt:
    """How an MMIO device interrupts, whose one line stands for all queues."""
    registers = Window(wire, "memory", base, Mmio.CONFIG_OFFSET, "MMIO registers")
    return MmioInterrupt(bool(registers.get(Mmio.INTERRUPT_STATUS) & IsrStatus.QUEUE))


def _intx(config: bytes) -> Intx:
    command, status = _register(config, Config.COMMAND), _register(config, Config.STATUS)
    return Intx(asserted=bool(status & Status.INTX), disabled=bool(command & Command.NO_INTX))


def _register(config: bytes, register: Register) -> int:
    return int.from_bytes(config[register.offset : register.offset + register.size], "little")


def _msix(
    wire: Qtest, function: PciFunction, capability: MsixCapability, vectors: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, Msix]]:
    table, bits = _address(function, capability.table_place), _address(function, capability.pending_place)
    if table is None or bits is None:
        return
    masked_all = bool(capability.control & MsixControl.MASK_ALL)
    entries = MsixEntry.unpack_all(wire.read_block(table, capability.vectors * MsixEntry.size()))
    pending = int.from_bytes(wire.read_block(bits, -(-capability.vectors // 64) * 8), "little")
    for queue, vector in vectors:
        if vector == NO_VECTOR:
            yield queue, Msix(None, function_masked=masked_all)
        elif vector < len(entries):
            masked = bool(entries[vector].control & _MASKED)
            yield queue, Msix(vector, masked=masked, function_masked=masked_all, pending=bool(pending >> vector & 1))


def _address(function: PciFunction, place: tuple[int, int]) -> int | None:
    """Of a place in a BAR; None while that is not decoded."""
    start = function.address_of(place[0])
    return None if start is None else start + place[1]


def _vectors(wire: Qtest, common: int, queues: Sequence[int]) -> list[int]:
    """The queues' MSI-X vectors."""
    registers = Window(wire, "memory", common, Common.QUEUE_RESET.offset, "common configuration")
    some = (queues[start : start + QUEUES_AT_ONCE] for start in range(0, len(queues), QUEUES_AT_ONCE))
    return [vector for few in some for vector in _few_vectors(registers, few)]


def _few_vectors(common: Window, queues: Sequence[int]) -> list[int]:
    """Likewise; the selector is left as it was found."""
    selected = common.get(Common.QUEUE_SELECT)
    operations: list[Read | Write] = [common.reading(Common.QUEUE_SELECT)]
    for queue in queues:
        operations.append(common.writing(Common.QUEUE_SELECT, queue))
        operations.append(common.reading(Common.QUEUE_MSIX_VECTOR))
    found, *vectors = common.wire.at_once([*operations, common.writing(Common.QUEUE_SELECT, selected)])
    if found != selected:
        common.put(Common.QUEUE_SELECT, found)
        common.wire.flush()
    return vectors
