"""What is kept of a VM in files: each file's name, and what makes its text.

Responsible for choosing the files and for their bounds; a file whose making fails says why in its place. Must not know
where they are written, nor pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from pytest_virtio import render
from pytest_virtio.baseline.store import PROFILE
from pytest_virtio.errors import VirtioError
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.handle.dump import DUMP_SECONDS, SECOND_MONITOR, Section, scripted_steps, sections, tail
from pytest_virtio.handle.findings import ask_more
from pytest_virtio.handle.profile import profile
from pytest_virtio.handle.wire import device_wire
from pytest_virtio.launch import RunningVm
from pytest_virtio.model.findings import DeviceFindings, Findings
from pytest_virtio.vm.deadline import Deadline

__all__ = ("Evidence", "evidence")

TEXT_LIMIT = 1 << 20
"""Bytes of a console, or of a log of any kind, as written: what shows as ``\\x1b`` has four."""
MODELS_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a VM when a test fails.

    :param sections: the report.
    :param files: what artefacts keep beside it: texts by the files' names; empty when nobody asked for artefacts.
    """

    sections: tuple[Section, ...]
    files: Mapping[str, str] = field(default_factory=dict)

    def of_ending(self) -> Evidence:
        """The same, of a VM that is gone by the time that anybody reads it: its second monitor answers nobody."""
        return replace(self, sections=tuple(each for each in self.sections if each.title != SECOND_MONITOR))


def evidence(running: RunningVm, seconds: float = DUMP_SECONDS) -> Evidence:
    """The report and the files, by one look. As with the report alone, it never raises and ends in time."""
    deadline = Deadline.after(seconds)
    findings = ask_more(running, deadline)
    made = {name: _made(make) for name, make in _makers(running, findings, deadline).items()}
    return Evidence(sections(running, findings), {name: text for name, text in made.items() if text is not None})


def _makers(running: RunningVm, findings: Findings, deadline: Deadline) -> dict[str, Callable[[], str | None]]:
    watched = [id for id, backend in running.backends.items() if backend.witness]
    return {
        "models.json": partial(_models, findings),
        PROFILE: partial(_profile, running, deadline),
        **_guest(running),
        "qemu.stderr": _log(partial(running.qemu.stderr_text, TEXT_LIMIT)),
        **{f"backend-{id}.stderr": _log(partial(each.account, TEXT_LIMIT)) for id, each in running.backends.items()},
        "qmp.jsonl": lambda: "".join(f"{line}\n" for line in running.qemu.monitor.transcript.lines()),
        **{f"wire-{id}.jsonl": partial(_wire, running, id) for id in watched},
        "command.sh": lambda: f"#!/bin/sh\n{running.by_hand}\n",
    }


def _made(make: Callable[[], str | None]) -> str | None:
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test's own failure is what matters
        return render.escape(f"this file could not be made: {error!r}\n")


def _guest(running: RunningVm) -> dict[str, Callable[[], str | None]]:
    guest = running.guest
    if guest is None:
        return {}
    if isinstance(guest, ScriptedGuest):
        return {"scripted-guest.txt": _log(lambda: render.escape(scripted_steps(guest), TEXT_LIMIT))}
    return {"console.log": _log(lambda: tail(guest.console, TEXT_LIMIT))}


def _log(make: Callable[[], str]) -> Callable[[], str]:
    return lambda: render.fit(make(), TEXT_LIMIT)


def _models(findings: Findings) -> str:
    # With it comes cattrs, which a run that keeps no artefacts has no use for.
    from pytest_virtio.artifact.codec import models_to_json  # noqa: PLC0415

    text = models_to_json(findings)
    if len(text) <= MODELS_LIMIT:
        return text
    devices = {id: _without_rings(device) for id, device in findings.devices.items()}
    note = f"rings: left out, for with them the models take {len(text)} bytes"
    return models_to_json(replace(findings, devices=devices, trouble=(*findings.trouble, note)))


def _profile(running: RunningVm, deadline: Deadline) -> str | None:
    """None where a device does not tell what there is to compare; the models say why."""
    from pytest_virtio.baseline.codec import Baseline, dumps  # noqa: PLC0415 - as above

    try:
        return dumps(Baseline(profile(running, list(running.paths), deadline.remaining())))
    except VirtioError:
        return None


def _without_rings(device: DeviceFindings) -> DeviceFindings:
    return replace(device, queues=tuple(replace(queue, ring=None) for queue in device.queues))


def _wire(running: RunningVm, id: str) -> str:
    return _lines(device_wire(running, id).lines())


def _lines(lines: Iterable[str]) -> str:
    """The last of them that fit."""
    return "".join(reversed(list(_within(reversed(list(lines)), TEXT_LIMIT))))


def _within(lines: Iterable[str], limit: int) -> Iterator[str]:
    for line in lines:
        limit -= len(line)
        if limit < 0:
            return
        yield line
