"""The history of each device's status: from QEMU's trace events where they tell, else from what was seen by polling.

Responsible for finding out which of QEMU's pointers is which device, and for saying so when that can't be told; must
not know how events are logged or worded.

A pointer comes with its type only. Devices of one type are told apart by their order: QEMU resets the devices on a bus
newest first; on virtio-mmio each has a bus of its own, and they fill from the last one down. The status that a device
has now must be the last in its history, else the order was another; once QEMU has ended, the log alone must do. Those
that are plugged in later are reset later.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from pytest_virtio.errors import QemuExitedError, VirtioError
from pytest_virtio.introspect.calm import Log
from pytest_virtio.introspect.query import Queries, raised
from pytest_virtio.model.history import History, StatusStep
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.qapi.trace import Reset, SetStatus, parse_trace
from pytest_virtio.spec.status import DeviceStatus, status_value
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.monitor import Qmp

__all__ = ("KEPT", "Histories", "Polled", "Trace", "trace_events")

KEPT = 1000
"""Steps of one device; older ones are counted only."""

TYPE_SECONDS = 10.0
TRACE_EVENTS = "trace events"
ENDED = "QEMU has ended"
ATTEMPTS = 3
"""How often the status and the log are compared while a driver may be at work between the two looks."""


@dataclass
class _Steps:
    """A device's steps, in bounded memory."""

    kept: deque[StatusStep] = field(default_factory=lambda: deque(maxlen=KEPT))
    count: int = 0

    def add(self, step: StatusStep) -> None:
        """Add it if it is one: a reset with the machine is, also of a device that nobody has touched."""
        if self.kept and self.kept[-1].value == step.value and not step.by_machine:
            return
        self.kept.append(step)
        self.count += 1

    def history(self, source: str, *, full: bool = False) -> History:
        return History(tuple(self.kept), source, self.count - len(self.kept), full)


class Polled:
    """The statuses that were seen, by path; a watchdog sees them from a thread of its own."""

    def __init__(self) -> None:
        self._start, self._lock = time.monotonic(), threading.Lock()
        self._seen: dict[str, _Steps] = {}
        self._asked: dict[str, float] = {}

    def note(self, answers: Mapping[str, VirtioStatus | VirtioError], asked: float) -> None:
        """Remember what is an answer, unless a later question was answered first.

        :param asked: when, monotonic seconds.
        """
        seconds = time.monotonic() - self._start
        with self._lock:
            for path, answer in answers.items():
                if isinstance(answer, VirtioStatus) and asked >= self._asked.get(path, asked):
                    self._asked[path] = asked
                    self._seen.setdefault(path, _Steps()).add(StatusStep(seconds, status_value(answer.status)))

    def history(self, path: str, why: str) -> History:
        """What was seen of a device.

        :param why: the reason why there is nothing better.
        """
        with self._lock:
            return self._seen.get(path, _Steps()).history(f"polling: {why}")


@dataclass
class Trace:
    """A log, read: the steps by QEMU's pointer and the time of the first, seconds of the host's clock; and the pointers
    by type in the order of their first reset."""

    steps: dict[int, _Steps] = field(default_factory=dict)
    born: dict[int, float] = field(default_factory=dict)
    types: dict[int, str] = field(default_factory=dict)
    began: float = 0.0
    full: bool = False

    def of_type(self, type: str) -> list[int]:
        """The virtio devices of a type."""
        return [pointer for pointer, its in self.types.items() if its == type and pointer in self.steps]


def trace_events(text: str, full: bool) -> Trace:
    """Read a log."""
    trace = Trace(full=full)
    resetting: set[int] = set()
    for event in parse_trace(text):
        if isinstance(event, Reset):
            trace.types.setdefault(event.object, event.type)
            resetting.add(event.object)
        else:
            _set_status(trace, event, resetting)
    return trace


def _set_status(trace: Trace, event: SetStatus, resetting: set[int]) -> None:
    trace.began = trace.began or event.time
    trace.born.setdefault(event.device, event.time)
    by_machine = event.device in resetting and not event.value
    resetting.discard(event.device)
    step = StatusStep(event.time - trace.began, event.value, by_machine)
    trace.steps.setdefault(event.device, _Steps()).add(step)


