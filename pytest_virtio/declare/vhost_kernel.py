"""Devices whose rings the host's kernel serves, by a vhost module of its own: one function a type.

Responsible for the types and for what their modules are told; must not know whether the modules are here. The third of
them, ``vhost_net``, serves a ``Net(vhost=True)``.
"""

from __future__ import annotations

import re

from pytest_virtio.declare.backends import KernelScsi, KernelVsock
from pytest_virtio.declare.devices import EXPECTED, Declaration, Driver, Property, declare
from pytest_virtio.errors import UsageError
from pytest_virtio.spec import devices as spec

__all__ = ("VhostScsi", "VhostVsock", "cid_of")

FIRST_CID, LAST_CID = 3, 0xFFFFFFFF
"""The first ones are the hypervisor's and the host's, the last one is anybody's (virtio 1.3 section 5.10.4)."""


def VhostVsock(
    cid: int | None = None, *, id: str | None = None, driver: Driver = EXPECTED, **properties: Property
) -> Declaration:
    """A socket device served by the host's kernel (``vhost_vsock``). Its default id is ``vsock0``.

    :param cid: the guest's context id, from 3 up. The whole host shares them; by default it is one that only this VM
        has, and the device's configuration space tells which.
    :raises UsageError: for an impossible id or context id.
    """
    return declare(
        "vsock", "vhost-vsock", spec.VSOCK, id, driver, KernelVsock(None if cid is None else cid_of(cid)), properties
    )


def VhostScsi(wwpn: str, *, id: str | None = None, driver: Driver = EXPECTED, **properties: Property) -> Declaration:
    """A SCSI host served by the host's kernel (``vhost_scsi``). Its default id is ``vscsi0``.

    :param wwpn: a target's name below ``/sys/kernel/config/target/vhost``, where ``targetcli`` makes it:
        ``"naa.5001405324e31ab7"``.
    :raises UsageError: for an impossible id or name.
    """
    # The kinds of names that the kernel takes (drivers/vhost/scsi.c, vhost_scsi_make_tport).
    if not isinstance(wwpn, str) or not re.fullmatch(r"(naa|fc|iqn)\.[A-Za-z0-9.:_-]{1,219}", wwpn):
        raise UsageError(f"wwpn={wwpn!r}: a vhost target's name is expected, such as 'naa.5001405324e31ab7'")
    return declare("vscsi", "vhost-scsi", spec.SCSI, id, driver, KernelScsi(wwpn), properties)


def cid_of(cid: int) -> int:
    """What ``cid=`` says.

    :raises UsageError: for what is no guest's.
    """
    if not isinstance(cid, int) or isinstance(cid, bool) or not FIRST_CID <= cid < LAST_CID:
        raise UsageError(f"cid={cid!r}: a guest's context id is a number from {FIRST_CID} to {LAST_CID - 1}")
    return cid
