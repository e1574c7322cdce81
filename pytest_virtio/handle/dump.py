"""The report on a VM: what a failing test shows, in bounded time and size.

Responsible for choosing what to show and for never raising: what can't be found out is said in its place. It asks by
undisturbing ways only and never stops the VM. Must not know pytest.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pytest_virtio import render
from pytest_virtio.backend.running import RunningBackend
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.handle.findings import QUEUES_SHOWN, Findings, Queue, ask
from pytest_virtio.handle.wire import device_wire
from pytest_virtio.launch import RunningGuest, RunningVm
from pytest_virtio.model.negotiation import negotiation
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.model.stuck import Stuck
from pytest_virtio.model.verdict import stage
from pytest_virtio.spec.devices import device_type
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Stream

__all__ = ("DUMP_SECONDS", "Section", "device_section", "device_verdict", "made", "report")

DUMP_SECONDS = 5.0
SECTION_LIMIT = 32 * 1024
CONSOLE_LIMIT = 8 * 1024
OWED = frozenset(
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


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report; ``data`` is the same for machines, of JSON's types."""

    title: str
    text: str
    data: object = None


def report(running: RunningVm, seconds: float = DUMP_SECONDS) -> tuple[Section, ...]:
    """The whole report: verdict, each device, guest console, QEMU's stderr, how to run the same VM by hand.

    It never raises, and takes no longer than ``seconds`` (and what rendering takes), also when QEMU answers nothing.
    """
    findings = ask(running, Deadline.after(seconds))
    makers: dict[str, Callable[[], Section]] = {
        "virtio: verdict": lambda: _verdict(running, findings),
        **{f"virtio: {id}": _maker_of_device(running, id, findings) for id in findings.devices},
        **_surroundings(running),
    }
    return tuple(made(title, make) for title, make in makers.items())


def made(title: str, make: Callable[[], Section]) -> Section:
    """A section, bounded and safe to print. A fault of ours shows in its place, not in place of the test's failure."""
    try:
        section = make()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test's own failure is what matters
        section = Section(title, f"this part of the report failed, which is a bug of pytest-virtio: {error!r}")
    return Section(section.title, render.escape(section.text, SECTION_LIMIT, keep="head"), section.data)


def _verdict(running: RunningVm, findings: Findings) -> Section:
    lines = [line for id, answer in findings.devices.items() for line in device_verdict(id, answer, findings)]
    hidden = len(running.paths) - len(findings.devices)
    more = [f"and {hidden} more devices, not shown"] if hidden > 0 else []
    missing = [f"not told: {what}" for what in findings.trouble]
    second = [f"second monitor: pytest-virtio info {shlex.quote(str(running.monitor))}"] if running.monitor else []
    all = [*_state(running, findings), *(lines or ["no virtio device"]), *more, *missing, *second, _how(running)]
    return Section("virtio: verdict", "\n".join(all))


def device_verdict(id: str, answer: VirtioStatus | str, findings: Findings) -> Iterator[str]:
    """How far a device has come; then its queues in which somebody owes something."""
    yield f"{id}: {_judged(answer)}"
    if isinstance(answer, str):
        return
    names = device_type(answer.device_id).queue_names(answer.num_vqs or 0, answer.host_features.bits)
    for index, queue in findings.queues.get(id, {}).items():
        verdict = None if isinstance(queue, str) else queue.verdict
        if verdict is not None and verdict.stuck in OWED:
            first, *evidence = render.stuck(verdict)
            yield f"{id}.{names[index][0]}: {first}"
            yield from (f"  {line.strip()}" for line in evidence)


def _state(running: RunningVm, findings: Findings) -> Iterator[str]:
    """What is wrong with the VM as a whole, or with what serves its devices."""
    if not running.qemu.running:
        yield f"the VM is gone: QEMU ended ({running.qemu.child.how()})"
    elif running.qemu.child.stopped:
        yield "QEMU's process is stopped by a signal (SIGSTOP, SIGTSTP) or a debugger: it answers nothing"
    elif findings.run_state:
        yield f"the VM stands still: {render.escape(findings.run_state)}"
    for id, backend in running.backends.items():
        state = backend.state
        if state == "ended":
            yield f"{id}: its backend has ended ({backend.child.how()})"
        elif state == "disconnected":
            yield f"{id}: its backend lives, and serves nothing: {backend.connection_ended}"
        elif state == "stopped":
            yield f"{id}: its backend is stopped by a signal (SIGSTOP, SIGTSTP) or a debugger: it serves nothing"


def _how(running: RunningVm) -> str:
    host = running.host
    package = f" ({host.known.package})" if host.known.package else ""
    machine = f"QEMU {host.known.version}{package}, machine {running.spec.machine}, {running.spec.transport}"
    return f"{machine}, accelerator {host.accelerator.name} ({host.accelerator.reason})"


def _judged(answer: VirtioStatus | str) -> str:
    if isinstance(answer, str):
        return f"no answer: {answer}"
    broken = "; broken: QEMU met an error in a ring" if answer.broken else ""
    paused = "; the VM is paused" if answer.vm_running is False else ""
    return stage(answer.status).value + broken + paused


def _maker_of_device(running: RunningVm, id: str, findings: Findings) -> Callable[[], Section]:
    return lambda: device_section(running.paths[id], id, findings, running.offered_by_backend(id))