class Histories:
    """The histories of one VM's devices; to be made before the first is plugged in or unplugged.

    :param log: what QEMU logged; None when it doesn't.
    :param paths: of all virtio devices, the declared ones in their order.
    :param in_order: the paths of those of which it is known that they were made in that order, on one bus.
    """

    def __init__(
        self,
        qmp: Qmp,
        log: Log | None,
        paths: Iterable[str],
        in_order: AbstractSet[str],
        status: Callable[[str, float], VirtioStatus],
        polled: Polled,
    ) -> None:
        self._qmp, self._log, self._paths, self._in_order = qmp, log, list(paths), frozenset(in_order)
        self._status, self._polled = status, polled
        # Before any can be unplugged.
        self._types = {} if log is None else self._asked_types()
        self._start = time.time()

    def history(self, path: str, timeout: float) -> History:
        """A device's history; by polling where trace events don't tell.

        :param timeout: seconds.
        :raises QemuExitedError: when QEMU is gone, and neither told nor seen is how it went.
        """
        deadline = Deadline.after(timeout)
        found = self._traced(path, deadline)
        if isinstance(found, History):
            return found
        try:
            self._status(path, deadline.remaining())
        except QemuExitedError:
            seen = self._polled.history(path, f"{found}; {ENDED}")
            if not seen:
                raise
            return seen
        return self._polled.history(path, found)

    def _traced(self, path: str, deadline: Deadline) -> History | str:
        """The history by trace events, or why they don't tell."""
        if self._log is None:
            return "QEMU was started without the trace events"
        peers, type = self._peers(path), self._types[path]
        if len(peers) > 1 and not self._in_order.issuperset(peers):
            return f"in which order the {len(peers)} {type} were made is not known"
        for _ in range(ATTEMPTS):
            now = self._now(path, deadline)
            trace = trace_events(*self._log.read())
            found = self._found(path, trace, deadline)
            if isinstance(found, str):
                return found
            if now is None:
                return replace(found, source=f"{TRACE_EVENTS}; status not compared: {ENDED}")
            if _agrees(found, now):
                return _completed(found, now, trace.began)
        # The only one of its type: the driver goes on just now, or the log has no room left.
        return found if len(peers) == 1 else f"the {len(peers)} {type} do not stand where their order says they do"

    def _found(self, path: str, trace: Trace, deadline: Deadline) -> History | str:
        """The steps that by its order are the device's, or why none are."""
        peers, type = self._peers(path), self._types[path]
        known = trace.of_type(type)
        pointers = [pointer for pointer in known if trace.born[pointer] < self._start]
        if len(pointers) != len(peers):
            return f"QEMU logged events of {len(pointers)} {type}, and there are {len(peers)}"
        doubt = self._doubt(trace, deadline) if pointers != known else ""
        if doubt:
            return f"a {type} was plugged in and {doubt}"
        return trace.steps[pointers[peers.index(path)]].history(TRACE_EVENTS, full=trace.full)

    def _now(self, path: str, deadline: Deadline) -> int | None:
        """The status that a device has now; None once QEMU has ended."""
        try:
            return status_value(self._status(path, deadline.remaining()).status)
        except QemuExitedError:
            return None

    def _doubt(self, trace: Trace, deadline: Deadline) -> str:
        """Why a pointer may be another device's than at first; "" where all that there were are there."""
        try:
            there = len(Queries(self._qmp).devices(deadline.remaining()))
        except QemuExitedError:
            return f"whether a device was unplugged can't be asked: {ENDED}"
        return "a device unplugged: this may be another of the same id" if there < len(trace.steps) else ""

    def _asked_types(self) -> dict[str, str]:
        asked = [("qom-get", {"path": path, "property": "type"}) for path in self._paths]
        told = self._qmp.execute_all(asked, TYPE_SECONDS)
        return {path: str(raised(type)) for path, type in zip(self._paths, told, strict=True)}

    def _peers(self, path: str) -> list[str]:
        """The devices of the same type that were there from the start, in the order in which QEMU resets them."""
        peers = [other for other in self._paths if self._types[other] == self._types[path]]
        return peers if VirtioInfo(path, "").proxy == path else peers[::-1]


def _agrees(history: History, now: int) -> bool:
    """Whether a device whose status is ``now`` can have that history. QEMU logs what the driver writes; it sets
    NEEDS_RESET itself, and refuses a FEATURES_OK, without a trace."""
    last = history[-1].value
    return now & ~DeviceStatus.NEEDS_RESET in (last & ~DeviceStatus.NEEDS_RESET, last & ~DeviceStatus.FEATURES_OK)


def _completed(history: History, now: int, began: float) -> History:
    """The history up to the status that the device has now."""
    if history[-1].value == now:
        return history
    seen = StatusStep(time.time() - began, now)
    return replace(history, steps=(*history.steps, seen))
