"""Who tells of a VM's devices: the introspector, and the histories.

Responsible for finding out what both have to know of this VM; must not know how anything is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from pytest_virtio.backend.running import RunningBackend
from pytest_virtio.declare.backends import Netdev, NoBackend, VhostUser
from pytest_virtio.declare.spec import VmSpec
from pytest_virtio.introspect.history import Histories
from pytest_virtio.introspect.introspector import Introspector
from pytest_virtio.introspect.probe import status_query_ends
from pytest_virtio.introspect.quirks import survives_queries
from pytest_virtio.introspect.registers import Registers
from pytest_virtio.introspect.survey import survey
from pytest_virtio.launch.guests import RunningGuest, calm
from pytest_virtio.launch.running import QUERY_SECONDS, Host
from pytest_virtio.model.status import VirtioInfo
from pytest_virtio.model.wire import ToldBackend
from pytest_virtio.vm.cmdline import Plan
from pytest_virtio.vm.qemu import Qemu

__all__ = ("histories_of", "introspector_of", "needs_survey", "paths_of")


def needs_survey(plan: Plan, host: Host) -> bool:
    """Whether some device can't be asked for its status by QEMU's own query."""
    named = [word.partition(",")[0] for option, word in pairwise(plan.spec.args) if option in ("-device", "--device")]
    types = [*(device.type for device in plan.devices), *named]
    return bool(status_query_ends(host.known)) or not all(survives_queries(t, host.known.version) for t in types)


def introspector_of(
    plan: Plan,
    host: Host,
    qemu: Qemu,
    guest: RunningGuest,
    backends: Mapping[str, RunningBackend],
    infos: tuple[VirtioInfo, ...],
    *,
    surveyed: bool,
) -> Introspector:
    def offered_by_backend(id: str) -> int | None:
        return backends[id].features & ~backends[id].masked if id in backends else None

    def acknowledged(id: str, base: int | None, timeout: float) -> int | None:
        return None if guest is None else guest.acknowledged(id, base, timeout)

    known = survey(qemu.execute, qemu.qtest, infos, offered_by_backend) if surveyed else ()
    return Introspector(
        qemu,
        host.known.version,
        status_query_ends(host.known),
        qemu.memory,
        Registers(qemu, qemu.qtest, known, acknowledged, calm(qemu, guest)),
        _types(plan, qemu, infos),
        _Backends(plan, backends),
        iommu=_has_iommu(plan),
    )


def _has_iommu(plan: Plan) -> bool:
    """Whether addresses of devices may be translated: by virtio-iommu, intel-iommu or amd-iommu."""
    return any("-iommu" in word for word in (*(device.type for device in plan.devices), *plan.spec.args))


@dataclass(frozen=True, slots=True)
class _Backends:
    """What is known of the VM's vhost backends."""

    plan: Plan
    daemons: Mapping[str, RunningBackend]

    def behind(self, id: str) -> bool:
        """Whether one may be behind a device whose type does not tell: by its netdev, or by what ``args`` say."""
        declared = {device.declaration.name: device.declaration.backend for device in self.plan.devices}
        backend = declared.get(id, NoBackend())
        if isinstance(backend, VhostUser):
            return True
        if isinstance(backend, NoBackend):
            return any("vhost" in word for word in self.plan.spec.args)
        return isinstance(backend, Netdev) and "vhost" in backend.options

    def ended(self, id: str) -> bool:
        """Whether the device's backend has ended; QEMU has no other connection, so none can take its place."""
        daemon = self.daemons.get(id)
        return daemon is not None and daemon.state == "ended" and daemon.reconnect is None

    def told(self, id: str) -> ToldBackend | None:
        """What the witness saw on the connection that stands."""
        witness = self.daemons[id].witness if id in self.daemons else None
        return None if witness is None or witness.ended else witness.told


def _types(plan: Plan, qemu: Qemu, infos: tuple[VirtioInfo, ...]) -> dict[str, str]:
    """The devices' QEMU types by id; those that were not declared are of further arguments."""
    declared = {device.declaration.name: device.type for device in plan.devices}
    others = [info for info in infos if info.id not in declared]
    asked = [("qom-get", {"path": info.proxy, "property": "type"}) for info in others]
    told = qemu.execute_all(asked, QUERY_SECONDS)
    return declared | {info.id: str(type) for info, type in zip(others, told, strict=True)}


def paths_of(infos: tuple[VirtioInfo, ...], spec: VmSpec) -> dict[str, str]:
    by_id = {info.id: info.path for info in infos}
    declared = [d.name for d in spec.devices if d.name in by_id]
    return {id: by_id[id] for id in [*declared, *sorted(set(by_id) - set(declared))]}


def histories_of(plan: Plan, qemu: Qemu, asked: Introspector, paths: Mapping[str, str]) -> Histories:
    # QEMU makes the declared devices in their order, and on one bus unless told otherwise.
    placed = (d.declaration.name for d in plan.devices if "bus" not in d.properties)
    in_order = {paths[id] for id in placed if id in paths}
    return Histories(qemu, qemu.log, paths.values(), in_order, asked.status, asked.polled)
