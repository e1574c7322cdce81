"""The report on a VM: what a failing test shows, in bounded time and size.

Responsible for choosing what to show and for never raising: what can't be found out is said in its place. It asks by
undisturbing ways only and never stops the VM. Must not know pytest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pytest_virtio import render
from pytest_virtio.errors import VirtioError
from pytest_virtio.launch import RunningVm
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.model.verdict import stage
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Stream

__all__ = ("Section", "report")

DUMP_SECONDS = 5.0
SECTION_LIMIT = 32 * 1024
CONSOLE_LIMIT = 8 * 1024
QUEUES_SHOWN = 16


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report; ``data`` is the same for machines, of JSON's types."""

    title: str
    text: str
    data: object = None


def report(running: RunningVm) -> tuple[Section, ...]:
    """The whole report: verdict, each device, guest console, QEMU's stderr, how to run the same VM by hand.

    Takes :data:`DUMP_SECONDS` at the most, also when QEMU answers nothing.
    """
    deadline = Deadline.after(DUMP_SECONDS)
    answers = {id: _attempt(running, id, deadline) for id in running.paths}
    devices = [_device(running, id, answer, deadline) for id, answer in answers.items()]
    return tuple(_bounded(s) for s in (_verdict(running, answers), *devices, *_surroundings(running)))


def _attempt(running: RunningVm, id: str, deadline: Deadline) -> VirtioStatus | str:
    """The answer, or why there is none. The time that is left is shared: a QEMU that hangs is asked once."""
    if deadline.passed():
        return "not asked: the time for the report is over"
    try:
        return running.status(id, deadline.remaining())
    except VirtioError as error:
        return str(error).splitlines()[0]


def _verdict(running: RunningVm, answers: dict[str, VirtioStatus | str]) -> Section:
    lines = [f"{id}: {_judged(answer)}" for id, answer in answers.items()]
    host = running.host
    package = f" ({host.known.package})" if host.known.package else ""
    machine = f"QEMU {host.known.version}{package}, machine {running.spec.machine}, {running.spec.transport}"
    how = f"{machine}, accelerator {host.accelerator.name} ({host.accelerator.reason})"
    if not running.qemu.running:
        lines.insert(0, f"the VM is gone: QEMU ended ({running.qemu.child.how()})")
    return Section("virtio: verdict", "\n".join([*(lines or ["no virtio device"]), how]))


def _judged(answer: VirtioStatus | str) -> str:
    if isinstance(answer, str):
        return f"no answer: {answer}"
    broken = "; broken: QEMU met an error in a ring" if answer.broken else ""
    paused = "; the VM is paused" if answer.vm_running is False else ""
    return stage(answer.status).value + broken + paused


def _device(running: RunningVm, id: str, answer: VirtioStatus | str, deadline: Deadline) -> Section:
    if isinstance(answer, str):
        return Section(f"virtio: {id}", f"no answer: {answer}", {"error": answer})
    path = running.paths[id]
    lines = [*render.virtio_status(path, answer), *_queues(running, path, answer, deadline)]
    return Section(f"virtio: {id}", "\n".join(lines), _plain(answer))


def _queues(running: RunningVm, path: str, status: VirtioStatus, deadline: Deadline) -> Iterator[str]:
    """The queues that a driver has set up. Those of a running vhost device are left alone: asking stops the ring."""
    if status.vhost_started or status.num_vqs is None:
        yield "queues: not shown, for asking would disturb them (vhost)"
        return
    for index in range(min(status.num_vqs, QUEUES_SHOWN)):
        try:
            queue = running.introspector.queue_status(path, index, deadline.remaining())
        except VirtioError as error:
            yield f"queue {index}: no answer: {str(error).splitlines()[0]}"
            if deadline.passed():
                return
            continue
        if queue.vring_desc:
            yield from render.virtio_queue_status(path, queue)


def _surroundings(running: RunningVm) -> Iterator[Section]:
    if running.guest is not None:
        yield Section("guest console", _tail(running.guest.console))
    yield Section("qemu stderr", running.qemu.stderr_text() or "(empty)")
    yield Section("reproduce", running.by_hand)


def _tail(stream: Stream) -> str:
    log = stream.log
    text = render.escape(log.since(max(0, log.size - CONSOLE_LIMIT)), CONSOLE_LIMIT).strip("\n")
    return text or "(empty)"


def _bounded(section: Section) -> Section:
    return Section(section.title, render.escape(section.text, SECTION_LIMIT, keep="head"), section.data)


def _plain(status: VirtioStatus) -> dict[str, object]:
    """The fields of a status as JSON has them; sets of names are sorted lists."""
    fields = ("name", "device_id", "vhost_started", "broken", "started", "vm_running", "num_vqs", "source")
    sets: Iterable[tuple[str, Iterable[str]]] = (
        ("status", sorted(status.status)),
        ("guest_features", status.guest_features.names),
        ("host_features", status.host_features.names),
    )
    return {**{name: getattr(status, name) for name in fields}, **{name: list(names) for name, names in sets}}
