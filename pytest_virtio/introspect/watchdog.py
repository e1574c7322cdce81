"""Notices a queue that stands still with buffers that the device has to answer; only where ``stall`` asks for it.

Responsible for looking at all such queues of a VM a few times a second, from a thread of its own, and for sounding the
VM's alarm; must not know who waits. Indices come from guest RAM; QEMU is asked now and then where the rings are. Of a
packed ring it tells what the device has taken, so one that misses a notification does not show.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from pytest_virtio import render
from pytest_virtio.errors import MonitorTimeoutError, VirtioError
from pytest_virtio.introspect.indices import Indices, in_ram
from pytest_virtio.introspect.introspector import Introspector
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.ring.progress import Stillness, distance
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.ring import Areas
from pytest_virtio.vm.alarm import Alarm

__all__ = ("ASK_SECONDS", "Watchdog")

K = TypeVar("K")
V = TypeVar("V")

LOOK_SECONDS = 0.2
ASK_SECONDS = 1.0
"""Between two questions where the rings are, and for their answers."""

_Place = tuple[str, int, Areas]
"""A queue by its device's path and its index; with other addresses it is another."""


@dataclass(slots=True)
class _Account:
    """How long a queue has stood still, and its avail and used index when it last went on or had nothing to do."""

    stillness: Stillness = field(default_factory=Stillness)
    before: tuple[int | None, int | None] = None, None


@dataclass(frozen=True, slots=True)
class _Watched:
    """A queue, and how it stood when QEMU was asked.

    :param ram: where its indices are in guest RAM; None of a packed ring, and where RAM can't be read.
    """

    name: str
    told: VirtQueueStatus
    ram: Indices | None
    account: _Account

    def indices(self) -> tuple[int | None, int | None]:
        """The avail and the used index."""
        if self.ram is not None and self.ram.avail is not None:
            used = self.ram.used()
            return self.ram.avail(), used
        return self.told.shadow_avail_idx, self.told.used_idx

    def stalled(self, now: float, seconds: float) -> bool:
        """Whether it has stood still for so long."""
        avail, used = self.indices()
        if avail is None or used is None:
            return False
        still = self.account.stillness.look(now, used, self._outstanding(avail, used))
        if not still:
            self.account.before = avail, used
        return still >= seconds

    def _outstanding(self, avail: int, used: int) -> bool:
        """Whether the device has something to give back."""
        if self.ram is None:
            # A packed ring's indices are positions, which are equal when it is full.
            return avail != used or bool(self.told.inuse)
        # With more outstanding than it has entries it is no longer a ring: it is elsewhere, which QEMU will tell.
        return 0 < distance(used, avail) <= self.ram.size

    def facts(self) -> Iterator[str]:
        """Yield the indices before and after."""
        for when, (avail, used) in {"before": self.account.before, "after": self.indices()}.items():
            yield f"{when}: avail {avail}, used {used}"
        yield f"source: {self.told.source if self.ram is None else self.ram.source}"


class Watchdog:
    """Watches one VM from :meth:`start` until :meth:`stop`.

    :param paths: QOM paths of the devices, by id.
    :param seconds: how long a queue may stand still.
    """

    def __init__(self, introspector: Introspector, paths: Mapping[str, str], alarm: Alarm, seconds: float) -> None:
        self._introspector, self._alarm, self._seconds = introspector, alarm, seconds
        self._ids = {path: id for id, path in paths.items()}
        self._watched: dict[_Place, _Watched] = {}
        self._asked = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pytest-virtio watchdog", daemon=True)
        self.explain: Callable[[str, int], Iterable[str]] = lambda path, queue: ()
        """Says in lines of text who owes a queue its next move, by the device's path and the queue's index."""

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end; :meth:`join` waits for that. A question to QEMU that is under way keeps it until it is
        answered, or QEMU ends."""
        self._ended.set()

    def join(self) -> None:
        """Wait until the thread has ended, after :meth:`stop`."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(min(LOOK_SECONDS, self._seconds / 4)):
            try:
                self._look(time.monotonic())
            except VirtioError:
                # The VM has ended, and its RAM is no longer there. Whoever waits for it says so.
                continue

    def _look(self, now: float) -> None:
        if now - self._asked >= min(ASK_SECONDS, self._seconds / 2):
            self._ask(now)
        stalled = self._stalled(now)
        if stalled and not self._alarm.sounds():
            # What was told a second ago may be of a ring that is elsewhere by now.
            self._ask(now)
            stalled = self._stalled(now)
        if not stalled:
            self._alarm.rest()
        elif not self._alarm.sounds():
            self._alarm.sound(self._verdict(*stalled[0]))

    def _stalled(self, now: float) -> list[_Place]:
        return [place for place, watched in self._watched.items() if watched.stalled(now, self._seconds)]

    def _verdict(self, path: str, queue: int, areas: Areas) -> str:
        watched = self._watched[path, queue, areas]
        what = f"stalled: no progress for {self._seconds:g} s with buffers that the device has to answer"
        explained, picture = self.explain(path, queue), self._picture(path, queue)
        return "\n  ".join([f"{watched.name}: {what}", *explained, *watched.facts(), *picture])

    def _picture(self, path: str, queue: int) -> Iterator[str]:
        """Yield the ring with its stuck elements; nothing where it can't be had just now."""
        try:
            ring = self._introspector.ring(path, queue, ASK_SECONDS)
        except VirtioError:
            return
        yield from (line.removeprefix("  ") for line in render.ring_picture(ring))

    def _ask(self, now: float) -> None:
        """Find out where the rings are. While QEMU is silent, or gone, what was known stays."""
        self._asked = now
        with suppress(VirtioError):
            self._watched = dict(self._find())

    def _find(self) -> Iterator[tuple[_Place, _Watched]]:
        """Yield the queues of all devices that are there. One that is where it was before keeps its account; a VM that
        stands still has none, for there nothing can go on."""
        for path, status in _heard(self._introspector.statuses(self._ids, ASK_SECONDS)).items():
            if isinstance(status, VirtioStatus) and status.driver_ok and status.vm_running is not False:
                yield from self._queues(path, status)

    def _queues(self, path: str, status: VirtioStatus) -> Iterator[tuple[_Place, _Watched]]:
        type, count, offered = device_type(status.device_id), status.num_vqs or 0, status.host_features.bits
        names = type.queue_names(count, offered)
        queues = {path: type.answered_queues(count, offered)}
        memory = self._introspector.ram(ASK_SECONDS)
        answers = _heard(self._introspector.queue_statuses({path: status}, queues, ASK_SECONDS))
        for (_, index), told in answers.items():
            if isinstance(told, VirtQueueStatus) and told.vring_desc:
                key = path, index, Areas(told.vring_desc, told.vring_avail, told.vring_used)
                earlier = self._watched.get(key)
                account = earlier.account if earlier else _Account()
                ram = in_ram(status, told, memory)
                split = ram if ram is not None and ram.avail is not None else None
                yield key, _Watched(f"{self._ids[path]}.{names[index][0]}", told, split, account)


def _heard(answers: Mapping[K, V]) -> Mapping[K, V]:
    """The answers, some of which may be refusals: a device that was unplugged has no status.

    :raises MonitorTimeoutError: when QEMU did not answer: that says nothing of the device.
    """
    for answer in answers.values():
        if isinstance(answer, MonitorTimeoutError):
            raise answer
    return answers
