"""The PCI functions of virtio devices, with as much of their configuration space as may be read now.

Responsible for finding them by the devices' ids; must not know what is made of them (``bus``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pytest_virtio import qapi
from pytest_virtio.bus.config_space import PciAddress
from pytest_virtio.bus.observed_config import QUERY_ECAM, configurations, word_reader
from pytest_virtio.errors import CommandError
from pytest_virtio.introspect.calm import Calm
from pytest_virtio.introspect.query import raised
from pytest_virtio.model.pci import PciFunction
from pytest_virtio.model.status import VirtioInfo
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.monitor import Qmp
from pytest_virtio.vm.qtest import Qtest

__all__ = ("Configured", "configured_functions")


class Configured(NamedTuple):
    """A device's function as it is now."""

    path: str
    """The device's QOM path."""
    function: PciFunction
    config: bytes
    """As far as :func:`~pytest_virtio.bus.observed_config.configurations` reads it."""


def configured_functions(
    qmp: Qmp, wire: Qtest, calm: Calm, paths: Iterable[str], deadline: Deadline
) -> Iterator[Configured]:
    """The functions of the devices that have an id; none where there is no safe way to configuration space.

    :param calm: whether drivers are at rest: else a pc's is read only where no processor runs at all.
    """
    pci, ecam = qmp.execute_all([(qapi.QUERY_PCI, None), QUERY_ECAM], deadline.remaining())
    functions = qapi.parse_pci(raised(pci))
    words = word_reader(wire, functions, None if isinstance(ecam, CommandError) else raised(ecam), ports=calm.idle)
    if words is None:
        return
    by_id = {function.qdev_id: function for function in functions if function.qdev_id}
    here = {path: by_id[id] for path in paths if (id := VirtioInfo(path, "").id) in by_id}
    configs = configurations(words, [_at(function) for function in here.values()])
    for path, function in here.items():
        yield Configured(path, function, configs[_at(function)])


def _at(function: PciFunction) -> PciAddress:
    return PciAddress(function.bus, function.slot, function.function)
