"""The ``virtio`` handle: a running VM as a mapping from id to device.

Responsible for finding devices by id and for the report; must not know how the VM was started or when it ends.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_virtio import render
from pytest_virtio.errors import NotSupportedError, UnknownNameError
from pytest_virtio.guest.firmware import FirmwareGuest
from pytest_virtio.guest.linux import LinuxGuest
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.handle import dump
from pytest_virtio.handle.conformance import broken_rules
from pytest_virtio.handle.device import VirtioDevice
from pytest_virtio.handle.profile import profile
from pytest_virtio.handle.vm import Vm
from pytest_virtio.launch import QUERY_SECONDS, RunningVm
from pytest_virtio.model.profile import Profile

__all__ = ("Virtio",)


class Virtio:
    """A running VM and its virtio devices: ``virtio["net0"]``, ``"net0" in virtio``, ``[d.id for d in virtio]``."""

    def __init__(self, running: RunningVm) -> None:
        self._running = running
        self.vm = Vm(running)
        self._devices = {id: VirtioDevice(running, id) for id in running.paths}

    def __repr__(self) -> str:
        return f"<Virtio {', '.join(self._devices)}: {self.vm!r}>"

    def __getitem__(self, id: str) -> VirtioDevice:
        """The device with this id.

        :raises UnknownNameError: naming the right ones.
        """
        if id not in self._devices:
            raise UnknownNameError("virtio device", str(id), self._devices, self._why_not(id))
        return self._devices[id]

    def _why_not(self, id: str) -> str:
        other = [d.model for d in self._running.spec.devices if d.id == id]
        if other:
            return f"It is declared, but a {other[0]} is no virtio device."
        return "" if self._devices else "This VM has none."

    def __contains__(self, id: object) -> bool:
        return id in self._devices

    def __iter__(self) -> Iterator[VirtioDevice]:
        return iter(self._devices.values())

    def __len__(self) -> int:
        return len(self._devices)

    @property
    def guest(self) -> ScriptedGuest | LinuxGuest | FirmwareGuest:
        """What runs in the VM.

        :raises NotSupportedError: when nothing does: it was declared with ``boot=False``.
        """
        guest = self._running.guest
        if guest is None:
            raise NotSupportedError("no guest runs in this VM: it was declared with boot=False")
        return guest

    def profile(self) -> Profile:
        """What was negotiated, and what the devices show, as far as it stays the same from run to run. Asking does not
        disturb them.

        :raises DisturbingQueryError: where a queue's size can't be had without; a witness (``wire=True``) tells it.
        :raises MonitorTimeoutError: when QEMU doesn't answer in time.
        :raises QemuExitedError: when it is gone.
        """
        return profile(self._running, list(self._devices), QUERY_SECONDS)

    def report(self, seconds: float = dump.DUMP_SECONDS) -> tuple[dump.Section, ...]:
        """The failure report in its sections. Asking does not disturb the VM; it never raises and ends in time.

        :param seconds: how long QEMU may be asked for.
        """
        return dump.report(self._running, seconds)

    def broken_rules(self) -> dict[str, list[str]]:
        """The rules of the specification that each device or its driver breaks, in words, by the device's id. Asking
        does not disturb them. ``device.assert_conforms()`` asserts that there are none.

        :raises MonitorTimeoutError: when QEMU doesn't answer in time.
        :raises QemuExitedError: when it is gone.
        """
        found = broken_rules(self._running, list(self._devices), QUERY_SECONDS)
        return {id: list(render.breaches(breaches)) for id, breaches in found.items()}

    def dump(self) -> str:
        """What the failure report shows, as text."""
        return "\n".join(f"---- {section.title} ----\n{section.text}" for section in self.report())

    def close(self) -> None:
        """End the VM. The fixtures do this by themselves."""
        self._running.close()
