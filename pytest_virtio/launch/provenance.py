"""What a VM ran on, in its versions.

Responsible for bringing together what the rooms below know. QEMU is not asked, so it may have ended; what a console
tells is the guest's own word. Must not know where a provenance is shown.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_virtio.declare.guests import Firmware, Guest, Linux, Scripted
from pytest_virtio.model.provenance import Provenance
from pytest_virtio.provision.kernel_release import kernel_release
from pytest_virtio.render import escape
from pytest_virtio.vm.kernel import served_by_kernel

if TYPE_CHECKING:
    from pytest_virtio.launch.running import RunningVm

__all__ = ("host_name", "provenance")

_GUESTS = {Scripted: "scripted", Firmware: "firmware", Linux: "linux"}
_SEABIOS = re.compile(
    rb"SeaBIOS \(version ([!-~]{1,80})\)"
    # Linux, of SMBIOS, in which SeaBIOS has its version.
    rb"|DMI: QEMU [^\n]{1,100}, BIOS ([!-~]{1,80}) \d\d/\d\d/\d{4}"
)
_EARLY_BYTES = 64 * 1024


def provenance(running: RunningVm) -> Provenance:
    """What is known of a VM's parts: by the binary's probe, the command line, the files that it names."""
    known, spec = running.host.known, running.spec
    machine = spec.machine.partition(",")[0]
    return Provenance(
        qemu=known.version,
        qemu_build=known.package,
        machine=known.machine_aliases.get(machine, machine),
        accelerator=running.host.accelerator.name,
        guest=_GUESTS.get(type(spec.guest), ""),
        kernel=_kernel(spec.guest, running.argv),
        firmware=_firmware(running),
        backends={
            **{device.name: f"vhost of {host_name()}" for device in spec.devices if served_by_kernel(device)},
            **{id: backend.version() for id, backend in running.backends.items()},
        },
        host=host_name(),
        plugin=_plugin(),
    )


def _kernel(guest: Guest, argv: Sequence[str]) -> str:
    given = _last(argv, "-kernel")
    if not given:
        return ""
    path = Path(given)
    release = kernel_release(path)
    ours = isinstance(guest, Linux) and guest.kernel is None
    return release if ours and release else f"{release} ({escape(path.name)})".strip()


def _firmware(running: RunningVm) -> str:
    """SeaBIOS is what x86 machines start with; only of microvm it depends on who built QEMU."""
    if isinstance(running.spec.guest, Scripted):
        return ""
    given = escape(Path(_last(running.argv, "-bios")).name)
    version = _seabios_version(running)
    if version:
        return f"SeaBIOS {version}" + (f" ({given})" if given else "")
    return given or ("" if running.spec.machine.startswith("microvm") else "SeaBIOS")


def _seabios_version(running: RunningVm) -> str:
    for console in running.qemu.consoles[:1]:
        found = _SEABIOS.search(console.log.text()[:_EARLY_BYTES])
        if found:
            return (found[1] or found[2]).decode()
    return ""


def _last(argv: Sequence[str], option: str) -> str:
    """What an option says; of several QEMU takes the last one. Options may have two dashes."""
    spelt = (option, f"-{option}")
    values = [value for word, value in itertools.pairwise(argv) if word in spelt]
    return values[-1] if values else ""


def host_name() -> str:
    """System, release and architecture: ``"Linux 6.1.0-37-amd64 x86_64"``."""
    host = os.uname()
    return f"{host.sysname} {host.release} {host.machine}"


@functools.cache
def _plugin() -> str:
    from importlib import metadata  # noqa: PLC0415 - only a run with virtio tests needs it

    try:
        return metadata.version("pytest-virtio")
    except metadata.PackageNotFoundError:
        # From a source tree that isn't installed.
        return ""
