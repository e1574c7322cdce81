"""The scripted guest of one VM: a driver for each of its virtio devices.

Responsible for finding the devices, for giving each the driver of its type and for bringing them up; must not know how
QEMU was started.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar, overload

from pytest_virtio.bus.find import find_mmio, find_pci
from pytest_virtio.bus.transport import Transport
from pytest_virtio.declare.devices import Declaration
from pytest_virtio.declare.guests import FeatureList, Scripted
from pytest_virtio.errors import NotSupportedError, UnknownNameError, UsageError
from pytest_virtio.guest.ready import StatusOf
from pytest_virtio.guest.scripted.access import Attachment
from pytest_virtio.guest.scripted.arena import FIRST, Arena
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers import driver_class
from pytest_virtio.guest.scripted.interrupts import IntxLine, Messages, Signal
from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.devices import device_type
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.memory import GuestMemory
from pytest_virtio.vm.qemu import Qemu
from pytest_virtio.vm.qtest import Qtest, Read

__all__ = ("ScriptedGuest",)

D = TypeVar("D", bound=Driver)

START_SECONDS = 30.0

_MARK = b"our RAM?"


class ScriptedGuest:
    """A guest whose drivers run in the test process; the VM's CPU sleeps.

    :param transport: ``"mmio"``, or any PCI one.
    """

    def __init__(self, qemu: Qemu, settings: Scripted, transport: str) -> None:
        self._qemu, self._settings, self._transport = qemu, settings, transport
        self._arena = Arena(qemu.memory.size)
        self._declared: tuple[Declaration, ...] = ()
        self._drivers: dict[str, Driver] = {}
        self._intercepted = False

    def await_ready(self, devices: Iterable[Declaration], status_of: StatusOf, deadline: Deadline) -> None:
        """Bring every device to DRIVER_OK that is declared with a driver. It raises as :meth:`start` does.

        :raises UsageError: when the guest's RAM is not what we have mapped.
        """
        self._declared = tuple(devices)
        check_ram(self._qemu.memory, self._qemu.qtest)
        self.start(deadline.remaining())

    def start(self, timeout: float = START_SECONDS) -> None:
        """Find the devices and bring every one to DRIVER_OK that is declared with a driver, as when the test began.

        After ``virtio.vm.reset()``, which takes their addresses away, this has to be called before any driver does
        anything. Drivers are the same as before, with new queues; a device without a driver of its own is found, reset
        if a test has driven it, and left alone.

        :param timeout: seconds, for all of them.
        :raises DriverError: naming the step at which one does not go on.
        :raises QemuExitedError: when QEMU ends.
        """
        deadline = Deadline.after(timeout)
        with self._qemu.qtest.within(deadline, "finding the devices"):
            self._find()
        driven = {declaration.name for declaration in self._declared if declaration.driver}
        for driver in self.drivers:
            if driver.id in driven:
                driver.initialise(timeout=deadline.remaining())
            elif driver.queues:
                driver.reset()

    @property
    def drivers(self) -> tuple[Driver, ...]:
        """The drivers of all devices."""
        return tuple(self._drivers.values())

    @overload
    def driver(self, id: str) -> Any: ...

    @overload
    def driver(self, id: str, kind: type[D]) -> D: ...

    def driver(self, id: str, kind: type[Driver] = Driver) -> Any:
        """The driver of a device, by the device's id.

        :param kind: the driver's class, for those who want the answer typed: ``BlkDriver``.
        :raises UnknownNameError: naming the right ids.
        :raises UsageError: when the device's driver is of another class.
        """
        driver = self._drivers.get(id) if isinstance(id, str) else None
        if driver is None:
            raise UnknownNameError("device of the scripted guest", str(id), self._drivers)
        if not isinstance(kind, type):
            raise UsageError(f"driver({id!r}, {kind!r}): the second argument is a class: BlkDriver")
        if not isinstance(driver, kind):
            raise UsageError(f"the driver of {id} is a {type(driver).__name__}, no {kind.__name__}")
        return driver

    def acknowledged(self, id: str, base: int | None, timeout: float) -> int | None:
        """The feature bits that a device's driver has written since its last reset; None if nobody drives it."""
        driver = self._drivers.get(id)
        return driver.negotiated.bits if driver else None

    def run(self, command: str | bytes, timeout: float = 0.0) -> NoReturn:
        """The scripted guest has no shell.

        :raises NotSupportedError: always.
        """
        raise NotSupportedError(f"run({command!r}): the scripted guest has no shell; guest='linux' has")

    @property
    def devices(self) -> NoReturn:
        """The scripted guest has no sysfs.

        :raises NotSupportedError: always.
        """
        raise NotSupportedError("the scripted guest has no sysfs: its drivers are virtio.guest.driver('blk0')")

    @property
    def console(self) -> NoReturn:
        """The scripted guest has no console.

        :raises NotSupportedError: always.
        """
        raise NotSupportedError("the scripted guest has no console: nothing runs in its VM")

    def _find(self) -> None:
        """Find the devices; those that are known keep their drivers."""
        transports = self._transports()
        types = {id: device_type(transport.device_id) for id, transport in transports.items()}
        without = left_out(self._settings.without, types)
        check_features("features", self._settings.features, types)
        for driver in self.drivers:
            if driver.id in transports:
                driver.transport = transports[driver.id]
        self._drivers = {
            id: self._drivers.get(id) or self._attached(id, transport, without[id])
            for id, transport in transports.items()
        }

    def _transports(self) -> Mapping[str, Transport]:
        execute, wire = self._qemu.execute, self._qemu.qtest
        if self._transport == "mmio":
            return find_mmio(execute, wire, {d.name: f"/machine/peripheral/{d.name}" for d in self._declared})
        return find_pci(execute, wire, legacy=self._settings.legacy)

    def _attached(self, id: str, transport: Transport, without: FeatureList) -> Driver:
        signal = self._signal(transport)
        features = self._settings.features.get(id)
        heed = self._qemu.alarm.check
        attachment = Attachment(
            id, transport, self._qemu.memory, self._arena, signal, self._qemu.qtest, features, without, heed
        )
        return driver_class(transport.device_id)(attachment)

    def _signal(self, transport: Transport) -> Signal:
        if self._settings.interrupts == "none":
            return Signal()
        if self._settings.interrupts == "msix" and transport.vectors:
            return Messages(self._qemu.memory, self._arena, transport.vectors)
        if transport.line is None:
            return Signal()
        if not self._intercepted:
            # QEMU takes one controller, once; all devices of a machine are wired to the same.
            self._qemu.qtest.intercept(transport.controller)
            self._intercepted = True
        return IntxLine(self._qemu.qtest, transport.line)


