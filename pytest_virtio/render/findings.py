"""What was found of a VM, as the failure report shows it: a verdict, then each device.

Responsible for choosing what to show of the findings; must not know whether they are of a VM that lives or of a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pytest_virtio.model.findings import DeviceFindings, Findings, QueueFindings
from pytest_virtio.model.negotiation import negotiation as rows_of
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.model.stuck import Stuck
from pytest_virtio.model.verdict import stage
from pytest_virtio.render.hmp import virtio_queue_status, virtio_status, virtio_vhost_queue_status
from pytest_virtio.render.judgement import status_history, stuck
from pytest_virtio.render.negotiation import negotiation
from pytest_virtio.render.provenance import provenance_beside_qemu
from pytest_virtio.render.ring import ring_picture
from pytest_virtio.render.text import safe
from pytest_virtio.spec.devices import device_type

__all__ = ("device_findings", "verdict")

OWED: Final = frozenset(
    {
        Stuck.BACKEND_ENDED,
        Stuck.BACKEND_STOPPED,
        Stuck.DISCONNECTED,
        Stuck.NOT_NOTICED,
        Stuck.STAGED,
        Stuck.KICK_SUPPRESSED,
        Stuck.NOT_KICKED,
        Stuck.NOT_TAKEN,
        Stuck.IN_FLIGHT,
        Stuck.WITH_DEVICE,
    }
)
"""Verdicts on a queue that are worth a line on top; the others say what the device's line does, or that all is well."""


def verdict(findings: Findings) -> Iterator[str]:
    """Yield what is wrong with the VM, how far each device has come, what is not known, and what all of it runs on."""
    yield from map(safe, findings.state)
    for id, device in findings.devices.items():
        yield from _judged(safe(id), device)
    if not findings.devices:
        yield "no virtio device"
    if findings.hidden > 0:
        yield f"and {findings.hidden} more devices, not shown"
    yield from (f"not told: {safe(what)}" for what in findings.trouble)
    yield safe(findings.host)
    yield from filter(None, [provenance_beside_qemu(findings.provenance)])


def device_findings(device: DeviceFindings) -> Iterator[str]:
    """Yield a device's history where there is one, its rings that are not idle, its status, where the sides of the
    negotiation differ, and its queues."""
    if device.status is None:
        yield f"no answer: {safe(device.no_answer)}"
    if device.history is not None:
        yield from (f"history: {line}" for line in status_history(device.history))
    if device.status is None:
        return
    yield from _pictures(device.status, device.queues)
    yield from virtio_status(device.path, device.status)
    yield from _differences(device.status, device.offered_by_backend, device.masked_by_test)
    yield f"source: {safe(device.status.source)}"
    yield from _queues(device.path, device.status, device.queues)


def _judged(id: str, device: DeviceFindings) -> Iterator[str]:
    """How far a device has come; then its queues in which somebody owes something."""
    status = device.status
    if status is None:
        yield f"{id}: no answer: {safe(device.no_answer)}"
        return
    broken = "; broken: QEMU met an error in a ring" if status.broken else ""
    paused = "; the VM is paused" if status.vm_running is False else ""
    yield f"{id}: {stage(status.status).value}{broken}{paused}"
    for name, queue in zip(_names(status, device.queues), device.queues, strict=True):
        if queue.verdict is not None and queue.verdict.stuck in OWED:
            first, *evidence = stuck(queue.verdict)
            yield f"{id}.{name}: {first}"
            yield from (f"  {line.strip()}" for line in evidence)


def _names(status: VirtioStatus, queues: tuple[QueueFindings, ...]) -> list[str]:
    """What the queues are called; a file may have more of them than the device."""
    count = max(status.num_vqs or 0, len(queues))
    offered = 0 if status.host_features.untold else status.host_features.bits
    return [names[0] for names in device_type(status.device_id).queue_names(count, offered)][: len(queues)]


def _pictures(status: VirtioStatus, queues: tuple[QueueFindings, ...]) -> Iterator[str]:
    """The rings that are not idle."""
    for index, (name, queue) in enumerate(zip(_names(status, queues), queues, strict=True)):
        ring = queue.ring
        if ring is not None and ring.desc and (ring.count or ring.faults):
            yield f"queue {index}, {name}:"
            yield from ring_picture(ring)


def _differences(status: VirtioStatus, by_backend: int | None, masked: int) -> Iterator[str]:
    """What the driver had the choice of and did not take; of a vhost device, where any of the sides differ."""
    if status.guest_features.untold or not status.guest_features.bits:
        return
    differing = [row for row in rows_of(status, by_backend, masked) if row.difference]
    if any(row.backend_offers is not None for row in differing):
        yield "negotiation, where the sides differ:"
        yield from (f"  {line}" for line in negotiation(differing))
    elif differing:
        yield f"offered, not acknowledged: {', '.join(row.feature for row in differing)}"


def _queues(path: str, status: VirtioStatus, queues: tuple[QueueFindings, ...]) -> Iterator[str]:
    """The queues that a driver has set up."""
    if status.num_vqs is None:
        yield f"queues: not shown, for {safe(status.source)} does not tell how many there are"
        return
    reasons = {queue.no_answer for queue in queues}
    if len(queues) > 1 and len(reasons) == 1 and "" not in reasons:
        yield f"queues: no answer: {safe(reasons.pop())}"
        return
    for index, queue in enumerate(queues):
        yield from _queue(path, index, queue)
    if status.num_vqs > len(queues):
        yield f"and {status.num_vqs - len(queues)} more queues, not shown"


def _queue(path: str, index: int, queue: QueueFindings) -> Iterator[str]:
    if queue.status is None:
        yield f"queue {index}: no answer: {safe(queue.no_answer)}"
    elif queue.status.vring_desc:
        yield from virtio_queue_status(path, queue.status)
        yield f"  source: {safe(queue.status.source)}"
    if queue.vhost is not None:
        yield from virtio_vhost_queue_status(path, queue.vhost)
        yield f"  source: {safe(queue.vhost.source)}"
