"""``virtio.vm``: the virtual machine itself.

Responsible for the machine's own verbs; must not know virtio devices.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from pytest_virtio.errors import VirtioAssertionError, VirtioError
from pytest_virtio.launch import QUERY_SECONDS, RunningVm
from pytest_virtio.model.provenance import Provenance
from pytest_virtio.vm.deadline import Deadline

__all__ = ("Vm",)


class Vm:
    """The machine that the devices are in."""

    def __init__(self, running: RunningVm) -> None:
        self._running = running

    def __repr__(self) -> str:
        state = "running" if self._running.qemu.running else f"ended: {self._running.qemu.child.how()}"
        return f"<Vm {self._running.spec.machine} pid {self.pid}, {state}>"

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._running.qemu.pid

    @property
    def running(self) -> bool:
        """Whether the QEMU process is alive. A test that was told that it is not does not fail by it at its end."""
        running = self._running.qemu.running
        if not running:
            self._running.qemu.hear_end()
        return running

    @property
    def stalled(self) -> str:
        """The queue that was noticed to stand still, for VMs with ``stall=``, the vhost-user backend that ended by
        itself, or the rewrite on a wire that failed, while nobody waited who could be told; "" when there was none."""
        for backend in self._running.backends.values():
            backend.settle(Deadline.after(QUERY_SECONDS))
        return self._running.qemu.alarm.unheard

    def unheard(self) -> VirtioError | None:
        """What was noticed and nobody has raised: the test was busy with its own things, and fails by it at its end."""
        verdict = self.stalled
        return self._running.qemu.unheard_end or (VirtioAssertionError(verdict) if verdict else None)

    @property
    def command_line(self) -> str:
        """The command line that QEMU was started with, quoted for a shell. Its descriptors are of this run:
        the failure report has one that can be typed."""
        return shlex.join(self._running.argv)

    @property
    def qemu_version(self) -> str:
        """``"7.2.22"``"""
        return self._running.host.known.version

    @property
    def monitor(self) -> Path | None:
        """Where others can ask by ``pytest-virtio info``; None without ``--virtio-monitor`` and ``--pdb``."""
        return self._running.monitor

    @property
    def accelerator(self) -> str:
        """``"tcg"`` or ``"kvm"``."""
        return self._running.host.accelerator.name

    @property
    def provenance(self) -> Provenance:
        """What it runs on: the versions of QEMU, kernel, firmware and backends; also once QEMU has ended."""
        return self._running.provenance

    def qmp(
        self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = QUERY_SECONDS
    ) -> object:
        """Execute any QMP command and give its ``return`` member.

        Nothing keeps you here from commands that disturb the devices.

        :param timeout: seconds.
        :raises CommandError: when QEMU answers with an error.
        :raises MonitorTimeoutError: when it doesn't answer in time.
        :raises QemuExitedError: when it is gone.
        """
        return self._running.qemu.execute(command, arguments, timeout)

    def hmp(self, command: str, *, timeout: float = QUERY_SECONDS) -> str:
        """Execute a command of the human monitor and give its text, lines ended by LF.

        Nothing keeps you here from commands that disturb the devices.

        :raises CommandError: when QEMU doesn't take it at all; what the command itself complains of is in the text.
        :raises MonitorTimeoutError: when it doesn't answer in time.
        :raises QemuExitedError: when it is gone.
        """
        text = self.qmp("human-monitor-command", {"command-line": command}, timeout=timeout)
        return cast(str, text).replace("\r\n", "\n")

    def stop(self) -> None:
        """Pause the VM. QEMU drains block I/O first: with a request that hangs, this hangs until its deadline."""
        self.qmp("stop")

    def cont(self) -> None:
        """Let the VM run on, or start, when it was declared with ``boot=False``."""
        self.qmp("cont")

    def reset(self) -> None:
        """Reset the machine, as its reset button does; the guest boots again.

        A scripted guest is no firmware that would notice: ``virtio.guest.start()`` brings its devices up again.
        """
        self.qmp("system_reset")

    def powerdown(self) -> None:
        """Press the machine's power button; what follows is up to the guest."""
        self.qmp("system_powerdown")
