"""A Linux guest: its readiness and its devices, by our agent's word on the second serial port.

Responsible for when the guest is ready and for why it is not; must not know how the image was made or the machine
started, nor how a command is run (``shell``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from pytest_virtio.declare.devices import Declaration
from pytest_virtio.errors import DeviceStalledError, GuestError, GuestSilentError, NotSupportedError
from pytest_virtio.guest.health import Health
from pytest_virtio.guest.ready import StatusOf, await_driver_ok
from pytest_virtio.guest.shell import RUN_SECONDS, CommandResult, Shell, decoded
from pytest_virtio.render import escape
from pytest_virtio.spec.status import DeviceStatus
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Stream
from pytest_virtio.vm.qemu import Qemu

__all__ = ("CommandResult", "GuestDevice", "LinuxGuest")

READ_FEATURES = (
    "while read -r range colon name rest; do case $range in {base:08x}-*) break;; esac; done < /proc/iomem; "
    "cd /sys/bus/platform/devices/$name/virtio*/ && read -r status < status && read -r features < features && "
    "echo $status $features"
)
"""A shell command: the status and the features of the virtio device whose MMIO registers are at an address.
By words of the shell itself: a process takes tens of milliseconds to start there."""
READY = re.compile(rb"@pv ready 1\s")


@dataclass(frozen=True, slots=True)
class GuestDevice:
    """A virtio device as the guest's kernel sees it in sysfs."""

    name: str
    device_id: int
    status: int
    driver: str
    """``""`` when no driver is bound."""
    path: str


