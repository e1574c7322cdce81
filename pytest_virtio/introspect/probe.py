"""Whether a QEMU survives being asked: seen on a throw-away QEMU, never on the user's VM.

Responsible for that probe and its memory; must not know versions: a build with the fix, or without the fault, is told
by its behaviour. QEMU 11.1 aborts on x-query-virtio-status of any device, for it leaves out a member of the reply that
its schema requires (the series of "vhost: drop backend_features field", commit d8fec7e8f7c2).
"""

from __future__ import annotations

from pathlib import Path

from pytest_virtio import cache, qapi
from pytest_virtio.errors import MissingError, QemuExitedError
from pytest_virtio.vm import cmdline
from pytest_virtio.vm.capabilities import Capabilities, memory_of
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.qemu import Qemu

__all__ = ("check_status_query",)

PROBE_SECONDS = 30.0
DEVICE = "virtio-rng-device"

_found: dict[tuple[str, Path], str] = {}


def check_status_query(known: Capabilities) -> None:
    """Refuse a QEMU that the status query kills, before a VM of the user's is lost to it.

    :raises MissingError: naming the command and how QEMU ended.
    """
    how = _looked_up(known)
    if how:
        raise MissingError(
            f"QEMU {known.version} ({known.program}) does not survive {qapi.QUERY_STATUS}: {how}. "
            "11.1 is known for it. There is no other way to its answer yet: name another QEMU by --virtio-qemu=PATH."
        )


def _looked_up(known: Capabilities) -> str:
    """Once in each process: finding out under which name a binary's memory is kept takes 1 ms."""
    key = known.program, cache.root()
    if key not in _found:
        _found[key] = _remembered(known)
    return _found[key]


def _remembered(known: Capabilities) -> str:
    """How the probe's QEMU ended; "" when it lives, or can't be tried for want of the machine."""
    if "microvm" not in known.machines or DEVICE not in known.devices:
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
