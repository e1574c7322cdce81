"""What can be told of a VM that runs already, by safe commands alone.

Responsible for which devices are asked about, and for what that leaves untold; must not know arguments or output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pytest_virtio.errors import NotSupportedError, UnknownNameError, VirtioError
from pytest_virtio.handle.findings import DEVICES_SHOWN, ask
from pytest_virtio.launch import AttachedVm, attached
from pytest_virtio.model.findings import Findings
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.vm.deadline import Deadline

__all__ = ("INFO_SECONDS", "look")

INFO_SECONDS = 10.0


def look(socket: Path, id: str | None = None, seconds: float = INFO_SECONDS) -> Findings:
    """What is found of the VM whose QEMU listens at a path: all devices, or the one with an id.

    It takes no longer than ``seconds``; the first time that a QEMU binary is met, it is tried for a second or two.

    :raises MonitorError: when there is no conversation, saying why and what to do.
    :raises MissingError: when that QEMU has no virtio introspection.
    :raises UnknownNameError: when no device has the id, naming those that there are.
    """
    deadline = Deadline.after(seconds)
    with attached(socket, deadline, id, DEVICES_SHOWN) as vm:
        chosen = vm if id is None else replace(vm, paths={id: _path(vm, id)})
        findings = ask(chosen, deadline)
        served = {id: device.status for id, device in findings.devices.items() if id in vm.vhost and device.status}
        return replace(
            findings,
            state=(*findings.state, *_unserved(served)),
            trouble=(*findings.trouble, *_untold(vm), *_unknown(served)),
        )


def _path(vm: AttachedVm, id: str) -> str:
    if id not in vm.paths:
        raise UnknownNameError("virtio device", id, vm.paths, "" if vm.paths else "This VM has none.")
    return vm.paths[id]


def _unserved(statuses: Mapping[str, VirtioStatus]) -> Iterator[str]:
    """QEMU shows DRIVER_OK also where a vhost device's backend has gone or refused.

    :param statuses: of the vhost devices, by id.
    """
    for id, status in statuses.items():
        if status.driver_ok and status.vm_running and status.vhost_started is False:
            yield f"{id}: its vhost backend is not started: it has gone, or was never there"


def _unknown(statuses: Mapping[str, VirtioStatus]) -> Iterator[str]:
    waiting = [id for id, status in statuses.items() if status.driver_ok and status.vhost_started is not False]
    if waiting:
        looks = "from outside a stopped one looks like one at work"
        yield f"whether the vhost backend of {', '.join(waiting)} answers: {looks}"


def _untold(vm: AttachedVm) -> Iterator[str]:
    try:
        # Nothing is there; the question is whether it may be asked.
        vm.qemu.process_memory.read(0, 1)
    except NotSupportedError as error:
        yield f"what lies in rings, for guest RAM can't be read: {error}"
    except VirtioError:
        return
