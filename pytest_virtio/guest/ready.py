"""Waiting until the guest's drivers have brought the devices to DRIVER_OK.

Responsible for the wait and for saying at which stage a device stands when it is over; must not know which guest it
is. QEMU sends no event for a device status, so this wait has to look again and again; the pause is a compromise
between QEMU's time and a moment missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from pytest_virtio.errors import DeviceStalledError
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.model.verdict import stage
from pytest_virtio.vm.deadline import Deadline

__all__ = ("StatusOf", "await_driver_ok")

StatusOf = Callable[[str], VirtioStatus]
"""Gives the status of the device with an id."""

PAUSE_SECONDS = 0.005


def await_driver_ok(
    ids: Iterable[str], status_of: StatusOf, deadline: Deadline, check: Callable[[], None], hint: str = ""
) -> dict[str, VirtioStatus]:
    """Wait until each device has been seen at DRIVER_OK; the statuses at which it was.

    A driver may let go of its device again (iPXE does): once seen is enough.

    :param check: called in each round; raises when there is nothing to wait for any more.
    :raises DeviceStalledError: at the deadline, naming each device that is not there and its stage.
    """
    seen: dict[str, VirtioStatus] = {}
    waiting = list(ids)
    while True:
        check()
        latest = {id: status_of(id) for id in waiting}
        seen |= {id: status for id, status in latest.items() if status.driver_ok}
        waiting = [id for id in waiting if id not in seen]
        if not waiting:
            return seen
        if deadline.passed():
            raise DeviceStalledError(_stalled({id: latest[id] for id in waiting}, deadline.seconds) + hint)
        time.sleep(min(PAUSE_SECONDS, deadline.remaining()))


def _stalled(latest: dict[str, VirtioStatus], seconds: float) -> str:
    where = "; ".join(f"{id} stands at {stage(status.status).value}" for id, status in latest.items())
    return f"not at DRIVER_OK within {seconds:g} s: {where}"
