"""The input device (virtio 1.3 section 5.8): what it can do, what happens to it, and lamps to light.

Responsible for the window of its configuration and for events in both directions; must not know keys and axes, which
are Linux's (input-event-codes.h).
"""

from __future__ import annotations

from typing import NamedTuple

from pytest_virtio.errors import RequestFailedError, UsageError
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.messages import number
from pytest_virtio.guest.scripted.queue import Request
from pytest_virtio.spec.devices.input import (
    InputAbsinfo,
    InputConfig,
    InputConfigSelect,
    InputDevids,
    InputEvent,
    InputEventType,
)

__all__ = ("Event", "InputDriver")

SYN_REPORT = 0
"""Linux's code of the event that ends a report; its type is SYN."""


class Event(NamedTuple):
    """An event as Linux counts: type, code, and a value that may be negative."""

    type: int
    code: int
    value: int


class InputDriver(Driver):
    """Drives an input device."""

    def config(self) -> InputConfig:
        """The device's configuration (5.8.4): the window, where it stands now."""
        return self.read_config(InputConfig)

    def name(self) -> str:
        """What the device calls itself."""
        return self._text(InputConfigSelect.ID_NAME)

    def serial(self) -> str:
        """The device's serial number; "" if it has none."""
        return self._text(InputConfigSelect.ID_SERIAL)

    def ids(self) -> InputDevids:
        """Bus, vendor, product and version; zeros if it doesn't say."""
        return InputDevids.unpack(self.select(InputConfigSelect.ID_DEVIDS))

    def properties(self) -> frozenset[int]:
        """INPUT_PROP_* of Linux that the device has."""
        return self._bits(InputConfigSelect.PROP_BITS)

    def codes(self, type: int) -> frozenset[int]:
        """The codes of one type of event that the device knows; none if it doesn't know the type.

        :param type: :class:`InputEventType` or another below 256.
        """
        return self._bits(InputConfigSelect.EV_BITS, type)

    def abs_info(self, axis: int) -> InputAbsinfo | None:
        """The range of an absolute axis (ABS_* of Linux); None for an axis that the device doesn't have."""
        data = self.select(InputConfigSelect.ABS_INFO, axis)
        return InputAbsinfo.unpack(data) if data else None

    def select(self, select: int, subsel: int = 0) -> bytes:
        """Move the configuration's window, and read what is there: b"" where there is nothing (5.8.5).

        :raises RequestFailedError: when the device claims more than the window holds.
        :raises UsageError: for numbers of more than 8 bits.
        """
        self.begin(f"select {number('select', select, 8):#04x}, {number('subsel', subsel, 8):#04x}")
        self.write_config(InputConfig, "select", select)
        self.write_config(InputConfig, "subsel", subsel)
        config = self.config()
        if config.size_ > len(config.u):
            raise self._failed(
                "the device claims more than its window holds", "size", f"0 to {len(config.u)}", config.size_
            )
        return config.u[: config.size_]

    def next_event(self, timeout: float | None = None) -> Event:
        """Wait for the next event.

        :raises RequestFailedError: when what comes is no event.
        :raises RequestTimeoutError: when none comes in time.
        """
        queue = self.queue("event")
        data = queue.next(timeout).written
        self._offer_buffer()
        queue.kick()
        if len(data) != InputEvent.size():
            raise self._failed("what the device wrote is no event", "used length", str(InputEvent.size()), len(data))
        event = InputEvent.unpack(data)
        return Event(event.type, event.code, _signed(event.value))

    def next_report(self, timeout: float | None = None) -> tuple[Event, ...]:
        """Wait for the events up to the next SYN_REPORT, which is left out. It raises as :meth:`next_event` does.

        :raises RequestFailedError: when a report is longer than the queue, too.
        """
        deadline = self.deadline(timeout)
        report: list[Event] = []
        for _ in range(self.queue("event").size):
            event = self.next_event(deadline.remaining())
            if event[:2] == (InputEventType.SYN, SYN_REPORT):
                return tuple(report)
            report.append(event)
        longest = f"up to {len(report) - 1} and SYN_REPORT"
        raise self._failed("a report does not end", "events of a report", longest, len(report))

    def send(self, type: int, code: int, value: int, timeout: float | None = None) -> None:
        """Tell the device of an event, and of its report's end: ``send(InputEventType.LED, LED_CAPSL, 1)``.

        :param value: of 32 bits, signed or not.
        :raises RequestTimeoutError: when it doesn't take it in time.
        :raises UsageError: when a number doesn't fit; type and code have 16 bits.
        """
        queue = self.queue("status")
        wanted = Event(type, code, value), Event(InputEventType.SYN, SYN_REPORT, 0)
        requests = [queue.submit(InputEvent(e.type, e.code, _unsigned(e.value)).pack()) for e in wanted]
        queue.kick()
        for request in requests:
            queue.wait(request, timeout)

    def populate(self) -> None:
        """Give the device every buffer that it can have: it drops events that find none."""
        for _ in range(self.queue("event").size):
            self._offer_buffer()

    def _offer_buffer(self) -> Request:
        return self.queue("event").submit(writable=[InputEvent.size()])

    def _text(self, select: InputConfigSelect) -> str:
        return self.select(select).partition(b"\0")[0].decode("utf-8", "backslashreplace")

    def _bits(self, select: InputConfigSelect, subsel: int = 0) -> frozenset[int]:
        bitmap = int.from_bytes(self.select(select, subsel), "little")
        return frozenset(bit for bit in range(bitmap.bit_length()) if bitmap >> bit & 1)

    def _failed(self, what: str, register: str, expected: str, seen: int) -> RequestFailedError:
        return RequestFailedError(
            f"{self.id}: {what}", step=self.history[-1], register=register, expected=expected, seen=str(seen)
        )


def _unsigned(value: int) -> int:
    if not isinstance(value, int) or not -1 << 31 <= value < 1 << 32:
        raise UsageError(f"value={value!r}: a number of 32 bits is expected, signed or not")
    return value & 0xFFFFFFFF


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value
