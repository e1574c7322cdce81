"""The report on a VM: what a failing test shows, in bounded time and size.

Responsible for choosing what to show and for never raising: what can't be found out is said in its place. It asks by
undisturbing ways only and never stops the VM. Must not know pytest.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_virtio import render
from pytest_virtio.backend.running import RunningBackend
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.handle.findings import QUEUES_SHOWN, ask
from pytest_virtio.handle.wire import device_wire
from pytest_virtio.launch import RunningGuest, RunningVm
from pytest_virtio.model.findings import DeviceFindings, Findings
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Stream

__all__ = ("DUMP_SECONDS", "SECOND_MONITOR", "Section", "report", "scripted_steps", "sections", "tail", "told")

DUMP_SECONDS = 5.0
SECTION_LIMIT = 32 * 1024
CONSOLE_LIMIT = 8 * 1024
SECOND_MONITOR = "second monitor"


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
    return sections(running, ask(running, Deadline.after(seconds)))


def sections(running: RunningVm, findings: Findings) -> tuple[Section, ...]:
    """The report on what was found."""
    return (*told(findings), *_made(_surroundings(running)))


def told(findings: Findings) -> tuple[Section, ...]:
    """What was found, alone."""
    makers: dict[str, Callable[[], Section]] = {
        "virtio: verdict": lambda: Section("virtio: verdict", "\n".join(render.verdict(findings))),
        **{f"virtio: {id}": _maker_of_device(id, device) for id, device in findings.devices.items()},
    }
    return _made(makers)


def _made(makers: Mapping[str, Callable[[], Section]]) -> tuple[Section, ...]:
    return tuple(_one(title, make) for title, make in makers.items())


def _one(title: str, make: Callable[[], Section]) -> Section:
    """A section, bounded and safe to print. A fault of ours shows in its place, not in place of the test's failure."""
    try:
        section = make()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test's own failure is what matters
        section = Section(title, f"this part of the report failed, which is a bug of pytest-virtio: {error!r}")
    return Section(section.title, render.escape(section.text, SECTION_LIMIT, keep="head"), section.data)


def _maker_of_device(id: str, device: DeviceFindings) -> Callable[[], Section]:
    def make() -> Section:
        data = {"error": device.no_answer} if device.status is None else _plain(device.status)
        return Section(f"virtio: {id}", "\n".join(render.device_findings(device)), data)

    return make


def _surroundings(running: RunningVm) -> dict[str, Callable[[], Section]]:
    qemu, path = running.qemu, running.monitor
    return {
        **({} if path is None or not qemu.running else {SECOND_MONITOR: lambda: _second_monitor(path)}),
        **_guest(running.guest),
        "qemu stderr": lambda: Section("qemu stderr", qemu.stderr_text() or "(empty)"),
        **{f"{id} backend stderr": _maker_of_backend(id, backend) for id, backend in running.backends.items()},
        **{f"{id} wire": _maker_of_wire(running, id) for id, backend in running.backends.items() if backend.witness},
        "reproduce": lambda: Section("reproduce", running.by_hand),
    }


def _second_monitor(path: Path) -> Section:
    return Section(SECOND_MONITOR, f"pytest-virtio info {shlex.quote(str(path))}")


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
        return {"scripted guest": lambda: Section("scripted guest", scripted_steps(guest) or "(no device)")}
    return {"guest console": lambda: Section("guest console", tail(guest.console))}


def scripted_steps(guest: ScriptedGuest) -> str:
    """What each driver did last, and how its queues stand."""
    return "\n".join(
        f"{driver.id}: {', '.join(driver.history) or 'not driven'}"
        + "".join(f"; {queue.name}: {queue.standing}" for queue in driver.queues[:QUEUES_SHOWN])
        for driver in guest.drivers
    )


def tail(stream: Stream, limit: int = CONSOLE_LIMIT) -> str:
    """The end of what a console said, from a whole line on, in so many bytes; a note says what is left out."""
    log = stream.log
    left_out = max(0, log.size - limit)
    said = log.since(left_out)
    if left_out and b"\n" in said:
        # From the next whole line on.
        begun, _, said = said.partition(b"\n")
        left_out += len(begun) + 1
    text = render.escape(said, limit).strip("\n")
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
