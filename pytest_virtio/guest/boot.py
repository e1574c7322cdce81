"""What a declared guest boots from: kernel, initramfs and command line, or firmware.

Responsible for turning a guest's settings into ``Boot``; must not know how QEMU is started.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_virtio.declare.devices import Declaration
from pytest_virtio.declare.guests import Firmware, Guest, Linux, Scripted
from pytest_virtio.errors import UsageError
from pytest_virtio.provision import boot as provision
from pytest_virtio.vm.cmdline import Boot

__all__ = ("boot_of",)


def boot_of(guest: Guest, devices: Sequence[Declaration], directory: Path) -> Boot:
    """What the machine boots.

    :param directory: the VM's private one, for an initramfs of its own.
    :raises MissingError: when there is no kernel, or no busybox for our agent.
    :raises UsageError: for a file that isn't there or isn't what it should be.
    """
    if isinstance(guest, Linux):
        return _linux(guest, devices, directory)
    if isinstance(guest, Firmware):
        bios = _path(guest.bios)
        if bios is not None and not bios.is_file():
            raise UsageError(f"Firmware(bios={str(guest.bios)!r}): there is no such file")
        return Boot(bios=str(bios or ""), firmware=True)
    return Boot(halted=True) if isinstance(guest, Scripted) else Boot(paused=True)


def _linux(guest: Linux, devices: Iterable[Declaration], directory: Path) -> Boot:
    ids = sorted({d.type.id for d in devices if d.driver and d.type is not None})
    kernel, initrd, modules = _path(guest.kernel), _path(guest.initrd), [Path(m).absolute() for m in guest.modules]
    made = provision.prepare(directory, ids, kernel=kernel, initrd=initrd, modules=modules, append=guest.append)
    own = made.initramfs.parent == directory
    recreate = _recreate(ids, kernel, initrd, modules) if own else ()
    return Boot(kernel=str(made.kernel), initrd=str(made.initramfs), append=made.append, recreate=recreate)


def _recreate(ids: Sequence[int], kernel: Path | None, initrd: Path | None, modules: Sequence[Path]) -> tuple[str, ...]:
    """The command that makes the same initramfs again, less its ``--output``."""
    words = ["pytest-virtio", "image", "initramfs", "--devices", ",".join(map(str, ids))]
    for option, path in (("--kernel", kernel), ("--initrd", initrd), *(("--modules", m) for m in modules)):
        words += [option, str(path)] if path else []
    return tuple(shlex.quote(word) for word in words)


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value).absolute()
