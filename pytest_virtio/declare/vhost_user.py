"""Devices whose rings a vhost-user backend serves, another process: one function a type.

Responsible for the types, for who serves each by default and for what is said of the connection; must not know how a
server is started, nor how QEMU spells a backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_virtio.declare.backends import (
    Daemon,
    FoundSocket,
    Server,
    StorageDaemon,
    Testpmd,
    VhostUser,
    Virtiofsd,
    VsockDaemon,
)
from pytest_virtio.declare.devices import (
    DISK_SIZE,
    EXPECTED,
    Declaration,
    Driver,
    Property,
    declare,
    disk_of,
    existing,
)
from pytest_virtio.declare.sizes import Size
from pytest_virtio.declare.vhost_kernel import cid_of
from pytest_virtio.declare.wire import Mask, Wire, wire_of
from pytest_virtio.errors import NotSupportedError, UsageError
from pytest_virtio.spec import devices as spec
from pytest_virtio.spec.device_type import DeviceType

__all__ = (
    "Backend",
    "VhostUserBlk",
    "VhostUserFs",
    "VhostUserGpio",
    "VhostUserGpu",
    "VhostUserI2c",
    "VhostUserInput",
    "VhostUserNet",
    "VhostUserRng",
    "VhostUserScsi",
    "VhostUserSound",
    "VhostUserVsock",
)

MOST_PAIRS = 32767
LONGEST_SECONDS = 3600

Backend = Server | str | Path
"""Who serves a device: a daemon to be started, or the path of the socket of one that runs already."""


def VhostUserBlk(
    path: str | Path | None = None,
    *,
    size: Size = DISK_SIZE,
    format: str | None = None,
    backend: Backend | None = None,
    wire: bool | Wire = False,
    mask: Mask = (),
    reconnect: float | None = None,
    id: str | None = None,
    driver: Driver = EXPECTED,
    **properties: Property,
) -> Declaration:
    """A virtio block device served by another process: by ``qemu-storage-daemon`` if none is named.

    Its default id is ``vublk0``. It has as many queues as the VM has CPUs, or ``num_queues=``.

    :param path: an image of yours, raw or qcow2, for ``qemu-storage-daemon``. It is opened through a disposable overlay
        only: no test changes it, and the guest may write. Without it the device gets a private, empty image.
    :param size: size of the private image: bytes, or ``"64M"``.
    :param format: the image's format, ``"raw"`` or ``"qcow2"``; seen from its first bytes by default.
    :param backend: who serves it instead: ``Daemon([...])``, or the path of the socket of one that runs already.
    :param wire: whether a witness stands between QEMU and the backend: ``dev.wire``; a ``Wire`` also says what it does
        to messages.
    :param mask: features that QEMU is not told of, the device's or the protocol's, as for ``Wire``; there is a witness
        then.
    :param reconnect: seconds after which QEMU connects again when the connection has ended, so that
        ``dev.backend.restart()`` can be; there is a witness then. By default QEMU connects once.
    :raises UsageError: for an impossible id, size or backend, or an image that is not there.
    :raises UnknownNameError: for an unknown feature.
    """
    if backend is not None and (path is not None or format is not None or size != DISK_SIZE):
        raise UsageError("VhostUserBlk(backend=...): path, size and format are of qemu-storage-daemon's disk")
    server = StorageDaemon(disk_of(path, size, format)) if backend is None else server_of(backend)
    vhost_user = VhostUser(server, wire_of(wire, mask), reconnect_of(reconnect))
    return declare("vublk", "vhost-user-blk", spec.BLK, id, driver, vhost_user, properties)


def VhostUserFs(
    directory: str | Path | None = None,
    *,
    tag: str | None = None,
    program: str | Path | None = None,
    backend: Backend | None = None,
    wire: bool | Wire = False,
    mask: Mask = (),
    reconnect: float | None = None,
    id: str | None = None,
    driver: Driver = EXPECTED,
    **properties: Property,
) -> Declaration:
    """A shared directory, served by ``virtiofsd`` if no other backend is named. Its default id is ``vufs0``.

    :param directory: of yours, to be shared, which the guest may write to; a private, empty one by default.
    :param tag: what the guest mounts: ``mount -t virtiofs TAG DIR``; the device's id by default.
    :param program: the ``virtiofsd`` to start, the Rust or the C one; by default the one that is installed.
    :param reconnect: QEMU has it not for this device.

    The others are as for :func:`VhostUserBlk`.

    :raises UsageError: for an impossible id or backend, or a directory that is not there.
    """
    if backend is not None and (directory is not None or program is not None):
        raise UsageError("VhostUserFs(backend=...): directory and program are virtiofsd's")
    shared = existing(directory)
    if shared is not None and not shared.is_dir():
        raise UsageError(f"{str(directory)!r} is not a directory")
    server = Virtiofsd(shared, existing(program)) if backend is None else server_of(backend)
    no_reconnect("VhostUserFs", reconnect)
    vhost_user = VhostUser(server, wire_of(wire, mask), tag=tag or "")
    return declare("vufs", "vhost-user-fs", spec.FS, id, driver, vhost_user, properties)


def VhostUserNet(
    *,
    queue_pairs: int = 1,
    backend: Backend | None = None,
    wire: bool | Wire = False,
    mask: Mask = (),
    reconnect: float | None = None,
    id: str | None = None,
    driver: Driver = EXPECTED,
    **properties: Property,
) -> Declaration:
    """A network card served by DPDK's ``dpdk-testpmd``, which answers ARP and pings, if no other backend is named:
    ``Testpmd("macswap")``, ``Passt()`` … Its default id is ``vunet0``.

    QEMU 7.2 ends by SIGSEGV at DRIVER_OK of such a card with MSI-X under TCG: ``vectors=0`` helps. There is always a
    witness on the wire of a card, for QEMU does not take a connection that somebody else made for it.

    :param queue_pairs: how many; with several the device offers VIRTIO_NET_F_MQ.

    The others are as for :func:`VhostUserBlk`.

    :raises UsageError: for an impossible id, number or backend.
    """
    if not isinstance(queue_pairs, int) or isinstance(queue_pairs, bool) or not 0 < queue_pairs <= MOST_PAIRS:
        raise UsageError(f"queue_pairs={queue_pairs!r}: 1 to {MOST_PAIRS} are possible")
    server = Testpmd() if backend is None else server_of(backend)
    vhost_user = VhostUser(server, wire_of(wire, mask), reconnect_of(reconnect), queue_pairs)
    several: dict[str, Property] = {"mq": True} if queue_pairs > 1 else {}
    return declare("vunet", "virtio-net", spec.NET, id, driver, vhost_user, {**several, **properties})


def VhostUserVsock(
    cid: int = 3,
    *,
    backend: Backend | None = None,
    wire: bool | Wire = False,
    mask: Mask = (),
    reconnect: float | None = None,
    id: str | None = None,
    driver: Driver = EXPECTED,
    **properties: Property,
) -> Declaration:
    """A socket device served by ``vhost-device-vsock`` if no other backend is named. Its default id is ``vuvsock0``.

    :param cid: the guest's context id, from 3 up.
    :param reconnect: QEMU has it not for this device.

    The others are as for :func:`VhostUserBlk`.

    :raises UsageError: for an impossible id, context id or backend.
    """
    server = VsockDaemon(cid_of(cid)) if backend is None else server_of(backend)
    no_reconnect("VhostUserVsock", reconnect)
    vhost_user = VhostUser(server, wire_of(wire, mask))
    return declare("vuvsock", "vhost-user-vsock", spec.VSOCK, id, driver, vhost_user, properties)


class _Plain:
    """A type that has no daemon of its own: called, it declares a device served by the one that is named."""

    def __init__(self, kind: str, model: str, type: DeviceType) -> None:
        self._kind, self._model, self._type = kind, model, type
        self.__name__ = f"VhostUser{type.name.capitalize()}"

    def __call__(
        self,
        backend: Backend | None = None,
        *,
        wire: bool | Wire = False,
        mask: Mask = (),
        reconnect: float | None = None,
        id: str | None = None,
        driver: Driver = EXPECTED,
        **properties: Property,
    ) -> Declaration:
        """A device served by the daemon that you name; the parameters are as for :func:`VhostUserBlk`.

        :raises UsageError: for no backend, and for an impossible id or backend.
        """
        if backend is None:
            raise UsageError(
                f"{self.__name__}() needs backend=: Daemon([...]), which is started, or the path of the socket of one "
                "that runs already"
            )
        vhost_user = VhostUser(server_of(backend), wire_of(wire, mask), reconnect_of(reconnect))
        return declare(self._kind, self._model, self._type, id, driver, vhost_user, properties)


VhostUserRng = _Plain("vurng", "vhost-user-rng", spec.RNG)
VhostUserInput = _Plain("vuinput", "vhost-user-input", spec.INPUT)
VhostUserI2c = _Plain("vui2c", "vhost-user-i2c", spec.I2C)
VhostUserGpio = _Plain("vugpio", "vhost-user-gpio", spec.GPIO)
VhostUserScsi = _Plain("vuscsi", "vhost-user-scsi", spec.SCSI)
VhostUserGpu = _Plain("vugpu", "vhost-user-gpu", spec.GPU)
VhostUserSound = _Plain("vusound", "vhost-user-snd", spec.SOUND)
"""From QEMU 9.0 on."""


def server_of(backend: Backend) -> Server:
    """Who serves, of what a user says.

    :raises UsageError: for what is neither a server nor the path of a socket.
    """
    if isinstance(backend, str | Path):
        path = Path(backend).absolute()
        if not path.is_socket():
            what = "is no socket" if path.exists() else "is not there"
            raise UsageError(
                f"backend={str(backend)!r}: {str(path)!r} {what}: the socket of a daemon that runs already is "
                "expected; Daemon([...]) starts one"
            )
        return FoundSocket(path)
    if isinstance(backend, Server):
        if isinstance(backend, Daemon):
            check_argv(backend.argv)
        return backend
    raise UsageError(f"backend={backend!r}: Daemon([...]), Testpmd() …, or the path of a socket is expected")


def check_argv(argv: Sequence[str]) -> None:
    """Refuse what can't be started.

    :raises UsageError: for what is no list of words.
    """
    if isinstance(argv, str) or not argv or not all(isinstance(word, str) for word in argv):
        raise UsageError(f"Daemon({argv!r}): a program and its arguments are expected, a list of strings")


def reconnect_of(seconds: float | None) -> float | None:
    """What ``reconnect=`` says.

    :raises UsageError: for what is no time.
    """
    if seconds is None:
        return None
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds <= LONGEST_SECONDS:
        raise UsageError(f"reconnect={seconds!r}: seconds are expected, more than 0 and up to {LONGEST_SECONDS}")
    return seconds


def no_reconnect(device: str, seconds: float | None) -> None:
    """Refuse ``reconnect=`` where QEMU wants the backend to be there when it starts.

    :raises NotSupportedError: for a time. QEMU says "vhost_backend_init failed: Protocol error" (seen on 7.2 to 11.1).
    """
    if seconds is not None:
        raise NotSupportedError(
            f"{device}(reconnect={seconds!r}): QEMU connects once for this device; it does again for VhostUserBlk and "
            "VhostUserNet"
        )
