"""What a VM needs of the host's kernel: its vhost modules, and taps.

Responsible for finding out before QEMU does, and for saying what is missing; must not know QEMU's options but those of
a netdev, which a test writes as QEMU takes them. QEMU 7.2 aborts at ``vhost=on`` without the module ("Assertion `nc'
failed"), and later ones don't say which module it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_virtio.declare.backends import KernelScsi, KernelVsock, Netdev
from pytest_virtio.declare.devices import Declaration
from pytest_virtio.errors import MissingError, near_misses

__all__ = ("check_kernel", "served_by_kernel")

CAP_NET_ADMIN = 12
STATUS = Path("/proc/self/status")
TARGETS = Path("/sys/kernel/config/target/vhost")
MODULES = {"/dev/net/tun": "tun", "/dev/vhost-net": "vhost_net", "/dev/vhost-vsock": "vhost_vsock"}
MODULES["/dev/vhost-scsi"] = "vhost_scsi"
_open = os.open
OR_SKIP = "or skip such tests by --virtio-missing=skip"


def check_kernel(declared: Iterable[Declaration]) -> None:
    """Refuse devices that this host's kernel can't serve.

    :raises MissingError: naming the module, the right or the target that lacks.
    """
    for declaration in declared:
        for node in _nodes(declaration):
            _check_node(declaration.name, node)
        if isinstance(declaration.backend, KernelScsi):
            _check_target(declaration.name, declaration.backend.wwpn)
        if isinstance(declaration.backend, Netdev) and _makes_tap(declaration.backend):
            _check_capability(declaration.name)


def served_by_kernel(declaration: Declaration) -> bool:
    """Whether the host's kernel serves the device's rings, by a module that QEMU opens itself."""
    return any(node.startswith("/dev/vhost-") for node in _nodes(declaration))


def _nodes(declaration: Declaration) -> Iterator[str]:
    """The device nodes that QEMU will open."""
    match declaration.backend:
        case KernelVsock() if "vhostfd" not in declaration.properties:
            yield "/dev/vhost-vsock"
        case KernelScsi() if "vhostfd" not in declaration.properties:
            yield "/dev/vhost-scsi"
        case Netdev(options) if _is_tap(options):
            if not _names(options, "fds?|helper|br"):
                yield "/dev/net/tun"
            if re.search(r",vhost(force)?=(on|yes|true|y)\b", options) and not _names(options, "vhostfds?"):
                yield "/dev/vhost-net"


def _is_tap(options: str) -> bool:
    return options.partition(",")[0] == "tap"


def _names(options: str, key: str) -> bool:
    return re.search(rf",({key})=", options) is not None


def _makes_tap(netdev: Netdev) -> bool:
    """Whether QEMU is to make a tap, and is not given one."""
    return _is_tap(netdev.options) and not _names(netdev.options, "ifname|fds?|helper|br")


def _check_node(id: str, node: str) -> None:
    try:
        # A node may be there without its module, which is loaded at this moment if it can be.
        os.close(_open(node, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        raise MissingError(
            f"{id} needs {node}, which this user may not open: run as one who may (see `ls -l {node}`), {OR_SKIP}"
        ) from None
    except OSError as error:
        raise MissingError(
            f"{id} needs {node}, which can't be opened ({error.strerror}): load the host kernel's module by "
            f"`modprobe {MODULES[node]}`, {OR_SKIP}"
        ) from None


def _check_target(id: str, wwpn: str) -> None:
    if (TARGETS / wwpn).is_dir():
        return
    there = [path.name for path in TARGETS.iterdir() if path.is_dir()] if TARGETS.is_dir() else []
    hint = near_misses(wwpn, there) or "There is none."
    raise MissingError(f"{id} needs the target {wwpn} below {TARGETS}. {hint} Make it by targetcli, {OR_SKIP}")


def _check_capability(id: str) -> None:
    held = re.search(r"^CapEff:\s*(\w+)$", STATUS.read_text(), re.MULTILINE)
    if held and not int(held[1], 16) >> CAP_NET_ADMIN & 1:
        raise MissingError(
            f"{id} needs a tap, which only who has CAP_NET_ADMIN can make: run as root, have one made for you "
            "(`ip tuntap add tap7 mode tap user $USER`) and declare netdev='tap,ifname=tap7,script=no,downscript=no', "
            f"{OR_SKIP}"
        )
