"""Which backends a VM needs: from its declarations to what is started and met.

Responsible for choosing by the kind of server; must not know their arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from pytest_virtio.backend import daemons, storage_daemon
from pytest_virtio.backend.service import HowToStart, Service
from pytest_virtio.backend.wire import Masks
from pytest_virtio.declare.backends import (
    Daemon,
    FoundSocket,
    OwnServer,
    Passt,
    StorageDaemon,
    Testpmd,
    VhostUser,
    Virtiofsd,
    VsockDaemon,
)
from pytest_virtio.model.features import Features
from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES, ProtocolFeature
from pytest_virtio.vm.cmdline import Plan, ResolvedDevice

__all__ = ("services",)


def services(plan: Plan) -> tuple[Service, ...]:
    """One for each device of the VM that is declared so.

    :raises MissingError: when a program is not here.
    :raises NotSupportedError: for what a program can't do.
    :raises UnknownNameError: for an unknown feature in a mask.
    :raises UsageError: for a user's own daemon that is not told where to listen.
    :raises VirtioError: when an image can't be read.
    """
    return tuple(_services(plan))


def _services(plan: Plan) -> Iterator[Service]:
    for device in plan.devices:
        backend = device.declaration.backend
        if isinstance(backend, VhostUser):
            server = backend.server
            how = server.path if isinstance(server, FoundSocket) else _how(server, device, plan)
            type = device.declaration.type or device_type(0)
            masks = _masks(backend.wire.masked if backend.wire else frozenset(), type)
            # A network backend takes no connection that was made by somebody else: QEMU can't tell that it passes
            # descriptors ("does not support FD passing", seen on 7.2 to 11.1).
            by_path = backend.reconnect is not None or backend.queue_pairs is not None
            id, link = device.declaration.name, (backend.wire, masks, by_path, backend.reconnect)
            yield Service(id, type, how, *link)


def _how(server: OwnServer, device: ResolvedDevice, plan: Plan) -> HowToStart:
    match server:
        case StorageDaemon():
            return storage_daemon.how_to_start(server, device, plan)
        case Virtiofsd():
            return daemons.virtiofsd(server, device)
        case VsockDaemon():
            return daemons.vsock(server, device)
        case Testpmd():
            return daemons.testpmd(server, device)
        case Passt():
            return daemons.passt(server, device)
        case Daemon():
            return daemons.own(server, device)


def _masks(names: AbstractSet[str | int], type: DeviceType) -> Masks:
    protocol = {name for name in names if _is_protocols(name)}
    of_device = Features.of(names - protocol, type.vhost_feature_names)
    return Masks(of_device.bits, Features.of(protocol, PROTOCOL_FEATURE_NAMES).bits)


def _is_protocols(name: str | int) -> bool:
    if isinstance(name, str):
        return name.removeprefix("VHOST_USER_").startswith("PROTOCOL_F_")
    return isinstance(name, ProtocolFeature)
