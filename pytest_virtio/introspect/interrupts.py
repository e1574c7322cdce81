"""Whether a PCI device's interrupts can reach the driver: MSI-X vectors, masks and pending bits of its queues.

Responsible for finding QEMU's tables and for reading them without disturbing: neither table nor pending bits change by
being read, and the queue selector is moved and put back in one breath, at DRIVER_OK only, when drivers are done with
it. Must not know what follows from them. What can't be had is absent: devices on other buses, and functions whose
driver does not use MSI-X.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pytest_virtio import qapi
from pytest_virtio.bus.observed import queue_vectors
from pytest_virtio.errors import VirtioError
from pytest_virtio.introspect.query import Place, raised
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.model.stuck import Interrupt
from pytest_virtio.spec.transport.pci import NO_VECTOR, MsixEntry
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.monitor import Command, Qmp
from pytest_virtio.vm.qtest import Qtest

__all__ = ("interrupts",)

_MSIX_BAR, _MODERN_BAR = 1, 4
"""As virtio_pci_realize() numbers them, in 7.2 to 11.1. A device with a legacy interface alone has no modern one."""
_REGIONS = ("msix-table[0]", "msix-pba[0]", "virtio-pci-common-{name}[0]")
"""QOM names of the memory regions that a virtio PCI function has."""


@dataclass(frozen=True, slots=True)
class _Tables:
    """Where a function's tables are; ``vectors`` is how many the first has."""

    table: int
    vectors: int
    pending: int
    common: int


def interrupts(
    qmp: Qmp, wire: Qtest, statuses: Mapping[str, VirtioStatus], queues: Mapping[str, Sequence[int]], timeout: float
) -> dict[Place, Interrupt]:
    """How each queue interrupts, where that is known.

    :param statuses: of the devices by path, as they are now.
    :param queues: indices by path.
    """
    deadline, found = Deadline.after(timeout), dict[Place, Interrupt]()
    live = [path for path, status in statuses.items() if status.driver_ok and queues.get(path)]
    try:
        for path, tables in _located(qmp, {path: statuses[path].name for path in live}, deadline).items():
            with wire.within(deadline, "reading MSI-X tables"):
                found |= {(path, queue): told for queue, told in _read(wire, tables, queues[path])}
    except VirtioError:
        # They are evidence, nice to have: that QEMU has ended shows elsewhere.
        return found
    return found


def _located(qmp: Qmp, names: Mapping[str, str], deadline: Deadline) -> dict[str, _Tables]:
    """Where the tables of these devices are, those that have any."""
    proxies = {path: VirtioInfo(path, "").proxy for path in names if VirtioInfo(path, "").proxy != path}
    asked: list[Command] = [(qapi.QUERY_PCI, None)]
    for path, proxy in proxies.items():
        regions = [f"{proxy}/{region.format(name=names[path])}" for region in _REGIONS]
        asked += [("qom-get", {"path": region, "property": "addr"}) for region in regions]
        asked.append(("qom-get", {"path": regions[0], "property": "size"}))
    if not proxies:
        return {}
    pci, *told = qmp.execute_all(asked, deadline.remaining())
    functions = {function.qdev_id: function for function in qapi.parse_pci(raised(pci))}
    answers = {path: told[4 * n : 4 * n + 4] for n, path in enumerate(proxies)}
    placed = {path: _placed(functions.get(VirtioInfo(path, "").id), answer) for path, answer in answers.items()}
    return {path: tables for path, tables in placed.items() if tables is not None}


def _placed(function: PciFunction | None, told: Iterable[object]) -> _Tables | None:
    if function is None or any(isinstance(answer, VirtioError) for answer in told):
        return None
    msix, modern = function.address_of(_MSIX_BAR), function.address_of(_MODERN_BAR)
    if msix is None or modern is None:
        return None
    table, pending, common, size = cast(Iterable[int], told)
    return _Tables(msix + table, size // MsixEntry.size(), msix + pending, modern + common)


def _read(wire: Qtest, tables: _Tables, queues: Sequence[int]) -> Iterable[tuple[int, Interrupt]]:
    entries = wire.read_block(tables.table, tables.vectors * MsixEntry.size())
    if not any(_entry(entries, vector).address_low for vector in range(tables.vectors)):
        # Nobody filled the table in: the driver uses INTx, or polls.
        return
    pending = int.from_bytes(wire.read_block(tables.pending, -(-tables.vectors // 64) * 8), "little")
    for queue, vector in zip(queues, queue_vectors(wire, tables.common, queues), strict=True):
        if vector == NO_VECTOR:
            yield queue, Interrupt(None)
        elif vector < tables.vectors:
            yield queue, Interrupt(vector, bool(_entry(entries, vector).control & 1), bool(pending >> vector & 1))


def _entry(entries: bytes, vector: int) -> MsixEntry:
    return MsixEntry.unpack(entries[vector * MsixEntry.size() :])
