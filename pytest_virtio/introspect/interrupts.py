"""Whether a PCI device's interrupts can reach the driver: MSI-X vectors, masks and pending bits of its queues.

Responsible for finding QEMU's tables and for reading them without disturbing: neither table nor pending bits change by
being read, and the queue selector is moved and put back in one breath, at DRIVER_OK only, when drivers are done with
it. Must not know what follows from them. What can't be had is absent: devices on other buses, and functions whose
driver does not use MSI-X.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_virtio import qapi
from pytest_virtio.bus.observed import queue_vectors
from pytest_virtio.errors import VirtioError
from pytest_virtio.introspect.query import Place
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.model.stuck import Interrupt
from pytest_virtio.spec.transport.pci import NO_VECTOR, MsixEntry
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.monitor import Qmp
from pytest_virtio.vm.qtest import Qtest

__all__ = ("interrupts",)

_MSIX_BAR, _MODERN_BAR = 1, 4
"""As virtio_pci_realize() numbers them, in 7.2 to 11.1: the table begins the one, its pending bits are in the middle of
it (msix_init_exclusive_bar()), and the common configuration begins the other. A device with a legacy interface alone
has no modern one, and virtio-vga has others."""


@dataclass(frozen=True, slots=True)
class _Tables:
    """Where a function's tables are; ``vectors`` is for how many there is room."""

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
        for path, tables in _located(qmp, live, deadline).items():
            with wire.within(deadline, "reading MSI-X tables"):
                found |= {(path, queue): told for queue, told in _read(wire, tables, queues[path])}
    except VirtioError:
        # They are evidence, nice to have: that QEMU has ended shows elsewhere.
        return found
    return found


def _located(qmp: Qmp, paths: Iterable[str], deadline: Deadline) -> dict[str, _Tables]:
    """Where the tables of these devices are, those that have any."""
    ids = {path: VirtioInfo(path, "").id for path in paths if VirtioInfo(path, "").proxy != path}
    if not ids:
        return {}
    functions = qapi.parse_pci(qmp.execute(qapi.QUERY_PCI, None, deadline.remaining()))
    by_id = {function.qdev_id: function for function in functions if function.qdev_id}
    placed = {path: _placed(by_id.get(id)) for path, id in ids.items()}
    return {path: tables for path, tables in placed.items() if tables is not None}


def _placed(function: PciFunction | None) -> _Tables | None:
    msix, modern = (function.bar(_MSIX_BAR), function.bar(_MODERN_BAR)) if function else (None, None)
    if msix is None or modern is None or msix.address is None or modern.address is None:
        return None
    middle = msix.size // 2
    return _Tables(msix.address, middle // MsixEntry.size(), msix.address + middle, modern.address)


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
