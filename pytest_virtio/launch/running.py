"""A VM that runs: its parts, what makes waits for it pointless, and its end.

Responsible for holding what was started together; must not know the order in which that is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_virtio.backend.running import RunningBackend
from pytest_virtio.declare.spec import VmSpec
from pytest_virtio.errors import DeviceStalledError
from pytest_virtio.introspect.calm import Calm
from pytest_virtio.introspect.history import Histories
from pytest_virtio.introspect.interrupts import interrupts
from pytest_virtio.introspect.introspector import Introspector
from pytest_virtio.introspect.query import Place
from pytest_virtio.introspect.standstill import Standstill
from pytest_virtio.introspect.watchdog import Watchdog
from pytest_virtio.launch.guests import RunningGuest, calm
from pytest_virtio.launch.provenance import provenance
from pytest_virtio.model.interrupt import Interrupt
from pytest_virtio.model.provenance import Provenance
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.vm.accelerator import Accelerator
from pytest_virtio.vm.capabilities import Capabilities
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.interrupts import uninterrupted
from pytest_virtio.vm.qemu import Qemu

__all__ = ("QUERY_SECONDS", "Host", "RunningVm", "end")

QUERY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Host:
    """What VMs run on: one QEMU binary and what it can do, and the accelerator."""

    program: Path
    known: Capabilities
    accelerator: Accelerator


@dataclass(frozen=True, slots=True)
class RunningVm:
    """A VM whose QEMU has started. Its guest may still be booting: :meth:`await_ready`."""

    spec: VmSpec
    host: Host
    qemu: Qemu
    backends: Mapping[str, RunningBackend]
    """The vhost-user backends, by the id of the device that each serves."""
    guest: RunningGuest
    introspector: Introspector
    histories: Histories
    paths: dict[str, str]
    """QOM path of each virtio device by id; the declared ones first, in their order."""
    argv: tuple[str, ...]
    by_hand: str
    """A shell script that starts the same VM by hand."""
    deadline: Deadline
    """When the VM must be ready."""
    watchdog: Watchdog | None
    """What notices queues that stand still; None when nobody asked for it."""
    monitor: Path | None = None
    """Where a second monitor listens; None when nobody asked for one."""

    def await_ready(self) -> None:
        """Wait until the guest is up and its devices are at DRIVER_OK; nothing to wait for without a guest.

        :raises DeviceStalledError: naming the stage at which a device stands.
        :raises GuestError: when the guest panics or says nothing.
        :raises QemuExitedError: when QEMU ends.
        :raises VirtioAssertionError: when a queue stands still for as long as ``stall`` says.
        """
        if self.watchdog is not None:
            self.watchdog.start()
        if self.guest is not None:
            virtio = [d for d in self.spec.devices if d.name in self.paths]
            self.guest.await_ready(virtio, self.status, self.deadline)
            for backend in self.backends.values():
                backend.settle(self.deadline)
            self._check_served([d.name for d in virtio if d.driver and d.name in self.backends])

    def _check_served(self, ids: Iterable[str]) -> None:
        """QEMU says DRIVER_OK also of a device whose backend refused to start (seen on 7.2 and 10.0), or has ended: of
        fs and vsock it never notices that, of net late.

        :raises DeviceStalledError: naming the device that nobody serves.
        """
        for id in ids:
            status, backend = self.status(id), self.backends[id]
            why = "" if backend.meddled_with or not status.driver_ok else backend.unserved(status)
            if why:
                raise DeviceStalledError(
                    f"{id} is at DRIVER_OK, and nobody serves its queues: {why}\n"
                    f"QEMU's stderr:\n{self.qemu.stderr_text() or '(empty)'}\n"
                    f"the backend, {backend.account()}\n"
                    f"next: does {backend.name} serve this device type?"
                )

    def status(self, id: str, timeout: float = QUERY_SECONDS) -> VirtioStatus:
        """The status of a device by its id."""
        return self.introspector.status(self.paths[id], timeout)

    def interrupts(
        self, statuses: Mapping[str, VirtioStatus], queues: Mapping[str, Sequence[int]], timeout: float
    ) -> dict[Place, Interrupt]:
        """How each queue interrupts, where that is known.

        :param statuses: of the devices by path, as they are now.
        :param queues: indices by path.
        """
        return interrupts(self.qemu, self.qemu.qtest, self.calm, statuses, queues, timeout)

    def offered_by_backend(self, id: str) -> int | None:
        """The bits that the device's vhost-user backend offers; None of a device without one."""
        backend = self.backends.get(id)
        return None if backend is None else backend.features

    def masked_by_test(self, id: str) -> int:
        """Those of them that the test keeps from QEMU."""
        backend = self.backends.get(id)
        return 0 if backend is None else backend.features & backend.masked

    def heed(self, during: str) -> None:
        """Raise what makes a wait pointless.

        :raises QemuExitedError: when QEMU has ended.
        :raises VirtioAssertionError: when a queue stands still for as long as ``stall`` says.
        """
        if not self.qemu.running:
            raise self.qemu.exited(during)
        self.qemu.alarm.check()

    @property
    def provenance(self) -> Provenance:
        """What it runs on, or ran on: QEMU is not asked. Backends' programs are, each once in a process."""
        return provenance(self)

    @property
    def calm(self) -> Calm:
        """Whether drivers leave their devices alone just now."""
        return calm(self.qemu, self.guest)

    @property
    def standstill(self) -> Standstill:
        """The ways to an answer that stop the VM."""

        def silent() -> list[str]:
            return [id for id, backend in self.backends.items() if backend.state == "stopped"]

        return Standstill(self.qemu, self.introspector, self.paths.values(), silent)

    def close(self) -> None:
        """End the backends, QEMU and all that came with it. May be called again."""
        with contextlib.ExitStack() as steps:
            if self.watchdog is not None:
                self.watchdog.stop()
                # It may be asking QEMU, and has its answer when that has ended.
                steps.callback(self.watchdog.join)
            end(self.backends, self.qemu)


def end(backends: Mapping[str, RunningBackend], qemu: Qemu | None) -> None:
    """The backends first: while one hangs, QEMU may hang too."""
    with uninterrupted(), contextlib.ExitStack() as steps:
        if qemu is not None:
            steps.callback(qemu.close)
        for backend in backends.values():
            steps.callback(backend.close)
