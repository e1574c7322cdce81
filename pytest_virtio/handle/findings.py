"""What QEMU says of all devices and queues for a report: an answer, or why there is none.

Responsible for asking all of it at once, in bounded time and number, and for never raising; must not know how it is
shown. Nothing here disturbs the VM (``introspect``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pytest_virtio import qapi
from pytest_virtio.errors import VirtioError
from pytest_virtio.handle.stuck import gather
from pytest_virtio.introspect.query import Place
from pytest_virtio.launch import ObservedVm
from pytest_virtio.model.history import History
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.ring import Ring
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.model.stuck import QueueVerdict
from pytest_virtio.vm.deadline import Deadline

__all__ = ("DEVICES_SHOWN", "QUEUES_SHOWN", "Findings", "Queue", "ask")

QUEUES_SHOWN = 16
DEVICES_SHOWN = 64
TOO_LATE = "not asked: the time for the report is over"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Queue:
    """What was found of one queue; None is what could not be."""

    status: VirtQueueStatus
    ring: Ring | None = None
    verdict: QueueVerdict | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """The first devices, and of each the first queues; a string says why there is no answer."""

    devices: Mapping[str, VirtioStatus | str]
    """By id."""
    queues: Mapping[str, Mapping[int, Queue | str]]
    """By id and index."""
    histories: Mapping[str, History]
    """Of the devices that are not at DRIVER_OK; of all once QEMU has ended."""
    trouble: Sequence[str] = ()
    """What else could not be found out, and why."""
    run_state: str = ""
    """QEMU's word for why the VM stands still; "" while it runs, and where that is not known."""


def ask(running: ObservedVm, deadline: Deadline) -> Findings:
    """Ask of all devices, then of their queues."""
    ids = list(running.paths)[:DEVICES_SHOWN]
    trouble: list[str] = []
    if not running.qemu.running:
        histories = _histories(running, ids, deadline, trouble)
        return Findings(dict.fromkeys(ids, "QEMU has ended"), {}, histories, trouble)
    devices = _devices(running, ids, deadline)
    known = {id: answer for id, answer in devices.items() if isinstance(answer, VirtioStatus)}
    queues = _queues(running, known, deadline, trouble)
    stalled = [id for id, status in known.items() if not status.driver_ok]
    histories = _histories(running, stalled, deadline, trouble)
    return Findings(devices, queues, histories, trouble, _run_state(running, known, deadline, trouble))


def _run_state(running: ObservedVm, devices: Mapping[str, VirtioStatus], deadline: Deadline, trouble: list[str]) -> str:
    if all(status.vm_running is not False for status in devices.values()):
        return ""
    try:
        return qapi.parse_run_state(running.qemu.execute(qapi.QUERY_RUN_STATE, None, deadline.remaining()))
    except Exception as error:  # noqa: BLE001 - as above
        trouble.append(f"why the VM stands still: {in_short(error)}")
        return ""


def _devices(running: ObservedVm, ids: list[str], deadline: Deadline) -> dict[str, VirtioStatus | str]:
    if deadline.passed():
        return dict.fromkeys(ids, TOO_LATE)
    paths = {id: running.paths[id] for id in ids}
    try:
        answers = running.introspector.statuses(paths.values(), deadline.remaining())
    except Exception as error:  # noqa: BLE001 - whatever it is, the test's own failure is what matters
        return dict.fromkeys(ids, in_short(error))
    return {id: _or_why(answers[path]) for id, path in paths.items()}


def _queues(
    running: ObservedVm, devices: Mapping[str, VirtioStatus], deadline: Deadline, trouble: list[str]
) -> dict[str, dict[int, Queue | str]]:
    indices = {id: range(min(status.num_vqs or 0, QUEUES_SHOWN)) for id, status in devices.items()}
    paths = {id: running.paths[id] for id in devices}
    statuses = {paths[id]: status for id, status in devices.items()}
    if deadline.passed():
        return {id: dict.fromkeys(range_, TOO_LATE) for id, range_ in indices.items()}
    try:
        wanted = {paths[id]: range_ for id, range_ in indices.items()}
        told = running.introspector.queue_statuses(statuses, wanted, deadline.remaining())
    except Exception as error:  # noqa: BLE001 - as above
        return {id: dict.fromkeys(range_, in_short(error)) for id, range_ in indices.items()}
    found = _looked_into(running, statuses, told, deadline, trouble)
    return {id: {n: found[paths[id], n] for n in range_} for id, range_ in indices.items()}


def _looked_into(
    running: ObservedVm,
    statuses: Mapping[str, VirtioStatus],
    told: Mapping[Place, VirtQueueStatus | VirtioError],
    deadline: Deadline,
    trouble: list[str],
) -> dict[Place, Queue | str]:
    """The queues with their rings and verdicts; a fault of ours in these costs a report no more than them."""
    known = {place: answer for place, answer in told.items() if isinstance(answer, VirtQueueStatus)}
    rings: dict[Place, Ring] = {}
    verdicts: dict[Place, QueueVerdict] = {}
    try:
        read = running.introspector.rings_of(statuses, known, deadline.remaining())
        rings = {place: ring for place, ring in read.items() if isinstance(ring, Ring)}
        verdicts = gather(running, statuses, known, rings, deadline.remaining())
    except Exception as error:  # noqa: BLE001 - as above
        trouble.append(f"rings and verdicts: {in_short(error)}")
    return {
        place: Queue(answer, rings.get(place), verdicts.get(place))
        if isinstance(answer, VirtQueueStatus)
        else in_short(answer)
        for place, answer in told.items()
    }


def _histories(running: ObservedVm, ids: Iterable[str], deadline: Deadline, trouble: list[str]) -> dict[str, History]:
    histories: dict[str, History] = {}
    for id in ids:
        if not deadline.passed():
            try:
                if running.histories is not None:
                    histories[id] = running.histories.history(running.paths[id], deadline.remaining())
            except Exception as error:  # noqa: BLE001 - as above
                trouble.append(f"history of {id}: {in_short(error)}")
    return histories


def _or_why(answer: T | VirtioError) -> T | str:
    return in_short(answer) if isinstance(answer, VirtioError) else answer


def in_short(error: Exception) -> str:
    """An error's first line."""
    said = str(error).partition("\n")[0]
    return said if isinstance(error, VirtioError) else f"a bug of pytest-virtio: {error!r}"
