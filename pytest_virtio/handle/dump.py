"""The report on a VM: what a failing test shows, in bounded time and size.

Responsible for choosing what to show and for never raising: what can't be found out is said in its place. It asks by
undisturbing ways only and never stops the VM. Must not know pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pytest_virtio import render
from pytest_virtio.errors import VirtioError
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.launch import RunningGuest, RunningVm
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.model.verdict import stage
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Stream

__all__ = ("Section", "report")

DUMP_SECONDS = 5.0
SECTION_LIMIT = 32 * 1024
CONSOLE_LIMIT = 8 * 1024
QUEUES_SHOWN = 16
DEVICES_SHOWN = 64

Answer = VirtioStatus | str
"""What a device answered, or why it did not."""


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
    deadline = Deadline.after(seconds)
    shown = list(running.paths)[:DEVICES_SHOWN]
    answers = {id: _attempt(running, id, deadline) for id in shown}
    makers: dict[str, Callable[[], Section]] = {
        "virtio: verdict": lambda: _verdict(running, answers),
        **{f"virtio: {id}": _maker_of_device(running, id, answer, deadline) for id, answer in answers.items()},
        **_surroundings(running),
    }
    return tuple(_made(title, make) for title, make in makers.items())


def _made(title: str, make: Callable[[], Section]) -> Section:
    """A section, bounded and safe to print. A fault of ours shows in its place, not in place of the test's failure."""
    try:
        section = make()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test's own failure is what matters
        section = Section(title, f"this part of the report failed, which is a bug of pytest-virtio: {error!r}")
    return Section(section.title, render.escape(section.text, SECTION_LIMIT, keep="head"), section.data)


def _attempt(running: RunningVm, id: str, deadline: Deadline) -> Answer:
    """The answer, or why there is none. The time that is left is shared: a QEMU that hangs is asked once."""
    if not running.qemu.running:
        return "QEMU has ended"
    if deadline.passed():
        return "not asked: the time for the report is over"
    try:
        return running.status(id, deadline.remaining())
    except Exception as error:  # noqa: BLE001 - as above
        return _in_short(error)


def _in_short(error: Exception) -> str:
    said = str(error).partition("\n")[0]
    return said if isinstance(error, VirtioError) else f"a bug of pytest-virtio: {error!r}"


def _verdict(running: RunningVm, answers: dict[str, Answer]) -> Section:
    lines = [f"{id}: {_judged(answer)}" for id, answer in answers.items()]
    hidden = len(running.paths) - len(answers)
    more = [f"and {hidden} more devices, not shown"] if hidden > 0 else []
    return Section(
        "virtio: verdict", "\n".join([*_state(running), *(lines or ["no virtio device"]), *more, _how(running)])
    )


def _state(running: RunningVm) -> Iterator[str]:
    """What is wrong with the VM as a whole."""
    if not running.qemu.running:
        yield f"the VM is gone: QEMU ended ({running.qemu.child.how()})"
    elif running.qemu.child.stopped:
        yield "QEMU's process is stopped by a signal (SIGSTOP, SIGTSTP) or a debugger: it answers nothing"


def _how(running: RunningVm) -> str:
    host = running.host
    package = f" ({host.known.package})" if host.known.package else ""
    machine = f"QEMU {host.known.version}{package}, machine {running.spec.machine}, {running.spec.transport}"
    return f"{machine}, accelerator {host.accelerator.name} ({host.accelerator.reason})"


def _judged(answer: Answer) -> str:
    if isinstance(answer, str):
        return f"no answer: {answer}"
    broken = "; broken: QEMU met an error in a ring" if answer.broken else ""
    paused = "; the VM is paused" if answer.vm_running is False else ""
    return stage(answer.status).value + broken + paused


def _maker_of_device(running: RunningVm, id: str, answer: Answer, deadline: Deadline) -> Callable[[], Section]:
    return lambda: _device(running, id, answer, deadline)


def _device(running: RunningVm, id: str, answer: Answer, deadline: Deadline) -> Section:
    if isinstance(answer, str):
        return Section(f"virtio: {id}", f"no answer: {answer}", {"error": answer})
    path = running.paths[id]
    lines = [*render.virtio_status(path, answer), *_declined(answer), *_queues(running, path, answer, deadline)]
    return Section(f"virtio: {id}", "\n".join(lines), _plain(answer))


def _declined(status: VirtioStatus) -> Iterator[str]:
    """What the driver had the choice of and did not take; bit 30, which only says that the bus is PCI, left out."""
    declined = [name for name in status.host_features - status.guest_features if name != "VIRTIO_F_BAD_FEATURE"]
    if status.guest_features.bits and declined:
        yield f"offered, not acknowledged: {', '.join(declined)}"


def _queues(running: RunningVm, path: str, status: VirtioStatus, deadline: Deadline) -> Iterator[str]:
    """The queues that a driver has set up. Those of a running vhost device are left alone: asking stops the ring."""
    if status.num_vqs is None:
        yield f"queues: not shown, for {status.source} does not tell how many there are"
        return
    if status.vhost_started:
        yield "queues: not shown, for asking would disturb them (vhost)"
        return
    for index in range(min(status.num_vqs, QUEUES_SHOWN)):
        if deadline.passed():
            yield f"queue {index}: not asked: the time for the report is over"
            return
        yield from _queue(running, path, index, deadline)
    if status.num_vqs > QUEUES_SHOWN:
        yield f"and {status.num_vqs - QUEUES_SHOWN} more queues, not shown"


def _queue(running: RunningVm, path: str, index: int, deadline: Deadline) -> Iterator[str]:
    try:
        queue = running.introspector.queue_status(path, index, deadline.remaining())
    except Exception as error:  # noqa: BLE001 - as above
        yield f"queue {index}: no answer: {_in_short(error)}"
        return
    if queue.vring_desc:
        yield from render.virtio_queue_status(path, queue)


def _surroundings(running: RunningVm) -> dict[str, Callable[[], Section]]:
    qemu = running.qemu
    return {
        **_guest(running.guest),
        "qemu stderr": lambda: Section("qemu stderr", qemu.stderr_text() or "(empty)"),
        "reproduce": lambda: Section("reproduce", running.by_hand),
    }


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
    """The fields of a status as JSON has them; sets of names are sorted lists."""
    fields = ("name", "device_id", "vhost_started", "broken", "started", "vm_running", "num_vqs", "source")
    sets: Iterable[tuple[str, Iterable[str]]] = (
        ("status", sorted(status.status)),
        ("guest_features", status.guest_features.names),
        ("host_features", status.host_features.names),
    )
    return {**{name: getattr(status, name) for name in fields}, **{name: list(names) for name, names in sets}}
