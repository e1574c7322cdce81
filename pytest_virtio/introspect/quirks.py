"""What no throw-away QEMU can show: which vhost device types survive being asked, and how QEMU is known to end, by QEMU
release.

Responsible for these facts and for reading them; must not know how anything is asked. x-query-virtio-status,
-queue-status and -vhost-queue-status of a started vhost device call its type's ``get_vhost``; where the type has none,
QEMU ends by SIGSEGV. It takes a backend and a driver at DRIVER_OK to see that, so it is known from such runs, or from
QEMU's source. A vhost type that is not in the table is not asked.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = (
    "Surviving",
    "asks_backend_for_config",
    "is_vhost_type",
    "known_ends",
    "may_have_vhost",
    "survives_queries",
    "survives_status_query",
)

Release = tuple[int, ...]
FOR_EVER: Release = (1 << 30,)
NO_CRASH_OF_CARDS: Release = (8, 0)
"""Seen on 7.2 with testpmd and passt, not on 10.0 and 11.1 (docs/vhost-user.md); the releases between were not run."""


@dataclass(frozen=True, slots=True)
class Surviving:
    """A vhost device type that has ``get_vhost``.

    :param type: QEMU's type, less its bus.
    :param since: the first release known to have it.
    :param before: the first release known not to have it any more.
    :param seen: where that is known from.
    """

    type: str
    since: Release = (7, 2)
    before: Release = FOR_EVER
    seen: str = ""


SURVIVING = (
    Surviving("vhost-user-blk", seen="run on 7.2, 10.0 and 11.1"),
    Surviving("vhost-user-fs", seen="run on 7.2, 10.0 and 11.1"),
    Surviving("vhost-user-vsock", seen="run on 7.2, 10.0 and 11.1"),
    Surviving("vhost-vsock", seen="shares get_vhost with vhost-user-vsock"),
    Surviving("vhost-user-scsi", since=(10, 0), seen="SIGSEGV on 7.2, run on 10.0 and 11.1"),
    Surviving("vhost-scsi", seen="source of 7.2.0, 10.0.13 and 10.2.2"),
    Surviving("vhost-user-gpu", seen="source of 7.2.0, 10.0.13 and 10.2.2"),
    Surviving("vhost-user-vga", seen="a vhost-user-gpu in another dress"),
    # Made over to vhost-user-base, which has none: SIGSEGV on 10.0 and 11.1.
    Surviving("vhost-user-rng", before=(9, 0), seen="run on 7.2, SIGSEGV on 10.0 and 11.1"),
    Surviving("vhost-user-input", before=(9, 0), seen="source of 7.2.0, SIGSEGV on 10.0 and 11.1"),
    Surviving("vhost-vdpa-device", since=(10, 2), seen="none in the source of 10.0.13, there in that of 10.2.2"),
    # vhost-user-gpio, -snd, -spi, -rtc and -test-device: SIGSEGV on each of 7.2, 10.0 and 11.1 that has them.
    # vhost-user-i2c: SIGABRT on 7.2 and 10.0, even when it is not started.
)

HOLDING_CONFIG = frozenset(
    {"vhost-user-blk", "vhost-user-fs", "vhost-user-vsock", "vhost-vsock", "vhost-user-scsi", "vhost-scsi"}
)
"""The vhost device types whose configuration QEMU holds itself (source of 7.2.0 and 10.0.13; the first two and
vhost-user-vsock seen on 7.2, 10.0 and 11.1). The others ask their backend at each read, also of the driver's."""

NO_VHOST = frozenset({"user", "socket", "stream", "dgram", "l2tpv3", "vde", "netmap", "af-xdp"})
"""The types of netdev that never have a vhost backend. A tap has one with vhost=on, which nothing tells; passt may."""

_BUS = re.compile(r"(-(pci|ccw|device))?(-(non-)?transitional)?$")


def is_vhost_type(type: str) -> bool:
    """Whether all devices of a QEMU type have a vhost backend; others may: a network card has what its netdev is."""
    return "vhost" in type


def is_network_card(type: str) -> bool:
    """Whether a device of a QEMU type has a netdev behind it."""
    return type.startswith("virtio-net")


def may_have_vhost(type: str, netdevs: frozenset[str]) -> bool:
    """Whether a device may have a vhost backend.

    :param type: QEMU's; "" when it is not known.
    :param netdevs: the types of those behind it; empty when they are not known.
    """
    if is_network_card(type):
        return not netdevs or not netdevs <= NO_VHOST
    # virtio-crypto has one by a cryptodev object.
    return is_vhost_type(type) or not type.startswith("virtio-") or type.startswith("virtio-crypto")


def survives_status_query(version: str) -> bool:
    """Whether x-query-virtio-status of any device is known to be survived by a QEMU that can't be tried: 11.1 isn't by
    default (``probe``), and nothing is known of 11.0 and of later ones.

    :param version: ``"10.0.2"``.
    """
    return (7, 2) <= _release(version) <= (10, 2)


def survives_queries(type: str, version: str) -> bool:
    """Whether a started device may be asked for its status.

    :param type: QEMU's type, with its bus or without: ``"vhost-user-blk-pci"``.
    :param version: QEMU's, ``"10.0.2"``.
    """
    if not is_vhost_type(type):
        return True
    names, release = _names(type), _release(version)
    return any(known.type in names and known.since <= release < known.before for known in SURVIVING)


def known_ends(version: str, accelerator: str, cards: Sequence[str]) -> dict[int, str]:
    """What to do about ends that a VM is known for, by QEMU's return code.

    :param version: QEMU's; ``accelerator``: the one that the VM runs on.
    :param cards: the ids of its vhost-user network cards that have MSI-X.
    """
    if not cards or accelerator != "tcg" or _release(version) >= NO_CRASH_OF_CARDS:
        return {}
    remedy = f"QEMU {version} is known to end so at DRIVER_OK of a vhost-user network card with MSI-X under TCG: "
    return {-signal.SIGSEGV: f"{remedy}declare {' and '.join(cards)} with vectors=0"}


def _release(version: str) -> Release:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def asks_backend_for_config(type: str) -> bool:
    """Whether QEMU asks the vhost backend when a device's configuration is read, and hangs while that says nothing.

    :param type: as for :func:`survives_queries`; one that is not known is taken for one that does.
    """
    return not type or (is_vhost_type(type) and not _names(type) & HOLDING_CONFIG)


def _names(type: str) -> set[str]:
    """With its bus and without; vhost-vdpa-device is called so without its bus."""
    return {type, _BUS.sub("", type)}
