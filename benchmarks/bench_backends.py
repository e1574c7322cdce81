"""backends: from a vhost-user daemon's start to DRIVER_OK behind it, and one look at the indices of a ring in RAM.

The daemons that this machine has, in turn, each with QEMU's own start and the scripted guest's included (aim: 250 ms
each). A look is what a wait for progress does again and again, at rings that a daemon serves (aim: 5 us).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

from figures import Figure, single
from harness import BenchmarkError, in_pytest, interleaved

from pytest_virtio import (
    Declaration,
    MissingError,
    Passt,
    VhostUserBlk,
    VhostUserFs,
    VhostUserNet,
    VhostUserVsock,
    VirtioFactory,
)
from pytest_virtio.handle.follower import Follower

__all__ = ("measure",)

PAIRS = 10
LOOKS = 2000
START_AIM_MS = 250.0
LOOK_AIM_US = 5.0

DAEMONS: Mapping[str, Callable[[], Declaration]] = {
    "qemu-storage-daemon": VhostUserBlk,
    "virtiofsd": VhostUserFs,
    # QEMU 7.2 ends by SIGSEGV at DRIVER_OK of a network card with MSI-X under TCG.
    "dpdk-testpmd": partial(VhostUserNet, vectors=0),
    "passt": lambda: VhostUserNet(backend=Passt(), vectors=0),
    "vhost-device-vsock": VhostUserVsock,
}


def measure(pairs: int = PAIRS) -> list[Figure]:
    """Start each, and look at rings of one."""
    return in_pytest(partial(_measured, pairs=pairs))


def _measured(factory: VirtioFactory, pairs: int) -> list[Figure]:
    here = {name: declare for name, declare in DAEMONS.items() if _is_here(factory, name, declare)}
    if not here:
        raise BenchmarkError("no daemon is here: pytest-virtio doctor tells what has them")
    starts = interleaved("backends: start", pairs, *(partial(_start, factory, declare) for declare in here.values()))
    figures = [
        single(f"backends: {name} to DRIVER_OK", taken, "ms", START_AIM_MS, [])
        for name, taken in zip(here, starts, strict=True)
    ]
    return figures + (_looks(factory, pairs) if "qemu-storage-daemon" in here else [])


def _is_here(factory: VirtioFactory, name: str, declare: Callable[[], Declaration]) -> bool:
    try:
        _start(factory, declare)
    except MissingError as error:
        print(f"{name}: not measured: {error}", file=sys.stderr)
        return False
    return True


def _start(factory: VirtioFactory, declare: Callable[[], Declaration]) -> float:
    """Milliseconds from entering the fixture's block to DRIVER_OK."""
    start = time.perf_counter()
    with factory(declare()):
        return (time.perf_counter() - start) * 1e3


def _looks(factory: VirtioFactory, pairs: int) -> list[Figure]:
    with factory(VhostUserBlk(), VhostUserBlk(id="packed", packed=True)) as virtio:
        followers = [Follower(virtio[id].queue(0)) for id in ("vublk0", "packed")]
        split, packed = interleaved("backends: looks", pairs, *(partial(_batch, follower) for follower in followers))
    return [
        single("backends: a look at a split ring", split, "us", LOOK_AIM_US, []),
        single("backends: a look at a packed ring", packed, "us", LOOK_AIM_US, []),
    ]


def _batch(follower: Follower) -> float:
    start = time.perf_counter()
    for _ in range(LOOKS):
        follower.look()
    return (time.perf_counter() - start) / LOOKS * 1e6
