"""Device properties that have a feature offered, by QEMU's own spelling.

Responsible for finding a feature's property among those that a device has, and for how its value reads; must not know
how they are asked for. Most are the feature's short name in lower case, with ``_`` or ``-``; those that aren't are in a
table, which holds for 7.2 to 11.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pytest_virtio.errors import ReplyError
from pytest_virtio.qapi.reply import Reply, type_name

__all__ = ("QOM_GET", "QOM_LIST", "offering_property", "parse_property_names", "property_text")

QOM_GET: Final = "qom-get"
QOM_LIST: Final = "qom-list"

_OTHER_NAMES: Final[Mapping[str, str]] = {
    "VIRTIO_F_VERSION_1": "disable-modern",
    "VIRTIO_F_ACCESS_PLATFORM": "iommu_platform",
    "VIRTIO_F_RING_PACKED": "packed",
    "VIRTIO_F_RING_RESET": "queue_reset",
    "VIRTIO_NET_F_HASH_REPORT": "hash",
    "VIRTIO_NET_F_MTU": "host_mtu",
    "VIRTIO_NET_F_RSC_EXT": "guest_rsc_ext",
    "VIRTIO_NET_F_SPEED_DUPLEX": "speed",
    "VIRTIO_NET_F_STANDBY": "failover",
    "VIRTIO_BLK_F_MQ": "num-queues",
    "VIRTIO_CONSOLE_F_MULTIPORT": "max_ports",
    "VIRTIO_CONSOLE_F_EMERG_WRITE": "emergency-write",
    "VIRTIO_BALLOON_F_PAGE_REPORTING": "free-page-reporting",
    "VIRTIO_SCSI_F_CHANGE": "param_change",
    "VIRTIO_GPU_F_RESOURCE_BLOB": "blob",
    "VIRTIO_IOMMU_F_BYPASS_CONFIG": "boot-bypass",
    "VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE": "unplugged-inaccessible",
}
"""By the feature's full name."""


def offering_property(feature: str, known: Iterable[str]) -> str | None:
    """The property that has a feature offered, as the device spells it; None if it has none.

    :param feature: its full name: ``"VIRTIO_NET_F_MTU"``.
    :param known: all properties of the device.
    """
    name = _OTHER_NAMES.get(feature) or feature.partition("_F_")[2].lower()
    folded = name.replace("-", "_")
    return next((spelled for spelled in known if spelled.replace("-", "_") == folded), None)


def parse_property_names(reply: object) -> tuple[str, ...]:
    """The names of an object's properties.

    :param reply: the ``return`` member of the answer to ``qom-list``.
    :raise ReplyError: it is no such thing.
    """
    if not isinstance(reply, list):
        raise ReplyError(QOM_LIST, "return", f"a list is wanted, not {type_name(reply)}")
    return tuple(Reply(QOM_LIST, item, f"[{index}]").text("name") for index, item in enumerate(reply))


def property_text(name: str, value: object) -> str:
    """A property as the command line has it: ``"csum=off"``, ``"host_mtu=0"``."""
    shown = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
    return f"{name}={shown}"
