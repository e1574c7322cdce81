"""How devices' interrupts reach their drivers: which way for each queue, and what stands in it.

Responsible for finding the devices on their buses, for many at once, and for looking only at those whose driver is up.
Must not know registers (``bus``), nor what follows from what stands there. What can't be had is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from pytest_virtio.bus.find import find_mmio
from pytest_virtio.bus.observed_interrupts import interrupt_of_mmio, interrupts_of_pci
from pytest_virtio.errors import VirtioError
from pytest_virtio.introspect.calm import Calm
from pytest_virtio.introspect.functions import configured_functions
from pytest_virtio.introspect.query import Place
from pytest_virtio.model.interrupt import Interrupt
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.monitor import Qmp
from pytest_virtio.vm.qtest import Qtest

__all__ = ("interrupts",)


def interrupts(
    qmp: Qmp,
    wire: Qtest,
    calm: Calm,
    statuses: Mapping[str, VirtioStatus],
    queues: Mapping[str, Sequence[int]],
    timeout: float,
) -> dict[Place, Interrupt]:
    """How each queue interrupts, where that is known.

    :param statuses: of the devices by path, as they are now.
    :param queues: indices by path.
    :param timeout: seconds.
    :param calm: whether drivers are at rest: else vectors are not looked at, and a pc's configuration space only where
        no processor runs at all.
    """
    deadline, found = Deadline.after(timeout), dict[Place, Interrupt]()
    live = {path: queues[path] for path, status in statuses.items() if status.driver_ok and queues.get(path)}
    mmio = {path: some for path, some in live.items() if VirtioInfo(path, "").proxy == path}
    pci = {path: some for path, some in live.items() if path not in mmio}
    for look, wanted in ((partial(_on_pci, calm), pci), (_on_mmio, mmio)):
        try:
            with wire.within(deadline, "reading how devices interrupt"):
                found.update(look(qmp, wire, wanted, deadline) if wanted else ())
        except VirtioError:
            # They are evidence, nice to have: that QEMU has ended shows elsewhere.
            continue
    return found


def _on_pci(
    calm: Calm, qmp: Qmp, wire: Qtest, wanted: Mapping[str, Sequence[int]], deadline: Deadline
) -> Iterator[tuple[Place, Interrupt]]:
    found = list(configured_functions(qmp, wire, calm, wanted, deadline))
    select = bool(found) and calm.wait(Deadline.after(0))
    for path, function, config in found:
        for queue, told in interrupts_of_pci(wire, function, config, wanted[path], select=select):
            yield (path, queue), told


def _on_mmio(
    qmp: Qmp, wire: Qtest, wanted: Mapping[str, Sequence[int]], deadline: Deadline
) -> Iterator[tuple[Place, Interrupt]]:
    def execute(command: str, arguments: Mapping[str, object] | None = None, timeout: float = 0.0, /) -> object:
        return qmp.execute(command, arguments, deadline.remaining())

    for path, device in find_mmio(execute, wire, {path: path for path in wanted}).items():
        told = interrupt_of_mmio(wire, device.base)
        for queue in wanted[path]:
            yield (path, queue), told
