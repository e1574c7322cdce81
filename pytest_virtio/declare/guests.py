"""The guests that a test can declare: what runs in the VM and drives its devices.

Responsible for their settings; must not know how they are booted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pytest_virtio.errors import UnknownNameError, UsageError

__all__ = ("Firmware", "Guest", "Interrupts", "Linux", "NoGuest", "Scripted", "guest_named")

Interrupts = Literal["msix", "intx", "none"]
FeatureList = Collection[str | int]

_BY_DEVICE = "write sets of features by device: {'blk0': {'VIRTIO_F_VERSION_1', 'MQ'}}"

FIRMWARE_DRIVES = frozenset({"net", "blk", "scsi", "vublk"})


@dataclass(frozen=True, slots=True)
class Scripted:
    """A virtio driver inside the test process; the VM's CPU sleeps. No guest image, no boot.

    :param features: by device id, exactly what the driver writes: also what the device does not offer, or less than it
        needs. By default a driver takes all of what is offered that it understands.
    :param without: what it leaves out of that default: a mapping by device id, or features for every device that can
        have them and is not named in ``features``.
    :param legacy: drive transitional devices by their legacy interface; for ``transport="pci-transitional"``.
    :param interrupts: ``"msix"``: vectors point at guest RAM, where they can be seen (INTx where there is no MSI-X);
        ``"intx"``: the line of each device is intercepted; ``"none"``: devices are told not to interrupt.
    """

    features: Mapping[str, FeatureList] = field(default_factory=dict)
    without: Mapping[str, FeatureList] | FeatureList = ()
    legacy: bool = False
    interrupts: Interrupts = "msix"

    def __post_init__(self) -> None:
        """Refuse what would be taken letter by letter, unknown words and what contradicts itself.

        :raises UsageError: naming the parameter.
        """
        for name, value in (("features", self.features), ("without", self.without)):
            listed = tuple(value.values()) if isinstance(value, Mapping) else (value,)
            if not all(isinstance(item, Collection) and not isinstance(item, str) for item in listed):
                raise UsageError(f"Scripted({name}={value!r}): {_BY_DEVICE}")
            if isinstance(value, Mapping) and not all(isinstance(id, str) for id in value):
                raise UsageError(f"Scripted({name}={value!r}): {_BY_DEVICE}")
        if not isinstance(self.features, Mapping):
            raise UsageError(f"Scripted(features={self.features!r}): {_BY_DEVICE}")
        if not isinstance(self.legacy, bool):
            raise UsageError(f"Scripted(legacy={self.legacy!r}): True or False is expected")
        if self.interrupts not in get_args(Interrupts):
            raise UnknownNameError("kind of interrupts", str(self.interrupts), get_args(Interrupts))
        both = set(self.features).intersection(self.without) if isinstance(self.without, Mapping) else ()
        for id in both:
            raise UsageError(
                f"Scripted: features= says exactly what {id} takes, so nothing can be left out of it by without="
            )


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


Guest = Scripted | Linux | Firmware | NoGuest

_BY_NAME: dict[str, Guest] = {"scripted": Scripted(), "linux": Linux(), "firmware": Firmware()}


def guest_named(guest: str | Guest) -> Guest:
    """The guest that ``"scripted"``, ``"linux"`` or ``"firmware"`` stands for; an object is given back.

    :raises UnknownNameError: for another name.
    :raises UsageError: for something that is no guest.
    """
    if not isinstance(guest, str):
        if isinstance(guest, Guest):
            return guest
        raise UsageError(
            f"guest={guest!r}: write 'scripted', 'linux', 'firmware', Scripted(...), Linux(...) or Firmware(...)"
        )
    if guest not in _BY_NAME:
        raise UnknownNameError("guest", guest, _BY_NAME)
    return _BY_NAME[guest]
