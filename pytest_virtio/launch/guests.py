"""The guest of a VM: the object that speaks for it, by its kind.

Responsible for the kinds; must not know what a test asks of a guest.
"""

from __future__ import annotations

from pytest_virtio.declare.guests import Firmware, Guest, Linux, Scripted
from pytest_virtio.declare.spec import VmSpec
from pytest_virtio.guest.firmware import FirmwareGuest
from pytest_virtio.guest.linux import LinuxGuest
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.introspect.calm import Calm
from pytest_virtio.vm.qemu import Qemu

__all__ = ("RunningGuest", "calm", "consoles", "running_guest")

RunningGuest = ScriptedGuest | LinuxGuest | FirmwareGuest | None


def consoles(guest: Guest) -> int:
    return {Linux: 2, Firmware: 1}.get(type(guest), 0)


def running_guest(spec: VmSpec, qemu: Qemu) -> RunningGuest:
    if isinstance(spec.guest, Linux):
        return LinuxGuest(qemu)
    if isinstance(spec.guest, Scripted):
        return ScriptedGuest(qemu, spec.guest, spec.transport)
    if isinstance(spec.guest, Firmware):
        return FirmwareGuest(qemu, spec.guest)
    return None


def calm(qemu: Qemu, guest: RunningGuest) -> Calm:
    # The processor of a scripted guest sleeps.
    return Calm(qemu.log, idle=isinstance(guest, ScriptedGuest))
