"""What QEMU says of all devices and queues for a report: an answer, or why there is none.

Responsible for asking all of it at once, in bounded time and number, and for never raising; must not know how it is
shown. Nothing here disturbs the VM (``introspect``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pytest_virtio.errors import VirtioError
from pytest_virtio.launch import RunningVm
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.vm.deadline import Deadline

__all__ = ("DEVICES_SHOWN", "QUEUES_SHOWN", "Findings", "ask")

QUEUES_SHOWN = 16
DEVICES_SHOWN = 64

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Findings:
    """The first devices, and of each the first queues; a string says why there is no answer."""

    devices: Mapping[str, VirtioStatus | str]
    """By id."""
    queues: Mapping[str, Mapping[int, VirtQueueStatus | str]]
    """By id and index."""


def ask(running: RunningVm, deadline: Deadline) -> Findings:
    """Ask of all devices, then of their queues."""
    ids = list(running.paths)[:DEVICES_SHOWN]
    if not running.qemu.running:
        return Findings(dict.fromkeys(ids, "QEMU has ended"), {})
    devices = _devices(running, ids, deadline)
    known = {id: answer for id, answer in devices.items() if isinstance(answer, VirtioStatus)}
    return Findings(devices, _queues(running, known, deadline))


def _devices(running: RunningVm, ids: list[str], deadline: Deadline) -> dict[str, VirtioStatus | str]:
    if deadline.passed():
        return dict.fromkeys(ids, "not asked: the time for the report is over")
    paths = {id: running.paths[id] for id in ids}
    try:
        answers = running.introspector.statuses(paths.values(), deadline.remaining())
    except Exception as error:  # noqa: BLE001 - whatever it is, the test's own failure is what matters
        return dict.fromkeys(ids, in_short(error))
    return {id: _or_why(answers[path]) for id, path in paths.items()}


def _queues(
    running: RunningVm, devices: Mapping[str, VirtioStatus], deadline: Deadline
) -> dict[str, dict[int, VirtQueueStatus | str]]:
    indices = {id: range(min(status.num_vqs or 0, QUEUES_SHOWN)) for id, status in devices.items()}
    if deadline.passed():
        return {
            id: dict.fromkeys(range_, "not asked: the time for the report is over") for id, range_ in indices.items()
        }
    paths = {id: running.paths[id] for id in devices}
    statuses = {paths[id]: status for id, status in devices.items()}
    wanted = {paths[id]: range_ for id, range_ in indices.items()}
    try:
        answers = running.introspector.queue_statuses(statuses, wanted, deadline.remaining())
    except Exception as error:  # noqa: BLE001 - as above
        return {id: dict.fromkeys(range_, in_short(error)) for id, range_ in indices.items()}
    return {id: {n: _or_why(answers[paths[id], n]) for n in range_} for id, range_ in indices.items()}


def _or_why(answer: T | VirtioError) -> T | str:
    return in_short(answer) if isinstance(answer, VirtioError) else answer


def in_short(error: Exception) -> str:
    """An error's first line."""
    said = str(error).partition("\n")[0]
    return said if isinstance(error, VirtioError) else f"a bug of pytest-virtio: {error!r}"
