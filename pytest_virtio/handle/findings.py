"""What QEMU says of all devices and queues for a report: an answer, or why there is none.

Responsible for asking all of it at once, in bounded time and number, and for never raising; must not know how it is
shown. Nothing here disturbs the VM (``introspect``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from pytest_virtio import qapi
from pytest_virtio.errors import CommandError, VirtioError
from pytest_virtio.handle.stuck import gather
from pytest_virtio.handle.wire import device_wire
from pytest_virtio.introspect.query import Place
from pytest_virtio.launch import AttachedVm, ObservedVm, RunningVm
from pytest_virtio.model.findings import DeviceFindings, Findings, QueueFindings
from pytest_virtio.model.history import History
from pytest_virtio.model.provenance import Provenance
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.ring import Ring
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.model.stuck import QueueVerdict
from pytest_virtio.vm.deadline import Deadline

__all__ = ("DEVICES_SHOWN", "QUEUES_SHOWN", "ask", "ask_more")

QUEUES_SHOWN = 16
DEVICES_SHOWN = 64
TOO_LATE = "not asked: the time for the report is over"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What QEMU was asked so far; a string says why there is no answer."""

    statuses: Mapping[str, VirtioStatus | str]
    queues: Mapping[str, Sequence[QueueFindings]]
    histories: Mapping[str, History]
    run_state: str = ""
    """QEMU's word for why the VM stands still; "" while it runs, and where that is not known."""


def ask(running: ObservedVm, deadline: Deadline) -> Findings:
    """Ask of all devices, then of their queues."""
    ids = list(running.paths)[:DEVICES_SHOWN]
    trouble: list[str] = []
    asked = _ask(running, ids, deadline, trouble)
    devices = {id: _device(running, id, asked) for id in ids}
    return Findings(
        devices=devices,
        hidden=len(running.paths) - len(ids),
        state=_safely(lambda: tuple(_state(running, asked.run_state)), (), "the VM's state", trouble),
        host=_safely(lambda: _host(running), "", "the host", trouble),
        provenance=_safely(lambda: running.provenance, Provenance(), "what the VM runs on", trouble),
        trouble=tuple(trouble),
    )


def ask_more(running: RunningVm, deadline: Deadline) -> Findings:
    """Ask also for what only artefacts keep: queues as vhost backends were told of them, and what went over wires that
    are watched."""
    findings, trouble = ask(running, deadline), list[str]()
    devices = {
        id: _safely(partial(_more_of, running, id, device, deadline), device, f"more of {id}", trouble)
        for id, device in findings.devices.items()
    }
    return replace(findings, devices=devices, trouble=(*findings.trouble, *trouble))


def _safely(find: Callable[[], T], otherwise: T, what: str, trouble: list[str]) -> T:
    try:
        return find()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test's own failure is what matters
        trouble.append(f"{what}: {in_short(error)}")
        return otherwise


def _ask(running: ObservedVm, ids: list[str], deadline: Deadline, trouble: list[str]) -> _Asked:
    if not running.qemu.running:
        return _Asked(dict.fromkeys(ids, "QEMU has ended"), {}, _histories(running, ids, deadline, trouble))
    statuses = _statuses(running, ids, deadline)
    known = {id: answer for id, answer in statuses.items() if isinstance(answer, VirtioStatus)}
    queues = _queues(running, known, deadline, trouble)
    stalled = [id for id, status in known.items() if not status.driver_ok]
    histories = _histories(running, stalled, deadline, trouble)
    return _Asked(statuses, queues, histories, _run_state(running, known, deadline, trouble))


def _device(running: ObservedVm, id: str, asked: _Asked) -> DeviceFindings:
    answer = asked.statuses[id]
    return DeviceFindings(
        path=running.paths[id],
        status=None if isinstance(answer, str) else answer,
        no_answer=answer if isinstance(answer, str) else "",
        queues=tuple(asked.queues.get(id, ())),
        history=asked.histories.get(id),
        offered_by_backend=running.offered_by_backend(id),
        masked_by_test=running.masked_by_test(id),
    )


def _state(running: ObservedVm, run_state: str) -> Iterator[str]:
    """What is wrong with the VM as a whole, or with what serves its devices."""
    of_process = () if isinstance(running, AttachedVm) else tuple(_process(running))
    yield from of_process
    if run_state and not of_process:
        yield f"the VM stands still: {run_state}"
    for id, backend in running.backends.items():
        state = backend.state
        if state == "ended":
            # Many leave, and rightly so, when QEMU has.
            how = backend.ended if running.qemu.running else f"ended ({backend.child.how()})"
            yield f"{id}: its backend has {how}"
        elif state == "disconnected":
            yield f"{id}: its backend lives, and serves nothing: {backend.connection_ended}"
        elif state == "stopped":
            yield f"{id}: its backend is stopped by a signal (SIGSTOP, SIGTSTP) or a debugger: it serves nothing"


