"""Whether a QEMU survives being asked: seen on a throw-away QEMU, never on the user's VM.

Responsible for that probe and its memory; must not know versions: a build with the fix, or without the fault, is told
by its behaviour. QEMU 11.1 aborts on x-query-virtio-status of any device, for it leaves out a member of the reply that
its schema requires (the series of "vhost: drop backend_features field", commit d8fec7e8f7c2).
"""

from __future__ import annotations

from pathlib import Path

from pytest_virtio import cache, qapi
from pytest_virtio.errors import QemuExitedError
from pytest_virtio.vm import cmdline
from pytest_virtio.vm.capabilities import Capabilities, memory_of
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.qemu import Qemu

__all__ = ("can_be_tried", "status_query_ends")

PROBE_SECONDS = 30.0
DEVICE = "virtio-rng-device"

_found: dict[tuple[str, Path], str] = {}


def status_query_ends(known: Capabilities) -> str:
    """How a QEMU ends that is asked for the status of a device: ``"killed by SIGABRT"``; ``""`` when it lives on, or
    can't be tried for want of the machine.

    Once in each process: finding out under which name a binary's memory is kept takes 1 ms.
    """
    key = known.program, cache.root()
    if key not in _found:
        _found[key] = _remembered(known)
    return _found[key]


def can_be_tried(known: Capabilities) -> bool:
    """Whether the binary has what a trial needs."""
    return "microvm" in known.machines and DEVICE in known.devices


def _remembered(known: Capabilities) -> str:
    if not can_be_tried(known):
        return ""
    path = memory_of(Path(known.program), "status-query")
    ended = cache.recall(path)
    if not isinstance(ended, str):
        ended = _probe(Path(known.program))
        cache.remember(path, ended)
    return ended


def _probe(program: Path) -> str:
    deadline = Deadline.after(PROBE_SECONDS)
    with Qemu.start(lambda wires: cmdline.device_probe(program, DEVICE, wires), deadline, label="probe") as qemu:
        try:
            devices = qapi.parse_list(qemu.execute(qapi.QUERY_VIRTIO))
            qemu.execute(qapi.QUERY_STATUS, {"path": devices[0].path})
        except QemuExitedError as error:
            return error.how
    return ""
