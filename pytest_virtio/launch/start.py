"""The order of things: private directory, backends, QEMU, guest.

Responsible for joining the rooms below into one running VM, and for unmaking what there is when a part fails; must not
know verbs or pytest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pytest_virtio.backend.image import format_of
from pytest_virtio.backend.running import RunningBackend
from pytest_virtio.backend.service import HowToStart, Service
from pytest_virtio.backend.services import services
from pytest_virtio.declare.backends import VhostUser
from pytest_virtio.declare.devices import Declaration, Disk, ScsiDisk
from pytest_virtio.declare.spec import VmSpec
from pytest_virtio.errors import MonitorError, QemuExitedError
from pytest_virtio.guest.boot import boot_of
from pytest_virtio.introspect.query import Queries
from pytest_virtio.introspect.quirks import known_ends
from pytest_virtio.introspect.watchdog import Watchdog
from pytest_virtio.launch.guests import consoles, running_guest
from pytest_virtio.launch.observers import histories_of, introspector_of, needs_survey, paths_of
from pytest_virtio.launch.running import QUERY_SECONDS, Host, RunningVm, end
from pytest_virtio.qapi.trace import STATUS_EVENTS
from pytest_virtio.spec.vhost_user import VhostFeature
from pytest_virtio.vm import cmdline, workdir
from pytest_virtio.vm.backends import PrivateFile
from pytest_virtio.vm.by_hand import HAND_DIRECTORY, HandBackend
from pytest_virtio.vm.by_hand import by_hand as by_hand_of
from pytest_virtio.vm.cmdline import CommandLine, Connects, Plan, Wires
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.interrupts import uninterrupted
from pytest_virtio.vm.kernel import check_kernel
from pytest_virtio.vm.qemu import Qemu
from pytest_virtio.vm.resolve import check_introspection, check_machine, check_transport, resolve

__all__ = ("launch",)


def launch(spec: VmSpec, host: Host, *, monitor: bool = False) -> RunningVm:
    """Start a VM.

    :param monitor: whether QEMU listens for a second monitor, so that others can ask it too.
    :raises MissingError: when this machine lacks something that the VM needs.
    :raises BackendError: when a backend does not answer.
    :raises UsageError: when the declaration can't be met by this QEMU.
    :raises QemuExitedError: when QEMU refuses it; its stderr is in the message, a way to run it by hand in a note.
    """
    check_introspection(host.known)
    check_machine(host.known, spec.machine)
    check_transport(spec.machine, spec.transport)
    devices = tuple(resolve(_with_format(d), host.known, spec.transport) for d in spec.devices)
    check_kernel(spec.devices)
    deadline = Deadline.after(spec.timeout)
    directory = workdir.make()
    try:
        boot = boot_of(spec.guest, spec.devices, directory)
        plan = Plan(
            host.program,
            host.accelerator.name,
            spec,
            devices,
            boot,
            monitor_object="monitor-qmp" in host.known.objects,
            reconnect_in_ms=_version(host) >= (9, 2),
            second_monitor=monitor,
        )
        return _start(plan, host, directory, deadline)
    except BaseException:
        workdir.remove(directory)
        raise


def _version(host: Host) -> tuple[int, ...]:
    return tuple(int(number) for number in host.known.version.split(".")[:2])


def _start(plan: Plan, host: Host, directory: Path, deadline: Deadline) -> RunningVm:
    needed = services(plan)
    by_hand = by_hand_of(plan, {service.id: _by_hand(service) for service in needed})
    backends: dict[str, RunningBackend] = {}
    qemu: Qemu | None = None
    try:
        _start_backends(needed, backends, directory, deadline)
        surveyed = needs_survey(plan, host)
        held = surveyed and _runs_at_once(plan)
        qemu = _start_qemu(_paused(plan) if held else plan, host, backends, directory, deadline)
        for backend in backends.values():
            backend.watch(qemu)
        guest = running_guest(plan.spec, qemu)
        infos = Queries(qemu).devices(QUERY_SECONDS)
        introspector = introspector_of(plan, host, qemu, guest, backends, infos, surveyed=surveyed)
        if held:
            qemu.execute("cont")
        paths = paths_of(infos, plan.spec)
        histories = histories_of(plan, qemu, introspector, paths)
        stall = plan.spec.stall
        watchdog = Watchdog(introspector, paths, qemu.alarm, stall) if stall else None
        second = cmdline.second_monitor(directory) if plan.second_monitor else None
        how = qemu.child.argv, by_hand, deadline
        return RunningVm(plan.spec, host, qemu, backends, guest, introspector, histories, paths, *how, watchdog, second)
    except BaseException as error:
        if isinstance(error, QemuExitedError | MonitorError):
            _add_notes(error, backends, by_hand)
        end(backends, qemu)
        raise


def _by_hand(service: Service) -> HandBackend:
    if not isinstance(service.how, HowToStart):
        return HandBackend(None, service.how)
    socket = HAND_DIRECTORY / f"{service.id}.sock"
    connects = service.how.meeting == "connects"
    return HandBackend(service.how.build(HAND_DIRECTORY, socket), socket, connects=connects)


def _start_backends(
    needed: tuple[Service, ...], backends: dict[str, RunningBackend], directory: Path, deadline: Deadline
) -> None:
    """Start them all, then wait for each."""
    for service in needed:
        with uninterrupted():
            backends[service.id] = RunningBackend.start(service, directory, _make_files)
    for backend in backends.values():
        backend.await_answer(deadline)


def _start_qemu(
    plan: Plan, host: Host, backends: Mapping[str, RunningBackend], directory: Path, deadline: Deadline
) -> Qemu:
    qemu = Qemu.start(
        lambda wires: _build(plan, wires),
        deadline,
        label=plan.spec.machine,
        consoles=consoles(plan.spec.guest),
        directory=directory,
        memory=plan.spec.memory,
        qtest=True,
        log=_may_log(plan, host),
        backends={id: _link(backend, plan) for id, backend in backends.items()},
    )
    qemu.known_ends = known_ends(host.known.version, plan.accelerator, _cards_with_msix(plan))
    for backend in backends.values():
        backend.hand_over()
    return qemu


def _cards_with_msix(plan: Plan) -> list[str]:
    """The ids of the vhost-user network cards that have it; on MMIO none has."""
    with_msix = [device for device in plan.devices if device.properties.get("vectors") != "0"]
    backends = {device.declaration.name: device.declaration.backend for device in with_msix}
    cards = [id for id, backend in backends.items() if isinstance(backend, VhostUser) and backend.queue_pairs]
    return [] if plan.spec.transport == "mmio" else cards


def _link(backend: RunningBackend, plan: Plan) -> int | Connects:
    connection = backend.connection
    if isinstance(connection, int):
        return connection
    return Connects(connection, backend.reconnect, in_ms=plan.reconnect_in_ms)


def _may_log(plan: Plan, host: Host) -> bool:
    """Whether QEMU can log the device statuses. Its one log is the user's where further arguments speak of it: what
    they ask for would go to our file and no longer to stderr."""
    theirs = {f"{dashes}{option}" for dashes in ("-", "--") for option in ("d", "D", "msg", "trace")}
    return host.known.trace_events.issuperset(STATUS_EVENTS) and theirs.isdisjoint(plan.spec.args)


def _add_notes(error: QemuExitedError | MonitorError, backends: Mapping[str, RunningBackend], by_hand: str) -> None:
    """What may explain that QEMU did not start."""
    for id, backend in backends.items():
        error.add_note(f"{id}'s backend, {backend.account()}")
        if not backend.features >> VhostFeature.PROTOCOL_FEATURES & 1:
            error.add_note(f"{id}'s backend does not offer VHOST_USER_F_PROTOCOL_FEATURES, which most devices need")
    if any(backend.witness is None for backend in backends.values()):
        error.add_note("wire=True in a backend's declaration shows how far the two came")
    error.add_note(f"to run it by hand:\n{by_hand}")


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


def _runs_at_once(plan: Plan) -> bool:
    """Whether something runs as soon as the machine is there, so that it has to be held while devices are surveyed."""
    waits = plan.boot.paused or plan.boot.halted or not {"-S", "-incoming"}.isdisjoint(plan.spec.args)
    return not waits


def _paused(plan: Plan) -> Plan:
    return replace(plan, boot=replace(plan.boot, paused=True))
