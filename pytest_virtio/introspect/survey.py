"""What is known of each device before the VM's first instruction, for the times when registers must do.

Responsible for joining QEMU's names, the registers at rest and the feature bits that no modern register shows; must
not know how a device stands later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pytest_virtio.bus.survey import Place, Surveyed, survey_mmio, survey_pci
from pytest_virtio.errors import CommandError
from pytest_virtio.introspect.quirks import is_vhost_type
from pytest_virtio.model.status import VirtioInfo
from pytest_virtio.spec.devices import NetFeature
from pytest_virtio.spec.features import Feature, TransportFeature
from pytest_virtio.vm.monitor import Execute
from pytest_virtio.vm.qtest import Qtest

__all__ = ("BackendFeatures", "Known", "place_on_pci", "survey")

BackendFeatures = Callable[[str], int | None]
"""What the vhost backend of the device with an id offers; None where that is not known."""

_HIDDEN: Mapping[Feature, str] = {
    TransportFeature.NOTIFY_ON_EMPTY: "notify_on_empty",
    TransportFeature.ANY_LAYOUT: "any_layout",
    NetFeature.GSO: "gso",
}
"""Bits for legacy drivers, which QEMU shows in no modern register, by the device property that has them offered; a
device that can't have them has no such property."""
_HIGH: Mapping[Feature, str] = {
    TransportFeature.RING_PACKED: "packed",
    TransportFeature.IN_ORDER: "in_order",
    TransportFeature.RING_RESET: "queue_reset",
}
"""Bits above the 32 of a legacy interface, likewise."""
_ROOT_BUSES = ("/pcie.0", "/pci.0")
_ALL_PCI = 1 << TransportFeature.BAD_FEATURE
"""QEMU's virtio-pci offers it with every device."""
_VHOST_MASKED = 1 << TransportFeature.NOTIFY_ON_EMPTY
"""Of the hidden bits, what a vhost-user-blk device offers only if its backend does (seen on 7.2 and 10.0)."""


@dataclass(frozen=True, slots=True)
class Known:
    """A device that has been surveyed.

    :param place: where it is on PCI; None on MMIO.
    :param host_features: what it offers, those bits included that registers hide.
    """

    info: VirtioInfo
    surveyed: Surveyed
    place: Place | None
    host_features: int


def survey(
    execute: Execute, wire: Qtest, infos: Iterable[VirtioInfo], backend_features: BackendFeatures
) -> Iterator[Known]:
    """Look at all devices. What is on neither bus is left out.

    :raises MonitorTimeoutError: when QEMU doesn't answer in time.
    :raises QemuExitedError: when it is gone.
    """
    devices = list(infos)
    places = {info: place for info in devices if info.path != info.proxy and (place := place_on_pci(execute, info))}
    functions = survey_pci(execute, wire, places.values()) if places else {}
    for info, place in places.items():
        if place in functions:
            found = functions[place]
            hidden = _hidden(execute, info, found, backend_features)
            yield Known(info, found, place, found.device_features | hidden | _ALL_PCI)
    for info in (info for info in devices if info.path == info.proxy):
        device = survey_mmio(execute, wire, info.path)
        if device is not None:
            hidden = _hidden(execute, info, device, backend_features)
            yield Known(info, device, None, device.device_features | hidden)


def place_on_pci(execute: Execute, info: VirtioInfo) -> Place | None:
    """Where a device is on PCI; without an id it is known by where it is on the root bus, and elsewhere by nothing."""
    address, bus = _property(execute, info.proxy, "addr"), _property(execute, info.proxy, "parent_bus")
    has_id, on_root = "/peripheral/" in info.path, str(bus).endswith(_ROOT_BUSES)
    if not isinstance(address, int) or not (has_id or on_root):
        return None
    return info.id if has_id else "", address >> 3, address & 7


def _hidden(execute: Execute, info: VirtioInfo, found: Surveyed, backend_features: BackendFeatures) -> int:
    """The bits that registers don't show; of a vhost device whose backend is not known, none."""
    modern = found.common is not None or (found.base is not None and not found.legacy)
    names = {**({} if found.legacy else _HIDDEN), **({} if modern else _HIGH)}
    offered: int = sum(1 << bit for bit, name in names.items() if _property(execute, info.path, name))
    if not is_vhost_type(str(_property(execute, info.proxy, "type"))):
        return offered
    by_backend = backend_features(info.id)
    return 0 if by_backend is None else offered & ~(_VHOST_MASKED & ~by_backend)


def _property(execute: Execute, path: str, name: str) -> object:
    """A property; None if there is none of this name."""
    try:
        return execute("qom-get", {"path": path, "property": name})
    except CommandError:
        return None
