"""Firmware as a guest: SeaBIOS and iPXE drive what they can boot from.

Responsible for which devices are expected to come up and for the moment when they have; must not know how the machine
was started. iPXE lets go of its card when its attempt to boot has failed (about 5 s after DRIVER_OK with QEMU's user
network), so being seen once is being ready.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from pytest_virtio.declare.devices import Declaration
from pytest_virtio.declare.guests import Firmware
from pytest_virtio.errors import NotSupportedError
from pytest_virtio.guest.ready import StatusOf, await_driver_ok
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Stream
from pytest_virtio.vm.qemu import Qemu

__all__ = ("FirmwareGuest",)


class FirmwareGuest:
    """The machine's firmware, running."""

    def __init__(self, qemu: Qemu, settings: Firmware) -> None:
        self._qemu, self._settings = qemu, settings
        self.console: Stream = qemu.consoles[0]

    def await_ready(self, devices: Iterable[Declaration], status_of: StatusOf, deadline: Deadline) -> None:
        """Wait until each device that the firmware drives has been seen at DRIVER_OK.

        :raises DeviceStalledError: when one was not in time.
        :raises QemuExitedError: when QEMU ends first.
        """
        driven = [d.name for d in devices if d.driver and d.kind in self._settings.drives]
        await_driver_ok(driven, status_of, deadline, self._check)

    def acknowledged(self, id: str, base: int | None, timeout: float) -> None:
        """Firmware can't be asked what its driver acknowledged."""

    def run(self, command: str | bytes, timeout: float = 0.0) -> NoReturn:
        """Firmware has no shell.

        :raises NotSupportedError: always.
        """
        raise NotSupportedError(f"run({command!r}): firmware has no shell; guest='linux' has")

    def start(self, timeout: float = 0.0) -> NoReturn:
        """This guest boots by itself.

        :raises NotSupportedError: always.
        """
        raise NotSupportedError("start(): this guest boots by itself; only guest='scripted' is started by the test")

    def driver(self, id: str, kind: object = None) -> NoReturn:
        """There is no driver in the test process.

        :raises NotSupportedError: always.
        """
        raise NotSupportedError(f"driver({id!r}): only guest='scripted' has drivers in the test process")

    @property
    def devices(self) -> NoReturn:
        """Firmware does not tell which devices it sees.

        :raises NotSupportedError: always.
        """
        raise NotSupportedError("firmware does not tell which devices it sees; guest='linux' does")

    def _check(self) -> None:
        if not self._qemu.running:
            raise self._qemu.exited("the firmware's start")
        self._qemu.alarm.check()
