"""A Linux guest: its readiness, its shell, and the three ways in which it can fail to answer.

Responsible for the conversation with our agent on the second serial port (the kernel logs on the first); must not know
how the image was made or the machine started. A panic and a dead QEMU are raised at once, silence at its deadline.

The agent's messages are lines ``@pv WORD …`` of printable ASCII; what a command writes travels as base64, so nothing
that it writes, and no kernel message, can look like one, and each carries the command's own number.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, cast

import pexpect.exceptions

from pytest_virtio.declare.devices import Declaration
from pytest_virtio.errors import (
    DeviceStalledError,
    GuestError,
    GuestPanicError,
    GuestSilentError,
    GuestTimeoutError,
    UsageError,
)
from pytest_virtio.guest.ready import StatusOf, await_driver_ok
from pytest_virtio.guest.tap import Tap
from pytest_virtio.render import escape
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Stream
from pytest_virtio.vm.qemu import Qemu

__all__ = ("CommandResult", "GuestDevice", "LinuxGuest")

RUN_SECONDS = 30.0
COMMAND_BYTES = 32 * 1024
PANIC = re.compile(rb"Kernel panic - not syncing[^\n]*")
READY = re.compile(rb"@pv ready 1\s")
TAIL_BYTES = 2000
KILL_SECONDS = 5.0


class CommandResult(NamedTuple):
    """What a command in the guest did; unpacks as ``exit_status, output``."""

    exit_status: int
    """As the shell sees it: 128 + signal number for a command that a signal ended."""
    output: bytes
    """Standard output and error, in the order in which they were written."""

    @property
    def text(self) -> str:
        """The output as text; what is not UTF-8 shows as escapes."""
        return self.output.decode(errors="backslashreplace")


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
        self._qemu = qemu
        self._drain = qemu.child.drain
        self.console: Stream = qemu.consoles[0]
        self._tap = Tap(self._drain, qemu.consoles[1], self._check)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._panic_searched = 0
        self._panic: str | None = None
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
        agent = "the guest's agent"
        if self._next(READY, deadline, agent) is None:
            raise GuestSilentError(f"{agent} said nothing within {deadline.seconds:g} s; {self._last_words()}")
        self._announced = bytes(self._tap.before or b"")
        wanted = [d for d in devices if d.driver]
        self._refuse_driverless(wanted, status_of)
        await_driver_ok([d.name for d in wanted], status_of, deadline, self._check, self._module_trouble())

    def run(self, command: str | bytes, timeout: float = RUN_SECONDS) -> CommandResult:
        """Run a command in the guest's shell, with an empty standard input.

        :param command: for ``sh -c``; at most 32 KiB.
        :param timeout: seconds; the command is killed after that and the shell stays usable.
        :raises GuestTimeoutError: when the command does not end in time; carries what it wrote.
        :raises GuestPanicError: at once when the kernel panics.
        :raises QemuExitedError: at once when QEMU ends.
        :raises UsageError: for a command that can't be sent.
        """
        raw = _checked(command)
        deadline = Deadline.after(timeout)
        with self._lock:
            number = f"c{next(self._numbers)}"
            self._send(b"run %s %s\n" % (number.encode(), base64.b64encode(raw)), deadline)
            return self._collect(number, raw, deadline)

    @property
    def devices(self) -> tuple[GuestDevice, ...]:
        """The virtio devices in the guest's sysfs, as they were when the guest became ready."""
        return _devices(self._announced)

    def _collect(self, number: str, raw: bytes, deadline: Deadline) -> CommandResult:
        output = bytearray()
        message = re.compile(rb"@pv (out|end) %s ([A-Za-z0-9+/=]*)\r?\n" % number.encode())
        while True:
            found = self._next(message, deadline, "the guest's shell")
            if found is None:
                self._kill(number)
                raise GuestTimeoutError(_overdue(raw, deadline.seconds, bytes(output)), bytes(output))
            word, value = found.groups()
            if word == b"end":
                return CommandResult(int(value), bytes(output))
            output += _decoded(value)

    def _kill(self, number: str) -> None:
        """Kill an overdue command with all its children; the agent is then ready for the next one."""
        self._send(b"kill %s\n" % number.encode(), Deadline.after(KILL_SECONDS))

    def _send(self, data: bytes, deadline: Deadline) -> None:
        self._check()
        if self._drain.write(self._qemu.consoles[1], data, deadline) < len(data):
            self._check()
            raise GuestSilentError(f"the guest's agent takes no input; {self._last_words()}")

    def _next(self, message: re.Pattern[bytes], deadline: Deadline, who: str) -> re.Match[bytes] | None:
        """The next message of a form; None at the deadline."""
        try:
            self._tap.expect(message, timeout=deadline.remaining())
        except pexpect.exceptions.TIMEOUT:
            return None
        except pexpect.exceptions.EOF:
            raise self._gone(who) from None
        return cast(re.Match[bytes], self._tap.match)

    def _gone(self, who: str) -> Exception:
        """The serial port has closed, so QEMU is going."""
        if self._qemu.child.wait(Deadline.after(KILL_SECONDS)):
            return self._qemu.exited(f"the wait for {who}")
        return GuestError(f"{who}: its serial port closed, and QEMU still runs")

    def _check(self) -> None:
        """Raise what makes any waiting pointless."""
        if self._panicked():
            raise GuestPanicError(f"the guest's kernel panicked: {self._panic}")
        if not self._qemu.running:
            raise self._qemu.exited("the guest's run")

    def _panicked(self) -> bool:
        log = self.console.log
        if self._panic is None and log.size > self._panic_searched:
            # A message may come in pieces: look again at the last bit of what was searched.
            found = PANIC.search(log.since(max(0, self._panic_searched - 80)))
            self._panic_searched = log.size
            self._panic = escape(found[0], TAIL_BYTES).strip() if found else None
        return self._panic is not None

    def _last_words(self) -> str:
        tail = self.console.log.since(max(0, self.console.log.size - TAIL_BYTES))
        if not tail.strip():
            return "the guest's console is empty: its kernel never spoke (wrong kernel, machine or accelerator?)"
        return f"its console ended with:\n{escape(tail, TAIL_BYTES)}"

    def _module_trouble(self) -> str:
        failed = re.findall(rb"@pv module (\S+) failed ([A-Za-z0-9+/=]*)", self._announced)
        lines = [f"{escape(name, 80)}: {escape(_decoded(why), 500).strip()}" for name, why in failed]
        return "".join(f"\nmodule that did not load: {line}" for line in lines)

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
        return (
            f"{id}: the guest's kernel has no driver for it (virtio device id {device_id}). "
            "Give one by --virtio-modules DIR or Linux(modules=[...]), or declare the device with driver=None."
            + self._module_trouble()
        )


def _checked(command: str | bytes) -> bytes:
    raw = command.encode() if isinstance(command, str) else command
    if not raw.strip() or b"\0" in raw or len(raw) > COMMAND_BYTES:
        raise UsageError(
            f"run(): a command is 1 to {COMMAND_BYTES} bytes without NUL; got {len(raw)} bytes: {escape(raw, 60)!r}"
        )
    return raw


def _overdue(raw: bytes, seconds: float, output: bytes) -> str:
    said = f"it had written:\n{escape(output[-TAIL_BYTES:], TAIL_BYTES)}" if output else "it had written nothing"
    return f"{escape(raw, 200)!r} did not end within {seconds:g} s and was killed; {said}"


def _decoded(value: bytes) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise GuestError(f"the guest's agent sent what is not base64: {escape(value, 80)}") from error


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
