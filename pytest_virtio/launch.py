"""The order of things: private directory, backends, QEMU, guest; and back.

Responsible for joining the rooms below into one running VM, and for ending it; must not know verbs or pytest. This
is the only module that knows both guests and introspection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from pytest_virtio.backend import storage_daemon
from pytest_virtio.backend.daemon import Daemon, Service
from pytest_virtio.backend.image import format_of
from pytest_virtio.declare.backends import Netdev, NoBackend
from pytest_virtio.declare.devices import Declaration, Disk, ScsiDisk
from pytest_virtio.declare.guests import Firmware, Guest, Linux, Scripted
from pytest_virtio.declare.spec import VmSpec
from pytest_virtio.errors import MonitorError, QemuExitedError
from pytest_virtio.guest.boot import boot_of
from pytest_virtio.guest.firmware import FirmwareGuest
from pytest_virtio.guest.linux import LinuxGuest
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.introspect.calm import Calm
from pytest_virtio.introspect.history import Histories
from pytest_virtio.introspect.introspector import Introspector
from pytest_virtio.introspect.probe import status_query_ends
from pytest_virtio.introspect.query import Queries
from pytest_virtio.introspect.quirks import survives_queries
from pytest_virtio.introspect.registers import Registers
from pytest_virtio.introspect.standstill import Standstill
from pytest_virtio.introspect.survey import survey
from pytest_virtio.introspect.watchdog import Watchdog
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.qapi.trace import STATUS_EVENTS
from pytest_virtio.vm import cmdline, workdir
from pytest_virtio.vm.accelerator import Accelerator
from pytest_virtio.vm.backends import PrivateFile
from pytest_virtio.vm.capabilities import Capabilities
from pytest_virtio.vm.cmdline import CommandLine, HandBackend, Plan, Wires
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.interrupts import uninterrupted
from pytest_virtio.vm.qemu import Qemu
from pytest_virtio.vm.resolve import check_introspection, check_machine, resolve

__all__ = ("Host", "RunningGuest", "RunningVm", "launch")

RunningGuest = ScriptedGuest | LinuxGuest | FirmwareGuest | None

QUERY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Host:
    """What VMs run on: one QEMU binary and what it can do, and the accelerator."""

    program: Path
    known: Capabilities
    accelerator: Accelerator


@dataclass(frozen=True, slots=True)
class RunningVm:
    """A VM whose QEMU has started. Its guest may still be booting: :meth:`await_ready`."""

    spec: VmSpec
    host: Host
    qemu: Qemu
    backends: Mapping[str, Daemon]
    """The vhost-user backends, by the id of the device that each serves."""
    guest: RunningGuest
    introspector: Introspector
    histories: Histories
    paths: dict[str, str]
    """QOM path of each virtio device by id; the declared ones first, in their order."""
    argv: tuple[str, ...]
    by_hand: str
    """A shell script that starts the same VM by hand."""
    deadline: Deadline
    """When the VM must be ready."""
    watchdog: Watchdog | None
    """What notices queues that stand still; None when nobody asked for it."""

    def await_ready(self) -> None:
        """Wait until the guest is up and its devices are at DRIVER_OK; nothing to wait for without a guest.

        :raises DeviceStalledError: naming the stage at which a device stands.
        :raises GuestError: when the guest panics or says nothing.
        :raises QemuExitedError: when QEMU ends.
        :raises VirtioAssertionError: when a queue stands still for as long as ``stall`` says.
        """
        if self.watchdog is not None:
            self.watchdog.start()
        if self.guest is not None:
            virtio = [d for d in self.spec.devices if d.name in self.paths]
            self.guest.await_ready(virtio, self.status, self.deadline)

    def status(self, id: str, timeout: float = QUERY_SECONDS) -> VirtioStatus:
        """The status of a device by its id."""
        return self.introspector.status(self.paths[id], timeout)

    def heed(self, during: str) -> None:
        """Raise what makes a wait pointless.

        :raises QemuExitedError: when QEMU has ended.
        :raises VirtioAssertionError: when a queue stands still for as long as ``stall`` says.
        """
        if not self.qemu.running:
            raise self.qemu.exited(during)
        self.qemu.alarm.check()

    @property
    def calm(self) -> Calm:
        """Whether drivers leave their devices alone just now."""
        return _calm(self.qemu, self.guest)

    @property
    def standstill(self) -> Standstill:
        """The ways to an answer that stop the VM."""

        def silent() -> list[str]:
            return [id for id, backend in self.backends.items() if backend.child.running and backend.child.stopped]

        return Standstill(self.qemu, self.introspector, self.paths.values(), silent)

    def close(self) -> None:
        """End the backends, QEMU and all that came with it. May be called again."""
        with contextlib.ExitStack() as steps:
            if self.watchdog is not None:
                self.watchdog.stop()
                # It may be asking QEMU, and has its answer when that has ended.
                steps.callback(self.watchdog.join)
            _end(self.backends, self.qemu)


def launch(spec: VmSpec, host: Host) -> RunningVm:
    """Start a VM.

    :raises MissingError: when this machine lacks something that the VM needs.
    :raises BackendError: when a backend does not answer.
    :raises UsageError: when the declaration can't be met by this QEMU.
    :raises QemuExitedError: when QEMU refuses it; its stderr is in the message, a way to run it by hand in a note.
    """
    check_introspection(host.known)
    check_machine(host.known, spec.machine)
    devices = tuple(resolve(_with_format(d), host.known, spec.transport) for d in spec.devices)
    deadline = Deadline.after(spec.timeout)
    directory = workdir.make()
    try:
        boot = boot_of(spec.guest, spec.devices, directory)
        plan = Plan(
            host.program, host.accelerator.name, spec, devices, boot, monitor_object="monitor-qmp" in host.known.objects
        )
        return _start(plan, host, directory, deadline)
    except BaseException:
        workdir.remove(directory)
        raise


def _start(plan: Plan, host: Host, directory: Path, deadline: Deadline) -> RunningVm:
    services = storage_daemon.services(plan)
    by_hand = cmdline.by_hand(plan, {service.id: _by_hand(service) for service in services})
    backends: dict[str, Daemon] = {}
    qemu: Qemu | None = None
    try:
        _start_backends(services, backends, directory, deadline)
        surveyed = _needs_survey(plan, host)
        held = surveyed and _runs_at_once(plan)
        qemu = _start_qemu(_paused(plan) if held else plan, backends, directory, deadline, log=_may_log(plan, host))
        guest = _guest(plan.spec, qemu)
        infos = Queries(qemu).devices(QUERY_SECONDS)
        introspector = _introspector(plan, host, qemu, guest, backends, infos, surveyed=surveyed)
        if held:
            qemu.execute("cont")
        paths = _paths(infos, plan.spec)
        histories = _histories(plan, qemu, introspector, paths)
        stall = plan.spec.stall
        watchdog = Watchdog(introspector, paths, qemu.alarm, stall) if stall else None
        how = qemu.child.argv, by_hand, deadline
        return RunningVm(plan.spec, host, qemu, backends, guest, introspector, histories, paths, *how, watchdog)
    except BaseException as error:
        if isinstance(error, QemuExitedError | MonitorError):
            _add_notes(error, backends, by_hand)
        _end(backends, qemu)
        raise


def _by_hand(service: Service) -> HandBackend:
    socket = cmdline.HAND_DIRECTORY / f"{service.id}.sock"
    return HandBackend(service.build(cmdline.HAND_DIRECTORY, socket), socket)


def _start_backends(
    services: tuple[Service, ...], backends: dict[str, Daemon], directory: Path, deadline: Deadline
) -> None:
    """Start them all, then wait for each."""
    for service in services:
        with uninterrupted():
            backends[service.id] = Daemon.start(service, directory, _make_files)
    for backend in backends.values():
        backend.await_answer(deadline)


def _start_qemu(plan: Plan, backends: Mapping[str, Daemon], directory: Path, deadline: Deadline, *, log: bool) -> Qemu:
    qemu = Qemu.start(
        lambda wires: _build(plan, wires),
        deadline,
        label=plan.spec.machine,
        consoles=_consoles(plan.spec.guest),
        directory=directory,
        memory=plan.spec.memory,
        qtest=True,
        log=log,
        backends={id: backend.connection for id, backend in backends.items()},
    )
    for backend in backends.values():
        backend.hand_over()
    return qemu


def _may_log(plan: Plan, host: Host) -> bool:
    """Whether QEMU can log the device statuses. Its one log is the user's where further arguments speak of it: what
    they ask for would go to our file and no longer to stderr."""
    theirs = {f"{dashes}{option}" for dashes in ("-", "--") for option in ("d", "D", "msg", "trace")}
    return host.known.trace_events.issuperset(STATUS_EVENTS) and theirs.isdisjoint(plan.spec.args)


def _add_notes(error: QemuExitedError | MonitorError, backends: Mapping[str, Daemon], by_hand: str) -> None:
    """What may explain that QEMU did not start."""
    for id, backend in backends.items():
        error.add_note(f"{id}'s backend, {backend.account()}")
    error.add_note(f"to run it by hand:\n{by_hand}")


def _end(backends: Mapping[str, Daemon], qemu: Qemu | None) -> None:
    """The backends first: while one hangs, QEMU may hang too."""
    with uninterrupted(), contextlib.ExitStack() as steps:
        if qemu is not None:
            steps.callback(qemu.close)
        for backend in backends.values():
            steps.callback(backend.close)


def _build(plan: Plan, wires: Wires) -> tuple[str, ...]:
    """The arguments for these wires; makes the files that they name."""
    line = cmdline.command_line(plan, wires)
    _make_files(line)
    return line.argv


def _make_files(line: CommandLine) -> None:
    for file in line.files:
        _make(file)


def _make(file: PrivateFile) -> None:
    if file.size is None:
        file.path.mkdir()
        return
    with file.path.open("xb") as new:
        new.truncate(file.size)
        for offset, content in file.content.items():
            new.seek(offset)
            new.write(content)


def _with_format(declaration: Declaration) -> Declaration:
    """See the format of a user's image from its first bytes, where he does not say it."""
    backend = declaration.backend
    if isinstance(backend, Disk):
        return replace(declaration, backend=_formatted(backend))
    if isinstance(backend, ScsiDisk):
        return replace(declaration, backend=ScsiDisk(_formatted(backend.disk)))
    return declaration