def _process(running: RunningVm) -> Iterator[str]:
    """What is wrong with QEMU's own process."""
    if not running.qemu.running:
        yield f"the VM is gone: QEMU ended ({running.qemu.child.how()})"
        yield from filter(None, [running.qemu.remedy])
    elif running.qemu.child.stopped:
        yield "QEMU's process is stopped by a signal (SIGSTOP, SIGTSTP) or a debugger: it answers nothing"


def _host(running: ObservedVm) -> str:
    if isinstance(running, AttachedVm):
        return running.host
    host = running.host
    package = f" ({host.known.package})" if host.known.package else ""
    machine = f"QEMU {host.known.version}{package}, machine {running.spec.machine}, {running.spec.transport}"
    return f"{machine}, accelerator {host.accelerator.name} ({host.accelerator.reason})"


def _run_state(running: ObservedVm, devices: Mapping[str, VirtioStatus], deadline: Deadline, trouble: list[str]) -> str:
    if all(status.vm_running is not False for status in devices.values()):
        return ""

    def find() -> str:
        return qapi.parse_run_state(running.qemu.execute(qapi.QUERY_RUN_STATE, None, deadline.remaining()))

    return _safely(find, "", "why the VM stands still", trouble)


def _statuses(running: ObservedVm, ids: list[str], deadline: Deadline) -> dict[str, VirtioStatus | str]:
    if deadline.passed():
        return dict.fromkeys(ids, TOO_LATE)
    paths = {id: running.paths[id] for id in ids}
    try:
        answers = running.introspector.statuses(paths.values(), deadline.remaining())
    except Exception as error:  # noqa: BLE001 - as above
        return dict.fromkeys(ids, in_short(error))
    return {id: _or_why(answers[path]) for id, path in paths.items()}


def _queues(
    running: ObservedVm, devices: Mapping[str, VirtioStatus], deadline: Deadline, trouble: list[str]
) -> dict[str, list[QueueFindings]]:
    indices = {id: range(min(status.num_vqs or 0, QUEUES_SHOWN)) for id, status in devices.items()}
    paths = {id: running.paths[id] for id in devices}
    statuses = {paths[id]: status for id, status in devices.items()}
    if deadline.passed():
        return _unanswered(indices, TOO_LATE)
    try:
        wanted = {paths[id]: range_ for id, range_ in indices.items()}
        told = running.introspector.queue_statuses(statuses, wanted, deadline.remaining())
    except Exception as error:  # noqa: BLE001 - as above
        return _unanswered(indices, in_short(error))
    found = _looked_into(running, statuses, told, deadline, trouble)
    return {id: [found[paths[id], n] for n in range_] for id, range_ in indices.items()}


def _unanswered(indices: Mapping[str, range], why: str) -> dict[str, list[QueueFindings]]:
    return {id: [QueueFindings(no_answer=why)] * len(range_) for id, range_ in indices.items()}


def _looked_into(
    running: ObservedVm,
    statuses: Mapping[str, VirtioStatus],
    told: Mapping[Place, VirtQueueStatus | VirtioError],
    deadline: Deadline,
    trouble: list[str],
) -> dict[Place, QueueFindings]:
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
        place: QueueFindings(answer, ring=rings.get(place), verdict=verdicts.get(place))
        if isinstance(answer, VirtQueueStatus)
        else QueueFindings(no_answer=in_short(answer))
        for place, answer in told.items()
    }


def _more_of(running: RunningVm, id: str, device: DeviceFindings, deadline: Deadline) -> DeviceFindings:
    """The device with what only artefacts keep. Asking for the vhost side of a queue disturbs nothing."""
    if device.status is not None and device.status.vhost_started:
        device = replace(device, queues=tuple(_vhost_sides(running, device, deadline)))
    backend = running.backends.get(id)
    if backend is not None and backend.witness is not None:
        device = replace(device, wire=device_wire(running, id).findings())
    return device


def _vhost_sides(running: RunningVm, device: DeviceFindings, deadline: Deadline) -> Iterator[QueueFindings]:
    for index, queue in enumerate(device.queues):
        try:
            vhost = running.introspector.vhost_queue_status(device.path, index, deadline.remaining())
            yield replace(queue, vhost=vhost)
        except CommandError:
            # The queue is not the backend's, as net's control queue.
            yield queue


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


def _or_why(answer: VirtioStatus | VirtioError) -> VirtioStatus | str:
    return in_short(answer) if isinstance(answer, VirtioError) else answer


def in_short(error: Exception) -> str:
    """An error's first line."""
    said = str(error).partition("\n")[0]
    return said if isinstance(error, VirtioError) else f"a bug of pytest-virtio: {error!r}"
