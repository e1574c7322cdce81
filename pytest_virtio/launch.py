"""The order of things: private directory, QEMU, guest; and back.

Responsible for joining the rooms below into one running VM, and for ending it; must not know verbs or pytest. This
is the only module that knows both guests and introspection.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_virtio.declare.devices import Declaration, Disk, ScsiDisk
from pytest_virtio.declare.guests import Firmware, Guest, Linux, Scripted
from pytest_virtio.declare.spec import VmSpec
from pytest_virtio.errors import QemuExitedError, VirtioError
from pytest_virtio.guest.boot import boot_of
from pytest_virtio.guest.firmware import FirmwareGuest
from pytest_virtio.guest.linux import LinuxGuest
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.introspect.probe import check_status_query
from pytest_virtio.introspect.query import Introspector
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.vm import cmdline, workdir
from pytest_virtio.vm.accelerator import Accelerator
from pytest_virtio.vm.backends import PrivateFile
from pytest_virtio.vm.capabilities import Capabilities
from pytest_virtio.vm.cmdline import Plan, Wires
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.qemu import Qemu
from pytest_virtio.vm.resolve import check_introspection, check_machine, resolve

__all__ = ("Host", "RunningGuest", "RunningVm", "launch")

RunningGuest = ScriptedGuest | LinuxGuest | FirmwareGuest | None

QUERY_SECONDS = 10.0
QCOW2_MAGIC = b"QFI\xfb"


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
    guest: RunningGuest
    introspector: Introspector
    paths: dict[str, str]
    """QOM path of each virtio device by id; the declared ones first, in their order."""
    argv: tuple[str, ...]
    by_hand: str
    """A shell script that starts the same VM by hand."""
    deadline: Deadline
    """When the VM must be ready."""

    def await_ready(self) -> None:
        """Wait until the guest is up and its devices are at DRIVER_OK; nothing to wait for without a guest.

        :raises DeviceStalledError: naming the stage at which a device stands.
        :raises GuestError: when the guest panics or says nothing.
        :raises QemuExitedError: when QEMU ends.
        """
        if self.guest is not None:
            virtio = [d for d in self.spec.devices if d.name in self.paths]
            self.guest.await_ready(virtio, self.status, self.deadline)

    def status(self, id: str, timeout: float = QUERY_SECONDS) -> VirtioStatus:
        """The status of a device by its id."""
        return self.introspector.status(self.paths[id], timeout)

    def close(self) -> None:
        """End QEMU and all that came with it. May be called again."""
        self.qemu.close()


def launch(spec: VmSpec, host: Host) -> RunningVm:
    """Start a VM.

    :raises MissingError: when this machine lacks something that the VM needs.
    :raises UsageError: when the declaration can't be met by this QEMU.
    :raises QemuExitedError: when QEMU refuses it; its stderr is in the message, a way to run it by hand in a note.
    """
    check_introspection(host.known)
    if not isinstance(spec.guest, Scripted):
        # The scripted guest reads its devices' status by itself.
        check_status_query(host.known)
    check_machine(host.known, spec.machine)
    devices = tuple(resolve(_with_format(d), host.known, spec.transport) for d in spec.devices)
    deadline = Deadline.after(spec.timeout)
    directory = workdir.make()
    try:
        boot = boot_of(spec.guest, spec.devices, directory)
        plan = Plan(host.program, host.accelerator.name, spec, devices, boot)
        return _start(plan, host, directory, deadline)
    except BaseException:
        workdir.remove(directory)
        raise


def _start(plan: Plan, host: Host, directory: Path, deadline: Deadline) -> RunningVm:
    by_hand = cmdline.by_hand(plan)
    consoles = _consoles(plan.spec.guest)
    qemu: Qemu | None = None
    try:
        qemu = Qemu.start(
            lambda wires: _build(plan, wires),
            deadline,
            label=plan.spec.machine,
            consoles=consoles,
            directory=directory,
            driven=plan.spec.memory if isinstance(plan.spec.guest, Scripted) else 0,
        )
        introspector = Introspector(qemu.execute, lambda: check_status_query(host.known))
        paths = _paths(introspector, plan.spec)
        guest = _guest(plan.spec, qemu)
        return RunningVm(plan.spec, host, qemu, guest, introspector, paths, qemu.child.argv, by_hand, deadline)
    except BaseException as error:
        if isinstance(error, QemuExitedError):
            error.add_note(f"to run it by hand:\n{by_hand}")
        if qemu is not None:
            qemu.close()
        raise


def _build(plan: Plan, wires: Wires) -> tuple[str, ...]:
    """The arguments for these wires; makes the files that they name."""
    line = cmdline.command_line(plan, wires)
    for file in line.files:
        _make(file)
    return line.argv


def _make(file: PrivateFile) -> None:
    if file.size is None:
        file.path.mkdir()
        return
    with file.path.open("xb") as new:
        new.truncate(file.size - len(file.end))
        new.seek(0, os.SEEK_END)
        new.write(file.end)


def _with_format(declaration: Declaration) -> Declaration:
    """See the format of a user's image from its first bytes, where he does not say it."""
    backend = declaration.backend
    if isinstance(backend, Disk):
        return replace(declaration, backend=_formatted(backend))
    if isinstance(backend, ScsiDisk):
        return replace(declaration, backend=ScsiDisk(_formatted(backend.disk)))
    return declaration


def _formatted(disk: Disk) -> Disk:
    if disk.path is None or disk.format:
        return disk
    try:
        with disk.path.open("rb") as image:
            magic = image.read(len(QCOW2_MAGIC))
    except OSError as error:
        raise VirtioError(f"image {str(disk.path)!r} can't be read: {error.strerror}") from error
    return replace(disk, format="qcow2" if magic == QCOW2_MAGIC else "raw")


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


def _paths(introspector: Introspector, spec: VmSpec) -> dict[str, str]:
    by_id = {_id_of(info.path): info.path for info in introspector.devices(QUERY_SECONDS)}
    declared = [d.name for d in spec.devices if d.name in by_id]
    return {id: by_id[id] for id in [*declared, *sorted(set(by_id) - set(declared))]}


def _id_of(path: str) -> str:
    """``net0`` of ``/machine/peripheral/net0/virtio-backend``; what has no id is called as QOM calls it.

    On virtio-mmio the device is the path's last part, without ``virtio-backend``.
    """
    parts = path.removesuffix("/virtio-backend").split("/")
    return parts[-1] if parts[-2:-1] == ["peripheral"] else "/".join(parts[2:])