def _formatted(disk: Disk) -> Disk:
    return disk if disk.path is None or disk.format else replace(disk, format=format_of(disk.path))


def _consoles(guest: Guest) -> int:
    return {Linux: 2, Firmware: 1}.get(type(guest), 0)


def _guest(spec: VmSpec, qemu: Qemu) -> RunningGuest:
    if isinstance(spec.guest, Linux):
        return LinuxGuest(qemu)
    if isinstance(spec.guest, Scripted):
        return ScriptedGuest(qemu, spec.guest, spec.transport)
    if isinstance(spec.guest, Firmware):
        return FirmwareGuest(qemu, spec.guest)
    return None


def _needs_survey(plan: Plan, host: Host) -> bool:
    """Whether some device can't be asked for its status by QEMU's own query."""
    named = [word.partition(",")[0] for option, word in pairwise(plan.spec.args) if option in ("-device", "--device")]
    types = [*(device.type for device in plan.devices), *named]
    return bool(status_query_ends(host.known)) or not all(survives_queries(t, host.known.version) for t in types)


def _runs_at_once(plan: Plan) -> bool:
    """Whether something runs as soon as the machine is there, so that it has to be held while devices are surveyed."""
    waits = plan.boot.paused or plan.boot.halted or not {"-S", "-incoming"}.isdisjoint(plan.spec.args)
    return not waits


