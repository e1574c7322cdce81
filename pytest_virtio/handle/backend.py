"""``virtio["vublk0"].backend``: the vhost-user backend of a device.

Responsible for the backend's verbs and for their words; must not know how a process is run, nor pytest.
"""

from __future__ import annotations

from collections.abc import Iterable

from pytest_virtio.backend.running import RunningBackend
from pytest_virtio.errors import NotSupportedError
from pytest_virtio.model.features import Features
from pytest_virtio.model.status import VhostStatus, VirtioStatus
from pytest_virtio.model.stuck import BackendState
from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES
from pytest_virtio.vm.deadline import Deadline

__all__ = ("VhostBackend", "not_agreed_on", "unserved", "vhost_side")

RESTART_SECONDS = 30.0
SETTLE_SECONDS = 10.0


class VhostBackend:
    """A vhost-user backend, with its process where that is ours."""

    def __init__(self, backend: RunningBackend, type: DeviceType) -> None:
        self._backend, self._type = backend, type

    def __repr__(self) -> str:
        return f"<VhostBackend of {self._backend.id}: {self._backend.account().partition(chr(10))[0]}>"

    @property
    def state(self) -> BackendState | None:
        """``"running"``, ``"stopped"`` by a signal or a debugger, ``"ended"``, or ``"disconnected"`` where a witness
        saw the connection end; None of one that we did not start. A test that was told of its end does not fail by it
        when it is over."""
        return self._backend.tell_state()

    @property
    def pid(self) -> int:
        """Its process id, which is its process group's too; another one after :meth:`restart`.

        :raises UsageError: of one that we did not start.
        """
        return self._backend.child.pid

    @property
    def features(self) -> Features:
        """What it offers, as it told us before QEMU was connected."""
        return Features(self._backend.features, self._type.vhost_feature_names)

    @property
    def stderr(self) -> str:
        """What it wrote to stdout and stderr, safe to print."""
        return self._backend.stderr_text()

    def kill(self) -> None:
        """Kill it and all that it started, as a crash would. QEMU notices that by itself, or doesn't.

        :raises UsageError: of one that we did not start.
        """
        self._backend.kill()

    def stop(self) -> None:
        """Have it stand still, by SIGSTOP. While it does, QEMU hangs in whatever it asks of it: ``virtio.vm.stop()``
        does, a reset, a driver that begins anew.

        :raises UsageError: of one that we did not start.
        :raises VirtioError: when it has ended.
        """
        self._backend.stop()

    def cont(self) -> None:
        """Let it go on after :meth:`stop`; it raises what that does."""
        self._backend.cont()

    def restart(self, timeout: float = RESTART_SECONDS) -> None:
        """End it, start it anew, and wait until QEMU has connected to it again. Only of a device that is declared with
        ``reconnect=``.

        :param timeout: seconds.
        :raises UsageError: of one that we did not start, and where QEMU connects once only.
        :raises BackendError: when it does not come up.
        :raises VirtioError: when QEMU does not connect in time.
        """
        self._backend.restart(Deadline.after(timeout))


def unserved(backend: RunningBackend | None, status: VirtioStatus) -> list[str]:
    """Why a device at DRIVER_OK is not served, and the backend's last words, as lines; none if nothing says so."""
    why = backend.unserved(status) if backend else ""
    return [f"at DRIVER_OK, and nobody serves it: {why}", *backend.account().splitlines()] if backend and why else []


def vhost_side(id: str, status: VirtioStatus) -> VhostStatus:
    """What a device and its vhost backend made out.

    :raises NotSupportedError: when there is no vhost backend that runs, or nobody tells.
    """
    if status.vhost_dev is None:
        why = "serves nothing now" if status.vhost_started is False else f"is not told of by {status.source}"
        hint = "" if status.vhost_started is False else "; wire=True has a witness tell what this QEMU doesn't"
        raise NotSupportedError(f"{id}: the vhost side {why}{hint}")
    return status.vhost_dev


def not_agreed_on(side: VhostStatus, wanted: Iterable[str | int], backend: RunningBackend | None) -> list[str]:
    """``NAME: reason`` of each wanted feature of the protocol that QEMU and the backend did not agree on.

    :raises UnknownNameError: for a name that the protocol doesn't have.
    """
    agreed = side.protocol_features
    missing = Features.of(wanted, PROTOCOL_FEATURE_NAMES) - (agreed or Features(0, PROTOCOL_FEATURE_NAMES))
    if backend is None or backend.witness is None:
        return [f"{name}: nobody saw whose doing that is, as wire=True has a witness do" for name in missing]
    backend.settle(Deadline.after(SETTLE_SECONDS))
    offered = Features(backend.witness.told.offered_protocol_features or 0, PROTOCOL_FEATURE_NAMES)
    masked = Features(backend.masked_of_protocol, PROTOCOL_FEATURE_NAMES)
    return [f"{name}: {_why_not_agreed_on(name, offered, masked)}" for name in missing]


def _why_not_agreed_on(name: str, offered: Features, masked: Features) -> str:
    if name in masked:
        return "masked by the test itself (mask=)"
    if name in offered:
        return "offered by the vhost-user backend, not taken by QEMU"
    return "not offered by the vhost-user backend"
