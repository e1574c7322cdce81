"""One device in a driver's hands: its status, configuration and RAM, and waits that end.

Responsible for what every step and request needs, and for errors that name step, register, expected and seen; must not
know the steps.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar
from weakref import WeakSet

from pytest_virtio.bus.transport import Transport
from pytest_virtio.errors import DriverError, NeedsResetError, RequestTimeoutError, UsageError
from pytest_virtio.guest.scripted.arena import Arena
from pytest_virtio.guest.scripted.interrupts import Signal
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.layout import ByteOrder, Layout
from pytest_virtio.spec.status import DeviceStatus, status_names
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.memory import GuestMemory
from pytest_virtio.vm.qtest import Qtest

__all__ = ("Attachment", "DeviceAccess", "Follower")

L = TypeVar("L", bound=Layout)

STEP_SECONDS = 10.0
HISTORY = 64
CONFIG_ATTEMPTS = 16


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a driver is given: one device, and the VM's RAM to drive it with.

    :param features: exactly what to negotiate, if the user said so.
    :param without: what to leave out of what the driver would negotiate.
    :param heed: called in each round of a wait; raises when the VM's alarm sounds.
    """

    id: str
    transport: Transport
    memory: GuestMemory
    arena: Arena
    signal: Signal
    wire: Qtest
    features: Collection[str | int] | None = None
    without: Collection[str | int] = ()
    heed: Callable[[], None] = lambda: None