def _paused(plan: Plan) -> Plan:
    return replace(plan, boot=replace(plan.boot, paused=True))


def _introspector(
    plan: Plan,
    host: Host,
    qemu: Qemu,
    guest: RunningGuest,
    backends: Mapping[str, Daemon],
    infos: tuple[VirtioInfo, ...],
    *,
    surveyed: bool,
) -> Introspector:
    def offered_by_backend(id: str) -> int | None:
        return backends[id].features if id in backends else None

    def acknowledged(id: str, base: int | None, timeout: float) -> int | None:
        return None if guest is None else guest.acknowledged(id, base, timeout)

    known = survey(qemu.execute, qemu.qtest, infos, offered_by_backend) if surveyed else ()
    return Introspector(
        qemu,
        host.known.version,
        status_query_ends(host.known),
        qemu.memory,
        Registers(qemu, qemu.qtest, known, acknowledged, _calm(qemu, guest)),
        _types(plan, qemu, infos),
        _Backends(plan, backends),
        iommu=_has_iommu(plan),
    )


def _calm(qemu: Qemu, guest: RunningGuest) -> Calm:
    # The processor of a scripted guest sleeps.
    return Calm(qemu.log, idle=isinstance(guest, ScriptedGuest))


def _has_iommu(plan: Plan) -> bool:
    """Whether addresses of devices may be translated: by virtio-iommu, intel-iommu or amd-iommu."""
    return any("-iommu" in word for word in (*(device.type for device in plan.devices), *plan.spec.args))


