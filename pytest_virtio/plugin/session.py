"""What one pytest run shares: settings, what each QEMU can do, the VMs that are alive.

Responsible for making each of these once, and only when a VM is asked for; must not know fixtures or hooks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_virtio.errors import MissingError, VirtioError
from pytest_virtio.plugin import qemus
from pytest_virtio.plugin.baselines import baselines_of
from pytest_virtio.plugin.makers import concerns, setting_up
from pytest_virtio.plugin.options import GivenQemu, Settings

if TYPE_CHECKING:
    from pytest_virtio.declare.spec import VmSpec
    from pytest_virtio.handle import Virtio
    from pytest_virtio.launch import Host
    from pytest_virtio.model.provenance import Provenance
    from pytest_virtio.vm.capabilities import Capabilities

__all__ = ("VirtioSession", "is_scripted", "started_session", "virtio_session")

_KEY = pytest.StashKey["VirtioSession"]()


class _Living(NamedTuple):
    """A VM that runs, and the fixtures that made it."""

    virtio: Virtio
    makers: frozenset[str]


class _Ended(NamedTuple):
    """What a VM ran on that has ended since the test began."""

    provenance: Provenance
    makers: frozenset[str]


class VirtioSession:
    """The run's shared state, made when the first virtio test is met."""

    def __init__(self, config: pytest.Config) -> None:
        self.settings = Settings.from_config(config)
        self.baselines = baselines_of(config)
        self._config = config
        self._living: list[_Living] = []
        self._ended: list[_Ended] = []
        self._known: dict[str, Capabilities] = {}
        self._choices: dict[str, None] = {}
        self._missing: dict[str, str] = {}
        self._announced: set[str] = set()
        self._qemu_ids: dict[tuple[GivenQemu, ...], list[str]] = {}

    @property
    def default_guest(self) -> str:
        """The guest of tests that name none."""
        return self.settings.guest or "scripted"

    def qemu_ids(self, given: tuple[GivenQemu, ...]) -> list[str]:
        """What test ids call the QEMUs that were given; asks each for its version at the first call.

        :raises UsageError: for two that can't be told apart.
        """
        if given not in self._qemu_ids:
            self._qemu_ids[given] = qemus.ids(given, self._version)
        return self._qemu_ids[given]

    def host(self, qemu: str | Path, *, halted: bool) -> Host:
        """The QEMU that a name or path stands for, what it can do, and the accelerator.

        :param halted: whether the CPU is to sleep, for the guest is scripted.

        :raises MissingError: when it is not there, not executable or not a QEMU.
        """
        from pytest_virtio.launch import Host
        from pytest_virtio.vm import accelerator

        known = self.capabilities(str(qemu))
        if halted:
            # No kernel runs in it, so none need be at hand to see what it runs on.
            chosen = accelerator.for_halted(self.settings.accel)
        else:
            chosen = accelerator.choose(self.settings.accel, Path(known.program), self._probe_kernel)
        host = Host(Path(known.program), known, chosen)
        self._choices.setdefault(_choice(host))
        self._choices.setdefault(_surroundings(self.settings))
        return host

    def capabilities(self, qemu: str) -> Capabilities:
        """What the QEMU that a name or path stands for can do.

        :raises MissingError: when it is not there, not executable or not a QEMU.
        """
        from pytest_virtio.vm import capabilities

        if qemu in self._missing:
            raise MissingError(self._missing[qemu])
        if qemu not in self._known:
            try:
                self._known[qemu] = capabilities.capabilities(_program(qemu))
            except MissingError as error:
                # Looking again would cost each test the time that the first one waited.
                self._missing[qemu] = str(error)
                raise
        return self._known[qemu]

    def _version(self, qemu: str) -> str | None:
        try:
            return self.capabilities(qemu).version
        except (VirtioError, OSError):
            # Its tests will say so.
            return None

    def spec(self, devices: tuple[Any, ...], options: dict[str, Any]) -> VmSpec:
        """A declaration, completed by what the user set for the run.

        :raises UsageError: when it can't be.
        """
        from dataclasses import replace

        from pytest_virtio.declare.guests import Linux
        from pytest_virtio.declare.spec import vm_spec

        settings = self.settings
        defaults = {"guest": self.default_guest, "machine": settings.machine, "timeout": settings.timeout}
        spec = vm_spec(devices, {name: value for name, value in options.items() if value is not None}, defaults)
        guest = spec.guest
        if isinstance(guest, Linux):
            modules = guest.modules or ((settings.modules,) if settings.modules else ())
            kernel, initrd = guest.kernel or settings.kernel, guest.initrd or settings.initrd
            spec = replace(spec, guest=replace(guest, kernel=kernel, initrd=initrd, modules=modules))
        return spec

    def add(self, virtio: Virtio) -> None:
        """A VM has started; it is of the fixtures that are being set up now."""
        self._living.append(_Living(virtio, setting_up(self._config)))

    def about_to_end(self, virtio: Virtio) -> None:
        """A VM still runs, and will not much longer."""
        if self.settings.compare and self.is_of_the_body(virtio):
            from pytest_virtio.plugin.compare import keep_profile

            keep_profile(self._config, virtio)

    def remove(self, virtio: Virtio) -> None:
        """A VM ends."""
        ending = [living for living in self._living if living.virtio is virtio]
        self._living = [living for living in self._living if living.virtio is not virtio]
        ended = (_Ended(virtio.vm.provenance, living.makers) for living in ending)
        # A test may boot a thousand of the same.
        self._ended += [one for one in ended if one not in self._ended]

    def vms_of(self, item: pytest.Item) -> list[Virtio]:
        """The living VMs that are among the test's fixtures, or in what they made, or that no fixture made."""
        return [living.virtio for living in self._living if concerns(living.makers, item)]

    def ran_on(self, item: pytest.Item) -> list[Provenance]:
        """What the test's VMs ran on, those that have ended too: each once."""
        ended = [ended.provenance for ended in self._ended if concerns(ended.makers, item)]
        known = [*ended, *(virtio.vm.provenance for virtio in self.vms_of(item))]
        return [one for n, one in enumerate(known) if one not in known[:n]]

    def forget_ended(self) -> None:
        """A test is over, and so are its VMs."""
        self._ended = []

    def is_of_the_body(self, virtio: Virtio) -> bool:
        """Whether the VM was started by the test itself, and by no fixture."""
        return any(living.virtio is virtio and not living.makers for living in self._living)

    def choices(self) -> list[str]:
        """What was chosen and why, a line for each QEMU and accelerator."""
        return list(self._choices)

    def news(self) -> list[str]:
        """The choices since the last call."""
        new = [line for line in self.choices() if line not in self._announced]
        self._announced.update(new)
        return new

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


def is_scripted(guest: object) -> bool:
    """Whether a marker's guest is the scripted one, by name or as an object."""
    return guest == "scripted" or type(guest).__name__ == "Scripted"


def _choice(host: Host) -> str:
    chosen = host.accelerator
    return f"virtio: QEMU {host.known.version} ({host.program}), accelerator {chosen.name}: {chosen.reason}"


def _surroundings(settings: Settings) -> str:
    from pytest_virtio.launch import host_name
    from pytest_virtio.provision.kernel_release import kernel_release

    kernel = settings.kernel
    named = f", --virtio-kernel {kernel.name} {kernel_release(kernel)}".rstrip() if kernel else ""
    return f"virtio: host {host_name()}{named}"


def _program(qemu: str) -> Path:
    from pytest_virtio.provision.qemu import find_qemu
    from pytest_virtio.vm.capabilities import find_program

    fetched = None if "/" in qemu else find_qemu(qemu)
    return fetched or find_program(qemu)
