"""The constant fields of devices' configuration space, for many at once.

Responsible for which devices can be looked at and for what is read of them; must not know registers (``bus``), nor the
fields of a type (``spec``). What can't be had is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from pytest_virtio.bus.find import find_mmio
from pytest_virtio.bus.observed_device_config import device_config_of_mmio, device_config_of_pci
from pytest_virtio.introspect.calm import Calm
from pytest_virtio.introspect.functions import configured_functions
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.spec.devices.config import CONFIGS
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.monitor import Qmp
from pytest_virtio.vm.qtest import Qtest

__all__ = ("Constants", "constant_configs")

Constants = dict[str, int | str]
"""Fields by the specification's names."""


def constant_configs(
    qmp: Qmp, wire: Qtest, calm: Calm, statuses: Mapping[str, VirtioStatus], timeout: float
) -> dict[str, Constants]:
    """The constant fields by path, of the devices of which they can be read now.

    :param statuses: by path; of devices whose configuration QEMU holds itself
        (:func:`~pytest_virtio.introspect.quirks.asks_backend_for_config`).
    :param timeout: seconds.
    """
    deadline, found = Deadline.after(timeout), dict[str, Constants]()
    wanted = {path: status for path, status in statuses.items() if status.device_id in CONFIGS}
    mmio = {path: status for path, status in wanted.items() if VirtioInfo(path, "").proxy == path}
    pci = {path: status for path, status in wanted.items() if path not in mmio}
    for look, some in ((partial(_on_pci, calm), pci), (_on_mmio, mmio)):
        with wire.within(deadline, "reading configuration space"):
            for path, data in look(qmp, wire, some, deadline) if some else ():
                status = some[path]
                found[path] = CONFIGS[status.device_id].constants(data, status.host_features.bits)
    return found


def _on_pci(
    calm: Calm, qmp: Qmp, wire: Qtest, wanted: Mapping[str, VirtioStatus], deadline: Deadline
) -> Iterator[tuple[str, bytes]]:
    for path, function, config in configured_functions(qmp, wire, calm, wanted, deadline):
        data = device_config_of_pci(wire, function, config, _length(wanted[path]))
        if data is not None:
            yield path, data


def _on_mmio(
    qmp: Qmp, wire: Qtest, wanted: Mapping[str, VirtioStatus], deadline: Deadline
) -> Iterator[tuple[str, bytes]]:
    def execute(command: str, arguments: Mapping[str, object] | None = None, timeout: float = 0.0, /) -> object:
        return qmp.execute(command, arguments, deadline.remaining())

    for path, device in find_mmio(execute, wire, {path: path for path in wanted}).items():
        data = device_config_of_mmio(device, _length(wanted[path]))
        if data is not None:
            yield path, data


def _length(status: VirtioStatus) -> int:
    return CONFIGS[status.device_id].layout.size()
