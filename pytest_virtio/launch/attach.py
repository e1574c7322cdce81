"""A VM that runs already: what is needed to ask about it, joined over its QMP socket.

Responsible for finding out, by safe commands alone, what can be asked of that QEMU; must not know verbs. It starts,
stops and pauses nothing of the VM's. The one process that it may start is a throw-away QEMU of the same binary.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pytest_virtio import qapi
from pytest_virtio.backend.running import RunningBackend
from pytest_virtio.errors import CommandError, MissingError, VirtioError
from pytest_virtio.introspect.glimpse import Glimpses
from pytest_virtio.introspect.introspector import Introspector
from pytest_virtio.introspect.probe import can_be_tried, status_query_ends
from pytest_virtio.introspect.query import Place, Queries
from pytest_virtio.introspect.quirks import is_network_card, is_vhost_type, may_have_vhost, survives_status_query
from pytest_virtio.model.interrupt import Interrupt
from pytest_virtio.model.provenance import Provenance
from pytest_virtio.model.status import VirtioInfo
from pytest_virtio.model.wire import ToldBackend
from pytest_virtio.render.text import safe
from pytest_virtio.vm.attached import AttachedQemu
from pytest_virtio.vm.capabilities import Capabilities, capabilities
from pytest_virtio.vm.deadline import Deadline

__all__ = ("AttachedVm", "attached")

WRITABLE_BY_OTHERS = 0o022


@dataclass(frozen=True, slots=True)
class AttachedVm:
    """Somebody else's VM.

    :param version: QEMU's, ``"10.0.2"``.
    :param package: its packager's own, or "".
    :param paths: QOM path of each virtio device by id.
    :param vhost: the ids of those whose type has a vhost backend.
    """

    qemu: AttachedQemu
    version: str
    package: str
    introspector: Introspector
    paths: Mapping[str, str]
    vhost: frozenset[str]
    backends: Mapping[str, RunningBackend] = field(default_factory=dict)
    """None is known, whatever there is."""
    guest: None = None
    histories: None = None

    @property
    def provenance(self) -> Provenance:
        """What the monitor tells."""
        return Provenance(qemu=self.version, qemu_build=self.package)

    @property
    def host(self) -> str:
        """Which QEMU it is, in words."""
        package = f" ({self.package})" if self.package else ""
        process = f", process {self.qemu.pid}" if self.qemu.pid else ""
        return f"QEMU {safe(self.version + package)}{process}"

    def offered_by_backend(self, id: str) -> int | None:
        """Nobody was asked."""
        return None

    def masked_by_test(self, id: str) -> int:
        """No test has a hand in it."""
        return 0

    def interrupts(self, *_: object) -> dict[Place, Interrupt]:
        """How queues interrupt can't be read without a wire to the registers."""
        return {}


@contextmanager
def attached(path: Path, deadline: Deadline, id: str | None = None, most: int | None = None) -> Iterator[AttachedVm]:
    """A conversation with the QEMU that listens at a path.

    :param id: of the one device that there will be questions about.
    :param most: that many of the first devices; what is not known of the others has them asked with all caution.
    :raises MonitorError: when there is none, saying why and what to do.
    :raises MissingError: when it has no virtio introspection.
    """
    with AttachedQemu.connect(path, deadline) as qemu:
        version, package = qapi.parse_version(qemu.execute(qapi.QUERY_VERSION, None, deadline.remaining()))
        infos = _devices(qemu, version, deadline)
        # Whoever answers may have called them anything.
        paths = {safe(info.id): info.path for info in infos}
        meant = [info for info in infos if id in (None, safe(info.id))][:most]
        types = _told(qemu, meant, "type", deadline)
        cards = [info for info in meant if is_network_card(types.get(info.id, ""))]
        names = _told(qemu, cards, "netdev", deadline)
        introspector = Introspector(
            qemu,
            version,
            _ends(qemu, version),
            None,
            Glimpses(qemu, infos),
            types,
            _Backends(types, _netdevs(qemu, names, deadline)),
            # Whether there is one is not asked; without one no driver is offered ACCESS_PLATFORM.
            iommu=True,
        )
        vhost = frozenset(safe(id) for id, type in types.items() if is_vhost_type(type))
        yield AttachedVm(qemu, version, package, introspector, paths, vhost)


def _devices(qemu: AttachedQemu, version: str, deadline: Deadline) -> tuple[VirtioInfo, ...]:
    try:
        return Queries(qemu).devices(deadline.remaining())
    except CommandError as error:
        if error.error_class != "CommandNotFound":
            raise
        raise MissingError(
            f"{qemu.path}: QEMU {version} has no {error.command}: QEMU 7.2 was the first with virtio introspection, "
            "and its tools (qemu-storage-daemon) have none"
        ) from None


def _told(qemu: AttachedQemu, infos: Sequence[VirtioInfo], property: str, deadline: Deadline) -> dict[str, str]:
    """A property of devices by id, where it is text."""
    asked = [(qapi.QOM_GET, {"path": info.proxy, "property": property}) for info in infos]
    told = qemu.execute_all(asked, deadline.remaining())
    return {info.id: text for info, text in zip(infos, told, strict=True) if isinstance(text, str)}


def _netdevs(qemu: AttachedQemu, names: Mapping[str, str], deadline: Deadline) -> Mapping[str, frozenset[str]]:
    """The types of what is behind network cards, by the card's id.

    :param names: of what is behind them; ``info network`` calls a card by its id or by a name of its own.
    """
    (told,) = qemu.execute_all([(qapi.HMP, {"command-line": qapi.QUERY_NETWORK})], deadline.remaining())
    types = {} if isinstance(told, VirtioError) else qapi.parse_peers(told)
    return {id: types.get(name, frozenset()) for id, name in names.items()}


@dataclass(frozen=True, slots=True)
class _Backends:
    """What is known of vhost backends from outside: behind which devices one may be."""

    types: Mapping[str, str]
    netdevs: Mapping[str, frozenset[str]]

    def behind(self, id: str) -> bool:
        """Whether one may be."""
        return may_have_vhost(self.types.get(id, ""), self.netdevs.get(id, frozenset()))

    def ended(self, id: str) -> bool:
        """Nobody tells."""
        return False

    def told(self, id: str) -> ToldBackend | None:
        """There is no witness."""
        return None


def _ends(qemu: AttachedQemu, version: str) -> str:
    """How this QEMU ends when it is asked for a status; "" where it is known to live on."""
    known = _known(qemu)
    if known is not None and known.version == version and can_be_tried(known):
        return status_query_ends(known)
    return "" if survives_status_query(version) else "it is not known to survive that"


def _known(qemu: AttachedQemu) -> Capabilities | None:
    """What the very binary can do that answers; None where it can't be run, or should not be."""
    if not qemu.is_qemu or not _may_be_run(qemu):
        return None
    try:
        return capabilities(Path(qemu.program))
    except (VirtioError, OSError):
        # One that was started by way of a loader does not start by itself.
        return None


def _may_be_run(qemu: AttachedQemu) -> bool:
    """Whether the binary is where its process says, and nobody's who could trick this user into running it."""
    try:
        running, there = Path(f"/proc/{qemu.pid}/exe").stat(), Path(qemu.program).stat()
    except OSError:
        return False
    trusted = there.st_uid in (0, os.geteuid()) and not there.st_mode & WRITABLE_BY_OTHERS
    # Another one after an upgrade, and in a container.
    return trusted and os.path.samestat(running, there)
