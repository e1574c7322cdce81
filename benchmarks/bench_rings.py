"""rings: eight rings of 256 decoded from guest RAM (aim: 5 ms), against QEMU's own element queries on the same VM.

Four network cards have their receive rings full and their transmit rings as much used. QEMU is asked for the pending
elements alone, one by one, for it knows no other way, and that is safe in these rings, of our own driver.
"""

from __future__ import annotations

import time
from functools import partial

from figures import Figure, ratio, single
from harness import BenchmarkError, in_pytest, interleaved

from pytest_virtio import Net, NetDriver, Virtio, VirtioFactory
from pytest_virtio.introspect.rings import ring_in_ram
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.vm.memory import GuestMemory

__all__ = ("measure",)

PAIRS = 20
CARDS = 4
ENTRIES = 256
SENT = 300
DECODE_AIM_MS = 5.0

Place = tuple[VirtioStatus, VirtQueueStatus]


def measure(pairs: int = PAIRS) -> list[Figure]:
    """Decode and ask, in turn."""
    return in_pytest(partial(_measured, pairs=pairs))


def _measured(factory: VirtioFactory, pairs: int) -> list[Figure]:
    with factory(*(Net() for _ in range(CARDS)), guest="scripted", timeout=60) as virtio:
        _fill(virtio)
        places = [(device.status(), device.queue(index).status()) for device in virtio for index in (0, 1)]
        pending = {device.id: len(device.queue(0).ring().in_state("pending")) for device in virtio}
        decode = partial(_decoded, places, virtio._running.qemu.memory)
        (decoded,) = interleaved("rings: decode", pairs, decode)
        ours, asked = interleaved("rings: with QEMU's indices", pairs, partial(_ours, virtio), partial(_asked, virtio))
    notes = [f"{sum(pending.values())} elements are pending"]
    return [
        single("rings: decode 8 of 256", decoded, "ms", DECODE_AIM_MS, notes),
        ratio("rings: ours / element queries", ours, asked, "ms", 1.0),
    ]


def _fill(virtio: Virtio) -> None:
    for device in virtio:
        driver = virtio.guest.driver(device.id, NetDriver)
        receive, transmit = driver.queue(0), driver.queue(1)
        while receive.ring.free:
            receive.submit(writable=[2048])
        receive.kick()
        for _ in range(SENT):
            transmit.request(bytes(12 + 60))


def _decoded(places: list[Place], memory: GuestMemory) -> float:
    """Milliseconds for all of them, RAM alone.

    :raises BenchmarkError: when one is not as it was filled.
    """
    start = time.perf_counter()
    rings = [ring_in_ram(status, queue, memory, iommu=False) for status, queue in places]
    taken = (time.perf_counter() - start) * 1e3
    if any(ring.faults or len(ring.elements) != ENTRIES for ring in rings):
        raise BenchmarkError(f"not as they were filled: {[(ring.faults, len(ring.elements)) for ring in rings]}")
    return taken


def _ours(virtio: Virtio) -> float:
    start = time.perf_counter()
    for device in virtio:
        for index in (0, 1):
            device.queue(index).ring()
    return (time.perf_counter() - start) * 1e3


def _asked(virtio: Virtio) -> float:
    start = time.perf_counter()
    for device in virtio:
        for slot in range(ENTRIES):
            virtio.vm.qmp("x-query-virtio-queue-element", {"path": device.path, "queue": 0, "index": slot})
    return (time.perf_counter() - start) * 1e3
