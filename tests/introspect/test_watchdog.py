"""What the watchdog takes for a stall, by looks at chosen moments. ``tests/handle/test_stall.py`` has real ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from pytest_virtio import Features, VirtioStatus, VirtQueueStatus
from pytest_virtio.errors import CommandError, MonitorTimeoutError, VirtioError
from pytest_virtio.introspect.introspector import Introspector
from pytest_virtio.introspect.watchdog import Watchdog
from pytest_virtio.spec.devices import BLK
from pytest_virtio.vm.alarm import Alarm
from pytest_virtio.vm.memory import GuestMemory

SECONDS = 5
AVAIL_IDX = 0x2002


@dataclass
class Machine:
    """One disk with one queue, as a test wants it told."""

    memory: GuestMemory
    refusal: VirtioError | None = None
    desc: int = 0x1000
    alarm: Alarm = field(default_factory=lambda: Alarm(threading.Condition()))

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(cast(Introspector, self), {"blk0": "/blk0"}, self.alarm, SECONDS)
        self.watchdog.explain = lambda path, queue: [f"explained: {path} {queue}"]

    def statuses(self, paths: Any, timeout: float) -> dict[str, VirtioStatus | VirtioError]:
        features = Features.of([], BLK)
        status = VirtioStatus(
            name="virtio-blk",
            device_id=2,
            status=frozenset({"DRIVER_OK"}),
            guest_features=features,
            host_features=features,
            num_vqs=1,
            source="test",
        )
        return dict.fromkeys(paths, self.refusal or status)

    def queue_statuses(self, *_: object) -> dict[tuple[str, int], VirtQueueStatus]:
        queue = VirtQueueStatus(
            name="virtio-blk",
            queue_index=0,
            vring_num=8,
            vring_desc=self.desc,
            vring_avail=0x2000,
            vring_used=0x3000,
            source="test",
        )
        return {("/blk0", 0): queue}

    def ram(self, timeout: float) -> GuestMemory:
        return self.memory

    def ring(self, *_: object) -> None:
        raise CommandError("none", "GenericError", "no picture")

    def stalled(self, *looks: float) -> bool:
        for now in looks:
            self.watchdog._look(now)
        return self.alarm.sounds()


@pytest.fixture
def machine() -> Iterator[Machine]:
    with GuestMemory(1 << 20) as memory:
        memory.store16(AVAIL_IDX, 1)
        yield Machine(memory)


def test_a_request_that_is_not_answered(machine: Machine) -> None:
    assert not machine.stalled(100, 104.9)
    assert machine.stalled(105)
    assert machine.alarm.unheard.splitlines()[1:3] == ["  explained: /blk0 0", "  before: avail 1, used 0"]


def test_a_ring_that_has_just_moved_is_none(machine: Machine) -> None:
    """It was asked for a moment ago, and is elsewhere now; what stood in the old one stands there still."""
    assert not machine.stalled(100, 104.5)
    machine.desc = 0x8000
    assert not machine.stalled(105)
    assert machine.stalled(107, 110)


def test_what_is_no_ring_is_none(machine: Machine) -> None:
    machine.memory.store16(AVAIL_IDX, 9)
    assert not machine.stalled(100, 105, 110)
    machine.memory.store16(AVAIL_IDX, 8)
    assert machine.stalled(111, 116)


def test_a_device_that_is_gone_is_none(machine: Machine) -> None:
    assert not machine.stalled(100)
    machine.refusal = CommandError("x-query-virtio-status", "GenericError", "Path /blk0 is not a VirtIODevice")
    assert not machine.stalled(104, 105, 110)


def test_a_qemu_that_is_silent_does_not_hide_it(machine: Machine) -> None:
    assert not machine.stalled(100)
    machine.refusal = MonitorTimeoutError("x-query-virtio-status", 1.0)
    assert machine.stalled(105)