class Follower(Protocol):
    """Somebody who counts what the device gives back on one queue, from another thread too."""

    @property
    def index(self) -> int:
        """The queue's."""

    def end(self) -> None:
        """The queue is about to be reset, which forgets its indices."""

    def begin(self) -> None:
        """It was set up anew."""


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
        self.wire = attachment.wire
        """The way to registers and memory beyond the transport's own."""
        self._followers: WeakSet[Follower] = WeakSet()
        self._following = threading.Lock()
        self._arena, self._heed = attachment.arena, attachment.heed
        self._blocks: set[int] = set()
        self._status = 0
        self._in_one_go = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.transport.title}>"

    def status(self) -> frozenset[str]:
        """The device status as the device tells it: ``{"ACKNOWLEDGE", "DRIVER"}``."""
        return status_names(self.transport.status())

    def set_status(self, value: int) -> None:
        """Write the device status as it is given, whatever was before.

        :param value: 8 bits.
        :raises UsageError: for more than that.
        """
        if not 0 <= value <= 0xFF:
            raise UsageError(f"set_status({value:#x}): the device status has 8 bits")
        self._write_status(value)
        self.settle()

    def settle(self) -> None:
        """Do what was written, so that a step is over when it returns, unless the next one follows in one go."""
        if not self._in_one_go:
            self.transport.flush()

    @contextmanager
    def in_one_go(self, timeout: float | None) -> Iterator[None]:
        """Steps that follow one another without a look in between: what they write waits for the next read.

        :param timeout: seconds for each step, if less than :attr:`timeout`.
        """
        usual = self.timeout
        self.timeout, self._in_one_go = usual if timeout is None else min(usual, timeout), True
        try:
            yield
        finally:
            self.timeout, self._in_one_go = usual, False

    def isr(self) -> int:
        """Read the interrupt status, which acknowledges it."""
        return self.transport.isr()

    def read_config(self, layout: type[L], order: ByteOrder | None = None) -> L:
        """The device's configuration, all of one state (2.5.1): of one generation, or read twice with the same result
        where a legacy interface tells no generation (2.5.4).

        :param order: its byte order; the transport's by default, as nearly all legacy devices have it (2.5.3).
        :raises DriverError: when it changes all the time.
        """
        earlier = None
        for _ in range(CONFIG_ATTEMPTS):
            before = self.transport.config_generation()
            data = self._config_bytes(layout)
            settled = data == earlier if self.transport.legacy else self.transport.config_generation() == before
            if settled:
                return layout.unpack(data, order or self.transport.order)
            earlier = data
        raise DriverError(
            f"{self.id}: the configuration changed during each of {CONFIG_ATTEMPTS} attempts to read it",
            step="read_config",
            register=f"config_generation of {self.transport.title}",
        )

    def write_config(self, layout: type[Layout], field: str, value: int, order: ByteOrder | None = None) -> None:
        """Write one field of the device's configuration.

        :raises UsageError: when the value doesn't fit.
        """
        size = layout.width_of(field)
        if not 0 <= value < 1 << 8 * size:
            raise UsageError(f"{layout.__name__}.{field}: {value:#x} doesn't fit into {size} bytes")
        self.transport.write_config(layout.offset(field), value.to_bytes(size, order or self.transport.order))
        self.transport.flush()

    def follow(self, follower: Follower) -> None:
        """Tell somebody of resets of a queue from now on, for as long as anybody else knows him."""
        with self._following:
            self._followers.add(follower)

    def allocate(self, size: int, align: int = 1) -> int:
        """Take a block of guest RAM, which a reset of the device gives back at the latest.

        :param size: bytes.
        :param align: a power of two.
        :return: its guest-physical address; what is in it is what was there before.
        :raises UsageError: when guest RAM is used up, or for an impossible number.
        """
        address = self._arena.allocate(size, align)
        self._blocks.add(address)
        return address

    def free(self, address: int) -> None:
        """Give a block back.

        :raises UsageError: when it isn't the driver's.
        """
        if address not in self._blocks:
            raise UsageError(f"{self.id}: free({address:#x}): the driver has no block of guest RAM there")
        self._blocks.remove(address)
        self._arena.free(address)

    def await_result(
        self, what: str, look: Callable[[], bool], deadline: Deadline, seen: Callable[[], str], step: str = ""
    ) -> None:
        """Wait until ``look`` says so.

        :param what: what is waited for, in words.
        :param seen: says how things stand, for the error.
        :param step: in which step or request; the latest step by default.
        :raises RequestTimeoutError: at the deadline.
        :raises NeedsResetError: when the device breaks instead.
        :raises QemuExitedError: when QEMU is gone.
        :raises VirtioAssertionError: when a queue stands still for as long as ``stall`` says.
        """
        rounds, step = 0, step or self._latest()
        while not look():
            # Those who find what they look for at once don't pay for this.
            with self.wire.within(deadline, f"{self.id}: {step}, {self.transport.status_register}"):
                status = self.transport.status()
            if look():
                return
            self.check_status(status, step)
            self._heed()
            if deadline.passed():
                raise RequestTimeoutError(
                    f"{self.id}: {what} did not come within {deadline.seconds:g} s",
                    step=step,
                    register=self.transport.status_register,
                    expected=what,
                    seen=f"{seen()}; device status {_shown(status)}",
                )
            rounds += 1
            self.signal.pause(rounds, deadline)

    def check_status(self, status: int, during: str) -> None:
        """Raise when the status says that nothing more can come.

        :raises NeedsResetError: the device has set DEVICE_NEEDS_RESET.
        :raises DriverError: it was reset, and not by its driver.
        """
        self.check_needs_reset(status, during)
        if not status and self._status:
            what = "the device was reset behind its driver's back; virtio.guest.start() brings it up again"
            raise self.unexpected(what, _shown(self._status), status, step=during)

    def check_needs_reset(self, status: int, during: str) -> None:
        """Raise when the status says that the device is broken.

        :raises NeedsResetError: it has set DEVICE_NEEDS_RESET.
        """
        if status & DeviceStatus.NEEDS_RESET:
            what = "the device is broken: it has set DEVICE_NEEDS_RESET"
            raise self.unexpected(what, _shown(self._status), status, step=during, kind=NeedsResetError)

    def unexpected(
        self, what: str, expected: str, status: int, *, step: str = "", kind: type[DriverError] = DriverError
    ) -> DriverError:
        """The error for a device status that should be another.

        :param step: in which step or request; the latest step by default.
        """
        register = self.transport.status_register
        return kind(
            f"{self.id}: {what}", step=step or self._latest(), register=register, expected=expected, seen=_shown(status)
        )

    def begin(self, step: str) -> None:
        """Note a step: errors and reports name it."""
        self.history.append(step)

    @contextmanager
    def step(self, name: str, register: str) -> Iterator[None]:
        """A step that takes no longer than :attr:`timeout`; should QEMU end or hang, the error names it.

        :param register: the name of the one that it is about.
        """
        self.begin(name)
        with self.wire.within(self.deadline(), f"{self.id}: {name}, {register}"):
            yield

    def deadline(self, timeout: float | None = None) -> Deadline:
        """When something that begins now must have ended.

        :param timeout: seconds; :attr:`timeout` by default.
        """
        return Deadline.after(self.timeout if timeout is None else timeout)

    def _config_bytes(self, layout: type[Layout]) -> bytes:
        """Field by field, each by accesses no wider than it is (4.1.3.1, 4.2.2.2): QEMU answers one that crosses the
        configuration's end with ones, also for the part that is there."""
        fields = layout.__annotations__
        return b"".join(self.transport.read_config(layout.offset(name), layout.width_of(name)) for name in fields)

    def _followers_of(self, queue: int | None = None) -> list[Follower]:
        """Those of a queue, or of all."""
        with self._following:
            return [follower for follower in self._followers if queue in (None, follower.index)]

    def _write_status(self, value: int) -> None:
        if not value:
            for follower in self._followers_of():
                follower.end()
        self._status = value
        self.transport.set_status(value)

    def _latest(self) -> str:
        return self.history[-1] if self.history else "none yet"


def _shown(status: int) -> str:
    return f"{status:#04x} ({' '.join(sorted(status_names(status))) or 'reset'})"
