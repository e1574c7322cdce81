"""One device in a driver's hands: its status, configuration and RAM, and waits that end.

Responsible for what every step and request needs, and for errors that name step, register, expected and seen; must not
know the steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

from pytest_virtio.bus.transport import Transport
from pytest_virtio.errors import DriverError, NeedsResetError, RequestTimeoutError
from pytest_virtio.guest.scripted.arena import Arena
from pytest_virtio.guest.scripted.interrupts import Signal
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.layout import Layout
from pytest_virtio.spec.status import DeviceStatus, status_names
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.memory import GuestMemory

__all__ = ("Attachment", "DeviceAccess")

L = TypeVar("L", bound=Layout)

STEP_SECONDS = 10.0
HISTORY = 64
CONFIG_ATTEMPTS = 16


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a driver is given: one device, and the VM's RAM to drive it with.

    :param features: exactly what to negotiate, if the user said so.
    :param without: what to leave out of what the driver would negotiate.
    """

    id: str
    transport: Transport
    memory: GuestMemory
    arena: Arena
    signal: Signal
    features: Collection[str | int] | None = None
    without: Collection[str | int] = ()


class DeviceAccess:
    """A device, and the guest RAM that its driver has taken."""

    def __init__(self, attachment: Attachment) -> None:
        self.id, self.transport = attachment.id, attachment.transport
        self.memory, self.signal = attachment.memory, attachment.signal
        self.type = device_type(self.transport.device_id)
        self.timeout = STEP_SECONDS
        """Seconds for each step and request, unless a call says otherwise."""
        self.history: deque[str] = deque(maxlen=HISTORY)
        """The latest steps, for reports."""
        self._arena = attachment.arena
        self._blocks: set[int] = set()
        self._status = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.transport.title}>"

    def status(self) -> frozenset[str]:
        """The device status as the device tells it: ``{"ACKNOWLEDGE", "DRIVER"}``."""
        return status_names(self.transport.status())

    def set_status(self, value: int) -> None:
        """Write the device status as it is given, whatever was before."""
        self._status = value
        self.transport.set_status(value)
        self.transport.flush()

    def isr(self) -> int:
        """Read the interrupt status, which acknowledges it."""
        return self.transport.isr()

    def read_config(self, layout: type[L]) -> L:
        """The device's configuration, all of one state (2.5.1).

        :raises DriverError: when it changes all the time.
        """
        for _ in range(CONFIG_ATTEMPTS):
            before = self.transport.config_generation()
            data = self.transport.read_config(0, layout.size())
            if self.transport.config_generation() == before:
                return layout.unpack(data, self.transport.order)
        raise DriverError(
            f"{self.id}: the configuration changed during each of {CONFIG_ATTEMPTS} attempts to read it",
            step="read_config",
            register=f"config_generation of {self.transport.title}",
        )

    def write_config(self, layout: type[Layout], field: str, value: int, size: int) -> None:
        """Write one field of the device's configuration, ``size`` bytes wide."""
        self.transport.write_config(layout.offset(field), value.to_bytes(size, self.transport.order))
        self.transport.flush()

    def allocate(self, size: int, align: int = 1) -> int:
        """Take a block of guest RAM: its guest-physical address.

        :param align: a power of two.
        :raises UsageError: when guest RAM is used up.
        """
        address = self._arena.allocate(size, align)
        self._blocks.add(address)
        return address

    def free(self, address: int) -> None:
        """Give a block back."""
        self._blocks.remove(address)
        self._arena.free(address)

    def await_result(self, what: str, look: Callable[[], bool], deadline: Deadline, seen: Callable[[], str]) -> None:
        """Wait until ``look`` says so.

        :param what: what is waited for, in words.
        :param seen: says how things stand, for the error.
        :raises RequestTimeoutError: at the deadline.
        :raises NeedsResetError: when the device breaks instead.
        :raises QemuExitedError: when QEMU is gone.
        """
        rounds = 0
        while not look():
            status = self.transport.status()
            if look():
                return
            self.check_needs_reset(status, what)
            if deadline.passed():
                raise RequestTimeoutError(
                    f"{self.id}: {what} did not come within {deadline.seconds:g} s",
                    step=self._latest(),
                    register=self.transport.status_register,
                    expected=what,
                    seen=f"{seen()}; device status {_shown(status)}",
                )
            rounds += 1
            self.signal.pause(rounds, deadline)

    def check_needs_reset(self, status: int, during: str) -> None:
        """Raise when the status says that the device is broken.

        :raises NeedsResetError: it has set DEVICE_NEEDS_RESET.
        """
        if status & DeviceStatus.NEEDS_RESET:
            raise NeedsResetError(
                f"{self.id}: the device is broken: it has set DEVICE_NEEDS_RESET",
                step=during,
                register=self.transport.status_register,
                expected=_shown(self._status),
                seen=_shown(status),
            )

    def unexpected(self, what: str, expected: str, status: int) -> DriverError:
        """The error for a device status that should be another."""
        return DriverError(
            f"{self.id}: {what}",
            step=self._latest(),
            register=self.transport.status_register,
            expected=expected,
            seen=_shown(status),
        )

    def begin(self, step: str) -> None:
        """Note a step: errors and reports name it."""
        self.history.append(step)

    def _latest(self) -> str:
        return self.history[-1] if self.history else "none yet"


def _shown(status: int) -> str:
    return f"{status:#04x} ({' '.join(sorted(status_names(status))) or 'reset'})"