class LinuxGuest:
    """A Linux guest, booting or running."""

    def __init__(self, qemu: Qemu) -> None:
        self.console: Stream = qemu.consoles[0]
        self._health = Health(qemu, self.console)
        self._shell = Shell(qemu.child.drain, qemu.consoles[1], self._health)
        self._first = self._shell.tap()
        self._announced = b""

    def await_ready(self, devices: Iterable[Declaration], status_of: StatusOf, deadline: Deadline) -> None:
        """Wait for the agent's own word that it is up, then for DRIVER_OK of each device that has a driver.

        The firmware's DRIVER_OK comes before and does not count: a device is ready when the guest's kernel says that
        a driver is bound and QEMU says that it is at DRIVER_OK.

        :raises GuestSilentError: when the agent says nothing in time.
        :raises GuestPanicError: at once when the kernel panics.
        :raises DeviceStalledError: when no driver takes a device, or a driver doesn't finish.
        :raises QemuExitedError: at once when QEMU ends.
        """
        if self._shell.expect(self._first, READY, deadline) is None:
            raise GuestSilentError(f"no word from the guest within {deadline.seconds:g} s; {self._health.last_words()}")
        self._announced = bytes(self._first.before or b"")
        wanted = [d for d in devices if d.driver]
        self._refuse_driverless(wanted, status_of)
        await_driver_ok([d.name for d in wanted], status_of, deadline, self._health.heed, self._module_trouble())

    def acknowledged(self, id: str, base: int | None, timeout: float) -> int | None:
        """The feature bits that the kernel's driver acknowledged, by its sysfs; None of a device on PCI, where
        registers tell them as soon as sysfs does, and while the guest or the driver is not up.

        :param base: the device's address on MMIO.
        :param timeout: seconds; 0 when it is not to be asked.
        :raises QemuExitedError: when QEMU ends.
        """
        if base is None or not self._announced or not timeout:
            return None
        try:
            told = self._shell.run(READ_FEATURES.format(base=base), timeout, heedless=True)
        except GuestError:
            # It may have panicked, or hang: then nobody knows.
            return None
        return acknowledged_features(told.output.decode(errors="replace"))

    def run(self, command: str | bytes, timeout: float = RUN_SECONDS) -> CommandResult:
        """Run a command in the guest's shell, with an empty standard input. Threads may run several at a time.

        :param command: for ``sh -c``; at most 32 KiB.
        :param timeout: seconds; the command is killed after that and the shell stays usable.
        :raises GuestTimeoutError: when the command does not end in time; carries what it wrote.
        :raises GuestSilentError: when the guest does not even take the command.
        :raises GuestPanicError: at once when the kernel panics.
        :raises QemuExitedError: at once when QEMU ends.
        :raises VirtioAssertionError: when a queue stands still for as long as ``stall`` says.
        :raises GuestError: when the guest starts anew meanwhile.
        :raises UsageError: for a command that can't be sent.
        """
        return self._shell.run(command, timeout)

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
    def devices(self) -> tuple[GuestDevice, ...]:
        """The virtio devices in the guest's sysfs, as they were when the guest became ready."""
        return _devices(self._announced)

    @property
    def _unloaded(self) -> list[str]:
        """The modules that did not load, each with insmod's and the kernel's words."""
        failed = re.findall(rb"@pv module (\S+) failed ([A-Za-z0-9+/=]*)", self._announced)
        return [f"{escape(name, 80)}: {escape(decoded(why), 500).strip()}" for name, why in failed]

    def _module_trouble(self) -> str:
        return "".join(f"\nmodule that did not load: {line}" for line in self._unloaded)

    def _refuse_driverless(self, wanted: list[Declaration], status_of: StatusOf) -> None:
        """Say at once that a driver is missing, instead of waiting for what can't come.

        What the kernel lists it has reset, so the status is its own doing; what it doesn't list may still stand where
        the firmware left it.
        """
        statuses = {declaration.name: status_of(declaration.name) for declaration in wanted}
        needed = Counter(status.device_id for status in statuses.values())
        listed = Counter(device.device_id for device in self.devices)
        for id, status in statuses.items():
            untouched = not status.status & {"DRIVER", "FAILED"}
            if untouched or listed[status.device_id] < needed[status.device_id]:
                raise DeviceStalledError(self._driverless(id, status.device_id))

    def _driverless(self, id: str, device_id: int) -> str:
        unloaded = self._unloaded
        if unloaded:
            more = "".join(f"\nand {line}" for line in unloaded[1:])
            return f"{id}: no driver took it, and a module did not load: {unloaded[0]}{more}"
        if not self.devices:
            return (
                f"{id}: the guest's kernel sees no virtio device at all: it lacks the transport (CONFIG_VIRTIO_PCI, "
                "CONFIG_VIRTIO_MMIO). Give virtio_pci or virtio_mmio by --virtio-modules=DIR or Linux(modules=[...])."
            )
        return (
            f"{id}: the guest's kernel has no driver for it (virtio device id {device_id}). "
            "Give one by --virtio-modules=DIR or Linux(modules=[...]), or declare the device with driver=None."
        )


def acknowledged_features(sysfs: str) -> int | None:
    """The features of a device by its ``status`` and ``features`` in sysfs; None until the driver has decided.

    :param sysfs: the two files' contents; ``features`` has a character for each bit, bit 0 first.
    """
    found = re.fullmatch(r"0x([0-9a-f]{1,8})\s+([01]{1,128})\s*", sysfs)
    if found is None or not int(found[1], 16) & (DeviceStatus.FEATURES_OK | DeviceStatus.DRIVER_OK):
        return None
    return int(found[2][::-1], 2)


def _devices(announced: bytes) -> tuple[GuestDevice, ...]:
    line = re.compile(rb"@pv device (\S+) (?:0x)?([0-9a-fA-F]+) (?:0x)?([0-9a-fA-F]+) (\S+) (\S*)")
    return tuple(
        GuestDevice(
            name=name.decode(errors="replace"),
            device_id=int(number, 16),
            status=int(status, 16),
            driver="" if driver == b"-" else driver.decode(errors="replace"),
            path=path.decode(errors="replace"),
        )
        for name, number, status, driver, path in line.findall(announced)
    )