def device_section(path: str, id: str, findings: Findings, by_backend: int | None) -> Section:
    answer, history = findings.devices[id], list(_history(id, findings))
    if isinstance(answer, str):
        return Section(f"virtio: {id}", "\n".join([f"no answer: {answer}", *history]), {"error": answer})
    queues = findings.queues[id]
    lines = [
        *history,
        *_pictures(answer, queues),
        *render.virtio_status(path, answer),
        *_differences(answer, by_backend),
        f"source: {answer.source}",
        *_queues(path, answer, queues),
    ]
    return Section(f"virtio: {id}", "\n".join(lines), _plain(answer))


def _history(id: str, findings: Findings) -> Iterator[str]:
    if id in findings.histories:
        yield from (f"history: {line}" for line in render.status_history(findings.histories[id]))


def _pictures(status: VirtioStatus, queues: Mapping[int, Queue | str]) -> Iterator[str]:
    """The rings that are not idle."""
    names = device_type(status.device_id).queue_names(status.num_vqs or 0, status.host_features.bits)
    for index, queue in queues.items():
        ring = None if isinstance(queue, str) else queue.ring
        if ring is not None and ring.desc and (ring.count or ring.faults):
            yield f"queue {index}, {names[index][0]}:"
            yield from render.ring_picture(ring)


def _differences(status: VirtioStatus, by_backend: int | None) -> Iterator[str]:
    """What the driver had the choice of and did not take; of a vhost device, where any of the sides differ."""
    if status.guest_features.untold or not status.guest_features.bits:
        return
    differing = [row for row in negotiation(status, by_backend) if row.difference]
    if any(row.backend_offers is not None for row in differing):
        yield "negotiation, where the sides differ:"
        yield from (f"  {line}" for line in render.negotiation(differing))
    elif differing:
        yield f"offered, not acknowledged: {', '.join(row.feature for row in differing)}"


def _queues(path: str, status: VirtioStatus, queues: Mapping[int, Queue | str]) -> Iterator[str]:
    """The queues that a driver has set up."""
    if status.num_vqs is None:
        yield f"queues: not shown, for {status.source} does not tell how many there are"
        return
    reasons = {answer for answer in queues.values() if isinstance(answer, str)}
    if len(queues) > 1 and len(reasons) == 1 and all(answer in reasons for answer in queues.values()):
        yield f"queues: no answer: {reasons.pop()}"
        return
    for index, answer in queues.items():
        if isinstance(answer, str):
            yield f"queue {index}: no answer: {answer}"
        elif answer.status.vring_desc:
            yield from render.virtio_queue_status(path, answer.status)
            yield f"  source: {answer.status.source}"
    if status.num_vqs > len(queues):
        yield f"and {status.num_vqs - len(queues)} more queues, not shown"


def _surroundings(running: RunningVm) -> dict[str, Callable[[], Section]]:
    qemu = running.qemu
    return {
        **_guest(running.guest),
        "qemu stderr": lambda: Section("qemu stderr", qemu.stderr_text() or "(empty)"),
        **{f"{id} backend stderr": _maker_of_backend(id, backend) for id, backend in running.backends.items()},
        **{f"{id} wire": _maker_of_wire(running, id) for id, backend in running.backends.items() if backend.witness},
        "reproduce": lambda: Section("reproduce", running.by_hand),
    }


def _maker_of_backend(id: str, backend: RunningBackend) -> Callable[[], Section]:
    return lambda: Section(f"{id} backend stderr", backend.account())


def _maker_of_wire(running: RunningVm, id: str) -> Callable[[], Section]:
    def make() -> Section:
        return Section(f"{id} wire", *device_wire(running, id).report())

    return make


def _guest(guest: RunningGuest) -> dict[str, Callable[[], Section]]:
    if guest is None:
        return {}
    if isinstance(guest, ScriptedGuest):
        return {"scripted guest": lambda: Section("scripted guest", _steps(guest) or "(no device)")}
    return {"guest console": lambda: Section("guest console", _tail(guest.console))}


def _steps(guest: ScriptedGuest) -> str:
    """What each driver did last, and how its queues stand."""
    return "\n".join(
        f"{driver.id}: {', '.join(driver.history) or 'not driven'}"
        + "".join(f"; {queue.name}: {queue.standing}" for queue in driver.queues[:QUEUES_SHOWN])
        for driver in guest.drivers
    )


def _tail(stream: Stream) -> str:
    log = stream.log
    left_out = max(0, log.size - CONSOLE_LIMIT)
    tail = log.since(left_out)
    if left_out and b"\n" in tail:
        # From the next whole line on.
        begun, _, tail = tail.partition(b"\n")
        left_out += len(begun) + 1
    text = render.escape(tail, CONSOLE_LIMIT).strip("\n")
    return (f"[{left_out} bytes before this are left out]\n" if left_out else "") + (text or "(empty)")


def _plain(status: VirtioStatus) -> dict[str, object]:
    """The fields of a status as JSON has them; sets of names are sorted lists, and null where nobody tells."""
    fields = ("name", "device_id", "vhost_started", "broken", "started", "vm_running", "num_vqs", "source")
    guest = status.guest_features
    return {
        **{name: getattr(status, name) for name in fields},
        "status": sorted(status.status),
        "guest_features": None if guest.untold else list(guest.names),
        "host_features": list(status.host_features.names),
    }
