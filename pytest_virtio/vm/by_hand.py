"""The same VM for a person: a shell script that makes its files, starts its backends, then QEMU on the terminal. Pure.

Responsible for the shell's spelling; must not know an option of QEMU's that a device or a machine has.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from pytest_virtio.vm.backends import PrivateFile
from pytest_virtio.vm.cmdline import RAM, Boot, CommandLine, Plan, assemble, vhost_user

__all__ = ("HAND_DIRECTORY", "HandBackend", "by_hand")

HAND_DIRECTORY = Path("virtio-repro")
"""Where the command line for people keeps its files: below their current directory."""


@dataclass(frozen=True, slots=True)
class HandBackend:
    """A vhost-user backend as a person would start it.

    :param line: how; None of one that runs already.
    :param socket: where it listens; where QEMU does, if it ``connects``.
    """

    line: CommandLine | None
    socket: Path
    connects: bool = False


def by_hand(plan: Plan, backends: Mapping[str, HandBackend] = MappingProxyType({})) -> str:
    """A shell script that starts the same VM by hand, its console and monitor on the terminal.

    :param backends: the vhost-user backends that it needs, by device id.
    """
    boot = plan.boot
    initramfs = HAND_DIRECTORY / "initramfs.cpio"
    if boot.recreate:
        plan = replace(plan, boot=replace(boot, initrd=str(initramfs)))
    line = assemble(plan, HAND_DIRECTORY, ("-serial", "mon:stdio", *_vhost_users(plan, backends)))
    lines = [backend.line for backend in backends.values() if backend.line]
    files = (*line.files, *(file for each in lines for file in each.files))
    commands = [f"mkdir -p {shlex.quote(str(path))}" for path in _directories(files, boot)]
    commands += [command for file in files for command in _creation(file)]
    if boot.recreate:
        commands.append(" ".join([*boot.recreate, "--output", str(initramfs)]))
    commands += [command for backend in backends.values() for command in _background(backend)]
    return "\n".join([*commands, _folded(line.argv)])


def _vhost_users(plan: Plan, backends: Mapping[str, HandBackend]) -> Iterator[str]:
    """The connections to backends, and RAM that they can map."""
    for id, backend in backends.items():
        yield from vhost_user(id, f"path={backend.socket}" + (",server=on" if backend.connects else ""))
    if backends:
        yield from ("-object", f"memory-backend-memfd,id={RAM},size={plan.spec.memory},share=on")
        yield from ("-machine", f"memory-backend={RAM}")


def _background(backend: HandBackend) -> Iterator[str]:
    """The shell commands that start a backend, wait until it listens or has ended, and end it with the script. One that
    connects waits for QEMU."""
    if backend.line is None:
        return
    socket, command = shlex.quote(str(backend.socket)), _folded(backend.line.argv)
    yield f"rm -f {socket}"
    waits = f"(until [ -S {socket} ]; do sleep 0.1; done; exec {command})" if backend.connects else command
    yield f"{waits} &"
    yield "backends=\"${backends-} $!\"; trap 'kill $backends' EXIT"
    if not backend.connects:
        yield f"until [ -S {socket} ] || ! kill -0 $!; do sleep 0.1; done"


def _creation(file: PrivateFile) -> Iterator[str]:
    """The shell commands that make a file."""
    path = shlex.quote(str(file.path))
    if file.content:
        # The guest may have written into that of an earlier run.
        yield f"rm -f {path}"
    if file.size is not None:
        yield f"truncate -s {file.size} {path}"
    for offset, content in file.content.items():
        octal = "".join(f"\\{byte:03o}" for byte in content)
        yield f"printf '{octal}' | dd of={path} bs=1 seek={offset} conv=notrunc status=none"


def _directories(files: tuple[PrivateFile, ...], boot: Boot) -> list[Path]:
    needed = {f.path.parent if f.size is not None else f.path for f in files}
    return sorted(needed | {HAND_DIRECTORY} if boot.recreate else needed)


def _folded(argv: tuple[str, ...]) -> str:
    """One option a line, so that a person can read and edit it."""
    lines: list[str] = []
    for word in argv:
        if word.startswith("-") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += " " + shlex.quote(word)
    return " \\\n  ".join(lines)
