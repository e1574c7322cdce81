"""What one pytest run shares: settings, what each QEMU can do, the VMs that are alive, reports that wait for a test.

Responsible for making each of these once, and only when a VM is asked for; must not know fixtures or hooks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_virtio.plugin.options import DEFAULT_QEMU, Settings

if TYPE_CHECKING:
    from pytest_virtio.declare.spec import VmSpec
    from pytest_virtio.handle import Section, Virtio
    from pytest_virtio.launch import Host

__all__ = ("VirtioSession", "started_session", "virtio_session")

_KEY = pytest.StashKey["VirtioSession"]()


class VirtioSession:
    """The run's shared state, made when the first virtio test is met."""

    def __init__(self, config: pytest.Config) -> None:
        self.settings = Settings.from_config(config)
        self.live: list[Virtio] = []
        self._hosts: dict[str, Host] = {}
        self._pending: list[tuple[Section, ...]] = []

    def host(self, qemu: str | Path) -> Host:
        """The QEMU that a name or path stands for, what it can do, and the accelerator.

        :raises MissingError: when it is not there, not executable or not a QEMU.
        """
        from pytest_virtio.launch import Host
        from pytest_virtio.vm import accelerator, capabilities

        key = str(qemu)
        if key not in self._hosts:
            program = _program(key)
            chosen = accelerator.choose(self.settings.accel, program, self._probe_kernel)
            self._hosts[key] = Host(program, capabilities.capabilities(program), chosen)
        return self._hosts[key]

    def spec(self, devices: tuple[Any, ...], options: dict[str, Any]) -> VmSpec:
        """A declaration, completed by what the user set for the run.

        :raises UsageError: when it can't be.
        """
        from pytest_virtio.declare.guests import Linux
        from pytest_virtio.declare.spec import vm_spec

        settings = self.settings
        defaults = {"guest": settings.guest or "scripted", "machine": settings.machine, "timeout": settings.timeout}
        spec = vm_spec(devices, {name: value for name, value in options.items() if value is not None}, defaults)
        guest = spec.guest
        if isinstance(guest, Linux):
            modules = guest.modules or ((settings.modules,) if settings.modules else ())
            kernel, initrd = guest.kernel or settings.kernel, guest.initrd or settings.initrd
            spec = replace(spec, guest=replace(guest, kernel=kernel, initrd=initrd, modules=modules))
        return spec

    def keep(self, sections: tuple[Section, ...]) -> None:
        """Keep a report whose VM ends before the test's result is known."""
        self._pending.append(sections)

    def take(self) -> list[tuple[Section, ...]]:
        """The reports kept since the last call."""
        pending, self._pending = self._pending, []
        return pending

    def header(self) -> list[str]:
        """What was chosen and why, a line for each QEMU that was looked at."""
        return [
            f"virtio: QEMU {host.known.version} ({host.program}), accelerator {host.accelerator.name}: "
            f"{host.accelerator.reason}"
            for host in self._hosts.values()
        ]

    def _probe_kernel(self) -> Path | None:
        from pytest_virtio.provision.linux import linux_image

        if self.settings.kernel:
            return self.settings.kernel
        image = linux_image()
        return image.kernel if image else None


def virtio_session(config: pytest.Config) -> VirtioSession:
    """The run's shared state, made at the first call."""
    if _KEY not in config.stash:
        config.stash[_KEY] = VirtioSession(config)
    return config.stash[_KEY]


def started_session(config: pytest.Config) -> VirtioSession | None:
    """The run's shared state if there is any: None in a run that uses no VM."""
    return config.stash.get(_KEY, None)


def _program(qemu: str) -> Path:
    from pytest_virtio.provision.qemu import find_qemu
    from pytest_virtio.vm.capabilities import find_program

    fetched = find_qemu() if qemu == DEFAULT_QEMU else None
    return fetched or find_program(qemu)
