"""The guests that a test can declare: what runs in the VM and drives its devices.

Responsible for their settings; must not know how they are booted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_virtio.errors import NotSupportedError, UnknownNameError, UsageError

__all__ = ("Firmware", "Guest", "Linux", "NoGuest", "guest_named")

FIRMWARE_DRIVES = frozenset({"net", "blk", "scsi"})


@dataclass(frozen=True, slots=True)
class Linux:
    """A Linux guest.

    :param kernel: a bzImage of yours; None takes the distribution's.
    :param initrd: an initramfs of yours, to which our agent is appended; None takes ours.
    :param modules: kernel modules to load for the declared devices: ``.ko`` files or directories of them. They win
        over the distribution's modules of the same name or for the same device.
    :param append: what is appended to the kernel's command line.
    """

    kernel: str | Path | None = None
    initrd: str | Path | None = None
    modules: Sequence[str | Path] = field(default=())
    append: str = ""

    def __post_init__(self) -> None:
        """Refuse one module where a list of them is expected.

        :raises UsageError: for a string or path: a string would be taken letter by letter.
        """
        if isinstance(self.modules, str | Path):
            raise UsageError(f"Linux(modules={self.modules!r}): a list is expected: [{self.modules!r}]")


@dataclass(frozen=True, slots=True)
class Firmware:
    """The machine's firmware as the guest: SeaBIOS drives virtio-blk and virtio-scsi, iPXE virtio-net.

    :param bios: a firmware image of yours; None takes QEMU's.
    :param drives: the kinds of device that it is expected to bring to DRIVER_OK. iPXE lets go of its card when its
        attempt to boot has failed, some seconds after it has reached DRIVER_OK.
    """

    bios: str | Path | None = None
    drives: frozenset[str] = FIRMWARE_DRIVES


@dataclass(frozen=True, slots=True)
class NoGuest:
    """The devices are there and nothing has run: the VM stands before its first instruction (``boot=False``)."""


Guest = Linux | Firmware | NoGuest

_BY_NAME: dict[str, Guest] = {"linux": Linux(), "firmware": Firmware()}


def guest_named(guest: str | Guest) -> Guest:
    """The guest that ``"linux"`` or ``"firmware"`` stands for; an object is given back.

    :raises UnknownNameError: for another name.
    :raises NotSupportedError: for ``"scripted"``.
    :raises UsageError: for something that is no guest.
    """
    if not isinstance(guest, str):
        if isinstance(guest, Guest):
            return guest
        raise UsageError(f"guest={guest!r}: write 'linux', 'firmware', Linux(...) or Firmware(...)")
    if guest == "scripted":
        raise NotSupportedError(
            "guest='scripted', the default, is not in this version yet: choose guest='linux' or guest='firmware' "
            "in the marker, or set --virtio-guest (ini: virtio_guest)"
        )
    if guest not in _BY_NAME:
        raise UnknownNameError("guest", guest, _BY_NAME)
    return _BY_NAME[guest]