@dataclass(frozen=True, slots=True)
class _Backends:
    """What is known of the VM's vhost backends."""

    plan: Plan
    daemons: Mapping[str, Daemon]

    def behind(self, id: str) -> bool:
        """Whether one may be behind a device whose type does not tell: by its netdev, or by what ``args`` say."""
        declared = {device.declaration.name: device.declaration.backend for device in self.plan.devices}
        backend = declared.get(id, NoBackend())
        if isinstance(backend, NoBackend):
            return any("vhost" in word for word in self.plan.spec.args)
        return isinstance(backend, Netdev) and "vhost" in backend.options

    def ended(self, id: str) -> bool:
        """Whether the device's backend has ended; QEMU has no other connection, so none can take its place."""
        return id in self.daemons and not self.daemons[id].child.running


def _types(plan: Plan, qemu: Qemu, infos: tuple[VirtioInfo, ...]) -> dict[str, str]:
    """The devices' QEMU types by id; those that were not declared are of further arguments."""
    declared = {device.declaration.name: device.type for device in plan.devices}
    others = [info for info in infos if info.id not in declared]
    asked = [("qom-get", {"path": info.proxy, "property": "type"}) for info in others]
    told = qemu.execute_all(asked, QUERY_SECONDS)
    return declared | {info.id: str(type) for info, type in zip(others, told, strict=True)}


def _paths(infos: tuple[VirtioInfo, ...], spec: VmSpec) -> dict[str, str]:
    by_id = {info.id: info.path for info in infos}
    declared = [d.name for d in spec.devices if d.name in by_id]
    return {id: by_id[id] for id in [*declared, *sorted(set(by_id) - set(declared))]}


def _histories(plan: Plan, qemu: Qemu, introspector: Introspector, paths: Mapping[str, str]) -> Histories:
    # QEMU makes the declared devices in their order, and on one bus unless told otherwise.
    placed = (d.declaration.name for d in plan.devices if "bus" not in d.properties)
    in_order = {paths[id] for id in placed if id in paths}
    return Histories(qemu, qemu.log, paths.values(), in_order, introspector.status, introspector.polled)
