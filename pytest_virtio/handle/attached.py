"""What can be told of a VM that runs already: the report's own sections, by safe commands alone.

Responsible for what a report says of somebody else's VM beyond its devices: how it was asked, and what that left
untold. Must not know arguments or output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pytest_virtio import render
from pytest_virtio.errors import NotSupportedError, UnknownNameError, VirtioError
from pytest_virtio.handle.dump import Section, device_section, device_verdict, made
from pytest_virtio.handle.findings import Findings, ask
from pytest_virtio.launch import AttachedVm, attached
from pytest_virtio.vm.deadline import Deadline

__all__ = ("INFO_SECONDS", "attached_report")

INFO_SECONDS = 10.0


def attached_report(socket: Path, id: str | None = None, seconds: float = INFO_SECONDS) -> tuple[Section, ...]:
    """The report on the VM whose QEMU listens at a path: the verdict, and each device or the one with an id.

    It takes no longer than ``seconds``; the first time that a QEMU binary is met, it is tried for a second or two.

    :raises MonitorError: when there is no conversation, saying why and what to do.
    :raises MissingError: when that QEMU has no virtio introspection.
    :raises UnknownNameError: when no device has the id, naming those that there are.
    """
    deadline = Deadline.after(seconds)
    with attached(socket, deadline) as vm:
        chosen = vm if id is None else replace(vm, paths={id: _path(vm, id)})
        findings = ask(chosen, deadline)
        makers: dict[str, Callable[[], Section]] = {
            "virtio: verdict": lambda: _verdict(chosen, findings),
            **{f"virtio: {id}": _maker(chosen, id, findings) for id in findings.devices},
        }
        return tuple(made(title, make) for title, make in makers.items())


def _path(vm: AttachedVm, id: str) -> str:
    if id not in vm.paths:
        raise UnknownNameError("virtio device", id, vm.paths, "" if vm.paths else "This VM has none.")
    return vm.paths[id]


def _maker(vm: AttachedVm, id: str, findings: Findings) -> Callable[[], Section]:
    return lambda: device_section(vm.paths[id], id, findings, None)


def _verdict(vm: AttachedVm, findings: Findings) -> Section:
    state = [f"the VM stands still: {findings.run_state}"] if findings.run_state else []
    devices = [line for id, answer in findings.devices.items() for line in device_verdict(id, answer, findings)]
    hidden = len(vm.paths) - len(findings.devices)
    more = [f"and {hidden} more devices, not shown: name one"] if hidden > 0 else []
    lines = [*state, *(devices or ["no virtio device"]), *more, *_untold(vm, findings), _how(vm)]
    return Section("virtio: verdict", "\n".join(lines))


def _untold(vm: AttachedVm, findings: Findings) -> Iterator[str]:
    yield from (f"not told: {what}" for what in findings.trouble)
    try:
        # Nothing is there; the question is whether it may be asked.
        vm.qemu.process_memory.read(0, 1)
    except NotSupportedError as error:
        yield f"not told: what lies in rings, for guest RAM can't be read: {error}"
    except VirtioError:
        return


def _how(vm: AttachedVm) -> str:
    package = f" ({vm.package})" if vm.package else ""
    process = f", process {vm.qemu.pid}" if vm.qemu.pid else ""
    return f"QEMU {render.escape(vm.version + package, 200)}{process}"
