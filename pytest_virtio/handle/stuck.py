"""Who owes each queue its next move: the facts brought together, and the verdict on them.

Responsible for gathering what is not known yet, for many queues at once; must not know how a verdict is reached
(``model.stuck``) or shown. Nothing here disturbs the VM.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from pytest_virtio.errors import MonitorTimeoutError
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.guest.scripted.queue import DriverQueue
from pytest_virtio.introspect.query import Place
from pytest_virtio.launch import ObservedVm, RunningVm
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.ring import Ring
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.model.stuck import DOUBTFUL, BackendState, QueueFacts, QueueVerdict, Stuck, settled, verdict
from pytest_virtio.spec.devices import device_type
from pytest_virtio.vm.deadline import Deadline

__all__ = ("gather", "one")

LOOKS = 3
"""How often a queue is looked at again that has moved since the look before."""
SILENT_SECONDS = 1.0
"""How long QEMU is waited for that may hang, as its backend does."""
BETWEEN_SECONDS = 0.02
"""Two looks so far apart fall into different steps of a driver, also when the host is busy and takes turns."""


def one(running: RunningVm, path: str, queue: int, timeout: float) -> QueueVerdict:
    """The verdict on one queue. What can't be read is not known: a backend that has stopped or ended says enough.

    :param timeout: seconds.
    """
    backend = running.backends.get(VirtioInfo(path, "").id)
    state = backend.tell_state() if backend else None
    deadline = Deadline.after(min(timeout, SILENT_SECONDS) if state == "stopped" else timeout)
    try:
        statuses, place = {path: running.introspector.status(path, deadline.remaining())}, (path, queue)
    except MonitorTimeoutError:
        if state != "stopped":
            raise
        # QEMU waits for it, and answers nobody.
        return QueueVerdict(Stuck.BACKEND_STOPPED, (("backend", state),))
    queues, rings = _ask(running, statuses, [place], deadline)
    return gather(running, statuses, queues, rings, deadline.remaining())[place]


def gather(
    running: ObservedVm,
    statuses: Mapping[str, VirtioStatus],
    queues: Mapping[Place, VirtQueueStatus | None],
    rings: Mapping[Place, Ring],
    timeout: float,
) -> dict[Place, QueueVerdict]:
    """The verdict on each queue. QEMU is asked how its interrupts stand, and again about the queues of which one look
    can't be sure.

    :param statuses: by path.
    :param queues: those to judge, by path and index; None where the status can't be had. ``rings`` are those of them
        that could be read.
    :param timeout: seconds.
    """
    deadline = Deadline.after(timeout)
    seen = _facts(running, statuses, queues, rings, deadline)
    verdicts = {place: verdict(facts) for place, facts in seen.items()}
    for _ in range(LOOKS):
        unsettled = [place for place in seen if verdicts[place].stuck in DOUBTFUL | {Stuck.MOVING}]
        if not unsettled:
            break
        # There is no event to wait for: it is that nothing happens which tells.
        time.sleep(min(BETWEEN_SECONDS, deadline.remaining()))
        now = _facts(running, statuses, *_ask(running, statuses, unsettled, deadline), deadline)
        verdicts |= {place: settled(seen[place], now[place]) for place in unsettled}
        seen = {place: now[place] for place in unsettled if verdicts[place].stuck is Stuck.MOVING}
    return verdicts


def _ask(
    running: ObservedVm, statuses: Mapping[str, VirtioStatus], places: Sequence[Place], deadline: Deadline
) -> tuple[dict[Place, VirtQueueStatus | None], dict[Place, Ring]]:
    """What is told of queues, and their rings as far as they can be read."""
    introspector = running.introspector
    told = introspector.queue_statuses(statuses, _by_path(places), deadline.remaining())
    known = {place: answer for place, answer in told.items() if isinstance(answer, VirtQueueStatus)}
    rings = introspector.rings_of(statuses, known, deadline.remaining()) if known else {}
    decoded = {place: ring for place, ring in rings.items() if isinstance(ring, Ring)}
    return {place: known.get(place) for place in places}, decoded


def _facts(
    running: ObservedVm,
    statuses: Mapping[str, VirtioStatus],
    queues: Mapping[Place, VirtQueueStatus | None],
    rings: Mapping[Place, Ring],
    deadline: Deadline,
) -> dict[Place, QueueFacts]:
    indices = _by_path(queues)
    told = running.interrupts(statuses, indices, deadline.remaining())
    answered = {path: _answered(statuses[path]) for path in indices}
    found = {}
    for (path, index), queue in queues.items():
        id, place = VirtioInfo(path, "").id, (path, index)
        driver = _driver_queue(running, id, index)
        found[place] = QueueFacts(
            status=statuses[path],
            queue=queue,
            ring=rings.get(place),
            answered=index in answered[path],
            backend=_state(running, id),
            # A driver of ours counts from the ring's beginning, and wraps as the indices of a split one do.
            noticed=None if driver is None else driver.completed & 0xFFFF,
            awaited=None if driver is None else len(driver.pending) - driver.staged,
            staged=None if driver is None else driver.staged,
            interrupt=told.get(place),
        )
    return found


def _by_path(places: Iterable[Place]) -> dict[str, list[int]]:
    indices: dict[str, list[int]] = {}
    for path, index in places:
        indices.setdefault(path, []).append(index)
    return indices


def _answered(status: VirtioStatus) -> Sequence[int]:
    return device_type(status.device_id).answered_queues(status.num_vqs or 0, status.host_features.bits)


def _state(running: ObservedVm, id: str) -> BackendState | None:
    return running.backends[id].state if id in running.backends else None


def _driver_queue(running: ObservedVm, id: str, index: int) -> DriverQueue | None:
    if not isinstance(running.guest, ScriptedGuest):
        return None
    queues = (queue for driver in running.guest.drivers if driver.id == id for queue in driver.queues)
    return next((queue for queue in queues if queue.index == index), None)