def check_ram(memory: GuestMemory, wire: Qtest) -> None:
    """See to it that the guest's RAM is what we have mapped: further QEMU arguments can put other RAM in its place.

    Looked at are the ends of what drivers use, in one conversation.

    :raises UsageError: naming the remedy.
    """
    places = (FIRST, memory.size - len(_MARK))
    for place in places:
        memory.write(place, _MARK)
    seen = wire.exchange([Read("memory", place, len(_MARK)) for place in places])
    for place, value in zip(places, seen, strict=True):
        memory.write(place, bytes(len(_MARK)))
        if value != int.from_bytes(_MARK, "little"):
            raise UsageError(
                f"guest RAM at {place:#x} is not the RAM that the scripted guest has mapped: leave "
                "memory-backend=, memory-backend-* for RAM, -numa memdev= and max-ram-below-4g= out of args, and say "
                "its size by memory="
            )


def check_features(setting: str, chosen: Mapping[str, FeatureList], types: Mapping[str, DeviceType]) -> None:
    """Refuse ids that no device has, and features that the device can't have.

    :raises UnknownNameError: naming the right ones.
    """
    for id, features in chosen.items():
        if id not in types:
            raise UnknownNameError(f"device in Scripted({setting}=...)", id, types)
        for feature in features:
            types[id].feature_names.bit(feature)


def left_out(
    without: Mapping[str, FeatureList] | FeatureList, types: Mapping[str, DeviceType]
) -> dict[str, FeatureList]:
    """What each device's driver leaves out: by id, or of a list for all devices what each of them can have.

    :raises UnknownNameError: for an id that no device has, for a feature that the device can't have, and in a list for
        one that none can have.
    """
    if isinstance(without, Mapping):
        check_features("without", without, types)
        return {id: without.get(id, ()) for id in types}
    for feature in without:
        refused = [error for type in types.values() if (error := _refusal(feature, type))]
        if refused and len(refused) == len(types):
            raise refused[0]
    return {id: [feature for feature in without if not _refusal(feature, type)] for id, type in types.items()}


def _refusal(feature: str | int, type: DeviceType) -> UnknownNameError | None:
    try:
        type.feature_names.bit(feature)
    except UnknownNameError as error:
        return error
    return None
