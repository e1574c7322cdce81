"""Where indices are read: what of a queue's status decides it. Real queues are in ``tests/handle/test_progress.py``."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_virtio import Features, NotSupportedError, VirtioStatus, VirtQueueStatus
from pytest_virtio.introspect.indices import indices
from pytest_virtio.introspect.introspector import Introspector
from pytest_virtio.introspect.ram import GuestRam
from pytest_virtio.spec.devices import BLK
from pytest_virtio.vm.foreign_memory import ForeignMemory
from pytest_virtio.vm.memory import GuestMemory
from pytest_virtio.vm.process_memory import ProcessMemory

SIZE = 1 << 20
NO_RAM = ForeignMemory(ProcessMemory(os.getpid()), [])


def introspector(memory: GuestRam, *features: str, untold: str = "", **told: Any) -> Introspector:
    """One that knows of one queue."""
    fields = {"vring_desc": 0x1000, "vring_avail": 0x2000, "vring_used": 0x3000, "used_idx": 7, **told}
    queue = VirtQueueStatus(name="virtio-blk", queue_index=0, vring_num=8, source="test", **fields)
    offered = Features.of(features, BLK)
    acknowledged = Features(0, BLK, untold=untold) if untold else offered
    status = VirtioStatus(
        name="virtio-blk",
        device_id=2,
        status=frozenset({"DRIVER_OK"}),
        guest_features=acknowledged,
        host_features=offered,
        source="test",
    )
    answers: dict[str, Any] = {"status": lambda *_: status, "queue_status": lambda *_: queue, "ram": lambda _: memory}
    return cast(Introspector, SimpleNamespace(**answers))


def source(memory: GuestRam, *features: str, **told: Any) -> str:
    return indices(introspector(memory, *features, **told), "/blk0", 0, 1).source


def test_what_is_in_our_ram_is_read_there() -> None:
    with GuestMemory(SIZE) as memory:
        memory.store16(0x2002, 5)
        memory.store16(0x3002, 4)
        found = indices(introspector(memory), "/blk0", 0, 1)
        assert found.avail is not None
        assert (found.avail(), found.used()) == (5, 4)
        # Behind vhost nobody tells a position of a packed ring.
        assert source(memory, "RING_PACKED", used_idx=None).startswith("used descriptors in guest RAM")


def test_the_rest_is_asked() -> None:
    with GuestMemory(SIZE) as memory:
        assert source(NO_RAM) == "test"
        assert source(memory, "ACCESS_PLATFORM") == "test"
        assert source(memory, vring_used=SIZE) == "test"
        assert source(memory, vring_avail=0x2001) == "test"


def test_what_nobody_tells_is_refused() -> None:
    with GuestMemory(SIZE) as memory:
        for refused in (
            introspector(NO_RAM, "RING_PACKED"),
            introspector(NO_RAM, used_idx=None),
            introspector(memory, untold="nobody knows"),
        ):
            with pytest.raises(NotSupportedError, match="used buffers can't be counted"):
                indices(refused, "/blk0", 0, 1)
