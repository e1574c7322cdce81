"""What rules of the specification a running VM's devices break.

Responsible for asking what the rules are judged by, in bounded time; must not know a rule (``model.conformance``) nor
pytest. Nothing here disturbs the VM, and what can't be had is left out, for it breaks no rule.
"""

from __future__ import annotations

from collections.abc import Iterable

from pytest_virtio.introspect.properties import has_legacy_interface
from pytest_virtio.launch import RunningVm
from pytest_virtio.model.conformance import Breach, Inspected, breaches
from pytest_virtio.model.queue import VirtQueueStatus
from pytest_virtio.model.ring import Ring
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.memory import LOW_MEMORY

__all__ = ("broken_rules",)


def broken_rules(running: RunningVm, ids: Iterable[str], timeout: float) -> dict[str, tuple[Breach, ...]]:
    """The rules that each of these devices breaks, of those whose status is told.

    What is asked for is not all of one moment, and a driver may be at work: broken is what a second look finds too.

    :param timeout: seconds, for all of them.
    """
    deadline = Deadline.after(timeout)
    found = _looked(running, ids, deadline)
    again = _looked(running, [id for id, broken in found.items() if broken], deadline)
    return {id: tuple(one for one in broken if one in again.get(id, broken)) for id, broken in found.items()}


def _looked(running: RunningVm, ids: Iterable[str], deadline: Deadline) -> dict[str, tuple[Breach, ...]]:
    paths = {id: running.paths[id] for id in ids}
    told = running.introspector.statuses(paths.values(), deadline.remaining())
    statuses = {path: status for path, status in told.items() if isinstance(status, VirtioStatus)}
    inspected = {
        id: _inspected(running, path, statuses[path], deadline) for id, path in paths.items() if path in statuses
    }
    return {id: breaches(device) for id, device in inspected.items()}


def _inspected(running: RunningVm, path: str, status: VirtioStatus, deadline: Deadline) -> Inspected:
    introspector, wanted = running.introspector, {path: range(status.num_vqs or 0)}
    told = introspector.queue_statuses({path: status}, wanted, deadline.remaining()) if status.driver_ok else {}
    known = {place: queue for place, queue in told.items() if isinstance(queue, VirtQueueStatus)}
    rings = introspector.rings_of({path: status}, known, deadline.remaining()) if known else {}
    memory = introspector.ram(deadline.remaining())
    return Inspected(
        status=status,
        modern=_is_modern(running, path, deadline),
        queues={index: queue for (_, index), queue in known.items()},
        rings={index: ring for (_, index), ring in rings.items() if isinstance(ring, Ring)},
        # Above this the machine decides where its RAM goes on.
        ram=memory.size if memory.size < LOW_MEMORY else None,
        masked=running.masked_by_test(VirtioInfo(path, "").id),
    )


def _is_modern(running: RunningVm, path: str, deadline: Deadline) -> bool | None:
    proxy = VirtioInfo(path, "").proxy
    if proxy == path:
        # cmdline has all MMIO buses modern.
        return running.spec.transport == "mmio" or None
    legacy = has_legacy_interface(running.qemu, proxy, deadline.remaining())
    return None if legacy is None else not legacy
