"""Who owes each queue its next move: the facts brought together, and the verdict on them.

Responsible for gathering what is not known yet, for many queues at once; must not know how a verdict is reached
(``model.stuck``) or shown. Nothing here disturbs the VM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_virtio.backend.daemon import Daemon
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.introspect.interrupts import interrupts
from pytest_virtio.introspect.query import Place
from pytest_virtio.launch import RunningVm
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.ring import Ring
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.model.stuck import BackendState, QueueFacts, QueueVerdict, verdict
from pytest_virtio.spec.devices import device_type
from pytest_virtio.vm.deadline import Deadline

__all__ = ("gather", "one")


def one(running: RunningVm, path: str, queue: int, timeout: float) -> QueueVerdict:
    """The verdict on one queue. What can't be read is not known: a backend that has stopped or ended says enough.

    :param timeout: seconds.
    """
    deadline = Deadline.after(timeout)
    status = running.introspector.status(path, deadline.remaining())
    place, introspector = (path, queue), running.introspector
    told = introspector.queue_statuses({path: status}, {path: [queue]}, deadline.remaining())[place]
    found = told if isinstance(told, VirtQueueStatus) else None
    rings = introspector.rings_of({path: status}, {place: found}, deadline.remaining()) if found else {}
    decoded = {where: ring for where, ring in rings.items() if isinstance(ring, Ring)}
    return gather(running, {path: status}, {place: found}, decoded, deadline.remaining())[place]


def gather(
    running: RunningVm,
    statuses: Mapping[str, VirtioStatus],
    queues: Mapping[Place, VirtQueueStatus | None],
    rings: Mapping[Place, Ring],
    timeout: float,
) -> dict[Place, QueueVerdict]:
    """The verdict on each queue; asks QEMU for no more than how its interrupts stand.

    :param statuses: by path.
    :param queues: those to judge, by path and index; None where the status can't be had. ``rings`` are those of them
        that could be read.
    :param timeout: seconds.
    """
    indices: dict[str, list[int]] = {}
    for path, index in queues:
        indices.setdefault(path, []).append(index)
    # The processor of a scripted guest sleeps.
    idle = isinstance(running.guest, ScriptedGuest)
    told = interrupts(running.qemu, running.qemu.qtest, statuses, indices, timeout, ports=idle)
    answered = {path: _answered(statuses[path]) for path in indices}
    return {
        (path, index): verdict(
            QueueFacts(
                status=statuses[path],
                queue=queue,
                ring=rings.get((path, index)),
                answered=index in answered[path],
                backend=_backend(running.backends.get(VirtioInfo(path, "").id)),
                noticed=_noticed(running, VirtioInfo(path, "").id, index),
                interrupt=told.get((path, index)),
            )
        )
        for (path, index), queue in queues.items()
    }


def _answered(status: VirtioStatus) -> Sequence[int]:
    return device_type(status.device_id).answered_queues(status.num_vqs or 0, status.host_features.bits)


def _backend(daemon: Daemon | None) -> BackendState | None:
    if daemon is None:
        return None
    if not daemon.child.running:
        return "ended"
    return "stopped" if daemon.child.stopped else "running"


def _noticed(running: RunningVm, id: str, index: int) -> int | None:
    """The driver's own count, where the driver is ours and the ring is new with it: that of a split ring wraps as it
    does."""
    if not isinstance(running.guest, ScriptedGuest):
        return None
    driver = next((driver for driver in running.guest.drivers if driver.id == id), None)
    queue = next((queue for queue in driver.queues if queue.index == index), None) if driver else None
    return None if queue is None else queue.completed & 0xFFFF
