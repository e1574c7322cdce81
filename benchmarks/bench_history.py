"""history: what recording every step of the device statuses costs a VM, and what reading them takes.

Compared are VMs whose QEMU logs the trace events and VMs whose log is left to the user, as it is where he says
anything of it: a Linux guest from start to ready (aim: at most 1.03 times as long), and a scripted one (aim: 0.5 ms).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from figures import Figure, difference, ratio, single
from harness import BenchmarkError, in_pytest, interleaved

from pytest_virtio import Blk, Net, Rng, VirtioDevice, VirtioFactory

__all__ = ("measure",)

PAIRS = 10
SCRIPTED_TIMES = 5
BOOT_SECONDS = 120.0
AIM = 1.03
SCRIPTED_AIM_MS = 0.5

UNLOGGED = ("-msg", "timestamp=off")


def measure(pairs: int = PAIRS) -> list[Figure]:
    """Start VMs both ways, in turn."""
    return in_pytest(partial(_measured, pairs=pairs))


def _measured(factory: VirtioFactory, pairs: int) -> list[Figure]:
    logged, unlogged = interleaved("history: boot", pairs, *_both(factory, "linux"))
    launched, bare = interleaved("history: scripted", pairs * SCRIPTED_TIMES, *_both(factory, "scripted"))
    return [
        ratio("history: boot", logged, unlogged, "s", AIM),
        difference("history: scripted", _ms(launched), _ms(bare), "ms", SCRIPTED_AIM_MS),
        single("history: read", _reads(factory, pairs), "ms", None, ["of a disk after its start"]),
    ]


def _both(factory: VirtioFactory, guest: str) -> list[Callable[[], float]]:
    return [partial(_start, factory, guest, ()), partial(_start, factory, guest, UNLOGGED)]


def _start(factory: VirtioFactory, guest: str, args: tuple[str, ...]) -> float:
    """Seconds until the VM is ready.

    :raises BenchmarkError: when its history is not recorded in the way that is measured.
    """
    start = time.perf_counter()
    with factory(Net(), Blk(), Rng(), guest=guest, timeout=BOOT_SECONDS, args=args) as virtio:
        taken = time.perf_counter() - start
        history = virtio["blk0"].history
    if history.polled != bool(args):
        raise BenchmarkError(f"with {args} as arguments the history comes by {history.source}")
    return taken


def _reads(factory: VirtioFactory, pairs: int) -> list[float]:
    with factory(Net(), Blk(), Rng(), guest="scripted") as virtio:
        (taken,) = interleaved("history: read", pairs, lambda: _read(virtio["blk0"]))
    return _ms(taken)


def _read(device: VirtioDevice) -> float:
    start = time.perf_counter()
    steps = device.history
    taken = time.perf_counter() - start
    if steps.polled:
        raise BenchmarkError(f"the history comes by {steps.source}")
    return taken


def _ms(seconds: list[float]) -> list[float]:
    return [1e3 * taken for taken in seconds]
