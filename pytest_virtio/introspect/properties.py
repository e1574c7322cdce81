"""Which QEMU properties stand behind features that a device does not offer.

Responsible for asking, when an assertion has failed and never before; must not know how properties are spelled
(``qapi``) nor what is made of them. The properties of a device are host options: reading them does not disturb it.
"""

from __future__ import annotations

from collections.abc import Iterable

from pytest_virtio import qapi
from pytest_virtio.errors import VirtioError
from pytest_virtio.introspect.query import raised
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.monitor import Qmp

__all__ = ("has_legacy_interface", "offering_properties")


def offering_properties(qmp: Qmp, proxy: str, features: Iterable[str], timeout: float) -> dict[str, str]:
    """``"host_mtu=0"`` by feature, of those that have such a property; none when QEMU can't be asked.

    :param proxy: the QOM path of the device on its bus, which has the properties of both.
    :param features: full names.
    :param timeout: seconds.
    """
    deadline = Deadline.after(timeout)
    try:
        listed = qmp.execute(qapi.QOM_LIST, {"path": proxy}, deadline.remaining())
        known = qapi.parse_property_names(listed)
        named = {feature: name for feature in features if (name := qapi.offering_property(feature, known))}
        asked = [(qapi.QOM_GET, {"path": proxy, "property": name}) for name in named.values()]
        told = qmp.execute_all(asked, deadline.remaining())
        values = zip(named.items(), told, strict=True)
        return {feature: qapi.property_text(name, raised(value)) for (feature, name), value in values}
    except VirtioError:
        # The assertion's own words are what matters.
        return {}


def has_legacy_interface(qmp: Qmp, proxy: str, timeout: float) -> bool | None:
    """Whether a PCI device may be driven by its legacy interface; None when QEMU does not tell.

    :param proxy: as above.
    :param timeout: seconds.
    """
    try:
        disabled = qmp.execute(qapi.QOM_GET, {"path": proxy, "property": "disable-legacy"}, timeout)
    except VirtioError:
        return None
    # "auto" depends on the bus.
    return None if disabled not in ("on", "off") else disabled == "off"
