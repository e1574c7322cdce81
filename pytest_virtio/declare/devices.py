"""The devices that a test can declare: one function a type, all giving a frozen :class:`Declaration`.

Responsible for the types' names, defaults and the kind of backend that each needs; must not know how QEMU spells a
backend's options, nor which properties a QEMU has: those are looked up when the VM is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_virtio.declare.backends import (
    Audiodev,
    Backend,
    Cryptodev,
    Directory,
    Disk,
    FileMemory,
    Netdev,
    NoBackend,
    Ports,
    RamMemory,
    ScsiDisk,
)
from pytest_virtio.declare.sizes import Size, parse_size
from pytest_virtio.errors import UsageError
from pytest_virtio.spec import devices as spec
from pytest_virtio.spec.device_type import DeviceType

__all__ = (
    # Declarations, as exported at the top level
    "Net",
    "Blk",
    "Rng",
    "Balloon",
    "Serial",
    "Scsi",
    "Keyboard",
    "Mouse",
    "Tablet",
    "Gpu",
    "Crypto",
    "Iommu",
    "Mem",
    "Pmem",
    "P9",
    "Sound",
    "Device",
    # What they give
    "Declaration",
    "Property",
    # What they need behind them and others look into
    "Disk",
    "ScsiDisk",
    # Helpers
    "Driver",
    "EXPECTED",
    "assign_ids",
    "declare",
    "disk_of",
    "existing",
)

Property = str | int | bool | Path

_INPUT_STEMS = ("keyboard", "mouse", "tablet", "multitouch", "input", "input-host")

_TYPE_OF_STEM: Mapping[str, DeviceType] = {
    **{type.name: type for type in spec.DEVICE_TYPES.values()},
    **dict.fromkeys(_INPUT_STEMS, spec.INPUT),
    "serial": spec.CONSOLE,
    "snd": spec.SOUND,
    "vga": spec.GPU,
}
"""Device types by what stands between ``virtio-`` and the bus in QEMU's names."""

DISK_SIZE = "64M"
MEMORY_SIZE = "128M"
"""virtio-mem and virtio-pmem want a multiple of the guest's memory block, 128 MiB on x86-64 Linux."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """One device of a VM, as declared."""

    kind: str
    """Stem of the default id: ``net`` gives ``net0``, ``net1`` …"""
    model: str
    """QEMU's type without its bus (``virtio-net``), or the whole type when ``exact``."""
    type: DeviceType | None
    """The virtio device type; None where only QEMU knows."""
    id: str | None = None
    """The QEMU device id; None until :func:`assign_ids`."""
    driver: bool = True
    """Whether the guest is expected to drive it."""
    backend: Backend = field(default_factory=NoBackend)
    properties: Mapping[str, Property] = field(default_factory=dict)
    """QEMU device properties as the user spelled them."""
    exact: bool = False

    @property
    def name(self) -> str:
        """The id.

        :raises UsageError: before :func:`assign_ids`.
        """
        if self.id is None:
            raise UsageError(f"{self.model} has no id yet")
        return self.id


class _GuestDecides:
    """The default of ``driver=``: the guest must drive the device."""

    def __repr__(self) -> str:
        return "<the guest's own>"


EXPECTED = _GuestDecides()
Driver = _GuestDecides | None


def Net(
    *,
    id: str | None = None,
    driver: Driver = EXPECTED,
    netdev: str | None = None,
    vhost: bool = False,
    **properties: Property,
) -> Declaration:
    """A virtio network card.

    :param id: QEMU device id; ``net0``, ``net1`` … by default.
    :param driver: None says that no driver in the guest is expected.
    :param netdev: the backend as QEMU's ``-netdev`` takes it, without ``id``. The default is QEMU's user network
        (gateway and DHCP at 10.0.2.2) cut off from the host's own network; ``"user"`` lets the guest out.
    :param vhost: whether the host's kernel serves its rings (``vhost_net``). The netdev is a tap then: by default one
        that QEMU makes for the VM, for which it needs CAP_NET_ADMIN, and that nothing else is connected to; of yours,
        ``netdev="tap,ifname=tap7,script=no,downscript=no"``.
    :param properties: QEMU device properties, ``_`` or ``-``.
    :raises UsageError: for an impossible id or netdev.
    """
    if netdev is None:
        netdev = "tap,script=no,downscript=no" if vhost else "user,restrict=on"
    if not isinstance(netdev, str) or not netdev or re.search(r"(^|,)id=", netdev):
        raise UsageError(f"netdev={netdev!r}: write the backend as QEMU's -netdev takes it, without id: 'user'")
    return declare(
        "net", "virtio-net", spec.NET, id, driver, Netdev(_by_kernel(netdev) if vhost else netdev), properties
    )


def _by_kernel(netdev: str) -> str:
    kind, _, options = netdev.partition(",")
    if kind != "tap" or re.search(r"(^|,)vhost=", options):
        raise UsageError(f"Net(vhost=True, netdev={netdev!r}): a tap is what vhost_net serves, without vhost=: 'tap,…'")
    return f"{netdev},vhost=on"


def Blk(
    path: str | Path | None = None,
    *,
    size: Size = DISK_SIZE,
    format: str | None = None,
    id: str | None = None,
    driver: Driver = EXPECTED,
    **properties: Property,
) -> Declaration:
    """A virtio block device.

    :param path: an image of yours. It is opened through a disposable overlay only: no test changes it, and the guest
        may write. Without it the device gets a private, empty image.
    :param size: size of the private image: bytes, or ``"64M"``.
    :param format: the image's format, ``"raw"`` or ``"qcow2"`` …; seen from its first bytes by default.
    :raises UsageError: for an impossible id or size, or an image that is not there.
    """
    return declare("blk", "virtio-blk", spec.BLK, id, driver, disk_of(path, size, format), properties)


def Rng(*, id: str | None = None, driver: Driver = EXPECTED, **properties: Property) -> Declaration:
    """A virtio entropy device, fed by QEMU's own generator (``rng-builtin``)."""
    return declare("rng", "virtio-rng", spec.RNG, id, driver, NoBackend(), properties)


def Balloon(*, id: str | None = None, driver: Driver = EXPECTED, **properties: Property) -> Declaration:
    """A virtio memory balloon (the traditional one, device id 5)."""
    return declare("balloon", "virtio-balloon", spec.BALLOON, id, driver, NoBackend(), properties)


def Serial(*, ports: int = 1, id: str | None = None, driver: Driver = EXPECTED, **properties: Property) -> Declaration:
    """A virtio console device with generic ports.

    :param ports: how many ports, 0 to 30. Port N is ``/dev/virtio-ports/<id>.N`` for guests that name them; on the
        host it is the ring buffer ``<id>.port<N>``, which takes what the guest writes (QMP ``ringbuf-read``).
    """
    if not isinstance(ports, int) or isinstance(ports, bool) or not 0 <= ports <= 30:
        raise UsageError(f"ports={ports!r}: a virtio-serial device takes 0 to 30 here")
    return declare("serial", "virtio-serial", spec.CONSOLE, id, driver, Ports(ports), properties)


def Scsi(
    path: str | Path | None = None,
    *,
    size: Size | None = DISK_SIZE,
    format: str | None = None,
    id: str | None = None,
    driver: Driver = EXPECTED,
    **properties: Property,
) -> Declaration:
    """A virtio SCSI host with one disk.

    :param path: an image of yours for the disk, opened through a disposable overlay only.
    :param size: size of the disk's private image; None declares the host without a disk.
    """
    backend = NoBackend() if size is None and path is None else ScsiDisk(disk_of(path, size or DISK_SIZE, format))
    return declare("scsi", "virtio-scsi", spec.SCSI, id, driver, backend, properties)


def Keyboard(*, id: str | None = None, driver: Driver = EXPECTED, **properties: Property) -> Declaration:
    """A virtio keyboard (input device, id 18)."""
    return declare("keyboard", "virtio-keyboard", spec.INPUT, id, driver, NoBackend(), properties)


def Mouse(*, id: str | None = None, driver: Driver = EXPECTED, **properties: Property) -> Declaration:
    """A virtio mouse (input device, id 18)."""
    return declare("mouse", "virtio-mouse", spec.INPUT, id, driver, NoBackend(), properties)


def Tablet(*, id: str | None = None, driver: Driver = EXPECTED, **properties: Property) -> Declaration:
    """A virtio tablet (input device, id 18)."""
    return declare("tablet", "virtio-tablet", spec.INPUT, id, driver, NoBackend(), properties)


def Gpu(*, id: str | None = None, driver: Driver = EXPECTED, **properties: Property) -> Declaration:
    """A virtio GPU without 3D."""
    return declare("gpu", "virtio-gpu", spec.GPU, id, driver, NoBackend(), properties)


def Crypto(*, id: str | None = None, driver: Driver = EXPECTED, **properties: Property) -> Declaration:
    """A virtio crypto device on QEMU's built-in backend."""
    return declare("crypto", "virtio-crypto", spec.CRYPTO, id, driver, Cryptodev(), properties)


def Iommu(*, id: str | None = None, driver: Driver = EXPECTED, **properties: Property) -> Declaration:
    """A virtio IOMMU. Debian's Linux for amd64 has no driver for it: declare it with ``driver=None`` there."""
    return declare("iommu", "virtio-iommu", spec.IOMMU, id, driver, NoBackend(), properties)


def Mem(
    *, size: Size = MEMORY_SIZE, id: str | None = None, driver: Driver = EXPECTED, **properties: Property
) -> Declaration:
    """A virtio memory device over ``size`` bytes of anonymous memory, all of it unplugged at first."""
    return declare("mem", "virtio-mem", spec.MEM, id, driver, RamMemory(parse_size(size, "size")), properties)


def Pmem(
    *, size: Size = MEMORY_SIZE, id: str | None = None, driver: Driver = EXPECTED, **properties: Property
) -> Declaration:
    """A virtio persistent memory device over a private file of ``size`` bytes."""
    return declare("pmem", "virtio-pmem", spec.PMEM, id, driver, FileMemory(parse_size(size, "size")), properties)


def P9(
    path: str | Path | None = None,
    *,
    tag: str | None = None,
    id: str | None = None,
    driver: Driver = EXPECTED,
    **properties: Property,
) -> Declaration:
    """A 9P transport that shares a host directory.

    :param path: the directory; a private, empty one by default.
    :param tag: the mount tag, at most 31 bytes; the device's id by default.
    :raises UsageError: for an impossible id or tag, or a directory that is not there.
    """
    directory = existing(path)
    if directory is not None and not directory.is_dir():
        raise UsageError(f"P9: {str(directory)!r} is not a directory")
    if tag is not None and not (isinstance(tag, str) and 1 <= len(tag.encode()) <= 31):
        raise UsageError(f"tag={tag!r}: a mount tag has 1 to 31 bytes")
    return declare("p9", "virtio-9p", spec.P9, id, driver, Directory(tag or "", directory), properties)


def Sound(*, id: str | None = None, driver: Driver = EXPECTED, **properties: Property) -> Declaration:
    """A virtio sound device (QEMU 8.2 and later) that plays to nowhere."""
    return declare("sound", "virtio-sound", spec.SOUND, id, driver, Audiodev(), properties)


def Device(type: str, *, id: str | None = None, driver: Driver = EXPECTED, **properties: Property) -> Declaration:
    """Any other QEMU device, by its ``-device`` name: ``Device("virtio-multitouch-pci")``.

    What it needs behind it (chardev, backend object) must be given by ``args=`` of the marker. The default id is made
    from the type: ``multitouch0``.

    :raises UsageError: for an impossible type or id.
    """
    if not isinstance(type, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", type):
        raise UsageError(f"Device({type!r}): a QEMU device type is letters, digits, '.', '_' and '-'")
    kind = re.sub(r"^(virtio|vhost-user|vhost)-|-(pci|ccw|device|non-transitional|transitional)\b", "", type) or type
    known = _TYPE_OF_STEM.get(kind) if type.startswith(("virtio", "vhost")) else None
    # An id begins with a letter, and these make one: 9p as the transport of that name is declared here.
    kind = {"9p": "p9"}.get(kind, kind if kind[0].isalpha() else f"dev-{kind}")
    return replace(declare(kind, type, known, id, driver, NoBackend(), properties), exact=True)


def assign_ids(declarations: tuple[Declaration, ...]) -> tuple[Declaration, ...]:
    """Give each declaration without an id the default one: kind and the first number that is free.

    :raises UsageError: when an id is declared twice.
    """
    taken: set[str] = set()
    for declaration in declarations:
        if declaration.id is not None and declaration.id in taken:
            raise UsageError(
                f"device id {declaration.id!r} is declared twice; ids name devices, so each must be its own"
            )
        taken |= {declaration.id} if declaration.id else set()
    return tuple(d if d.id else _with_free_id(d, taken) for d in declarations)


def _with_free_id(declaration: Declaration, taken: set[str]) -> Declaration:
    number = next(n for n in range(len(taken) + 1) if f"{declaration.kind}{n}" not in taken)
    taken.add(f"{declaration.kind}{number}")
    return replace(declaration, id=f"{declaration.kind}{number}")


def declare(
    kind: str,
    model: str,
    type: DeviceType | None,
    id: str | None,
    driver: Driver,
    backend: Backend,
    properties: Mapping[str, Property],
) -> Declaration:
    # QEMU's rule for ids (util/id.c, id_wellformed): a letter, then letters, digits, '-', '.' and '_'.
    # Files are called after them too, which is what limits their length.
    if id is not None and not (isinstance(id, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]{0,127}", id)):
        raise UsageError(f"id={id!r}: a QEMU id is a letter followed by up to 127 letters, digits, '-', '.' and '_'")
    if driver is not None and not isinstance(driver, _GuestDecides):
        raise UsageError(f"driver={driver!r}: only None can be said here: that no driver in the guest is expected")
    for name, value in properties.items():
        if not isinstance(value, Property):
            raise UsageError(f"{name}={value!r}: a device property is a string, a number, a truth value or a path")
    return Declaration(kind, model, type, id, driver is not None, backend, dict(properties))


def disk_of(path: str | Path | None, size: Size, format: str | None) -> Disk:
    image = existing(path)
    if image is not None and not (image.is_file() or image.is_block_device()):
        raise UsageError(f"{str(path)!r} is not an image: it is neither a file nor a block device")
    if format is not None and not (isinstance(format, str) and re.fullmatch(r"[A-Za-z0-9_-]+", format)):
        raise UsageError(f"format={format!r}: the name of an image format is expected: 'raw', 'qcow2'")
    return Disk(parse_size(size, "size"), image, format)


def existing(path: str | Path | None) -> Path | None:
    if path is None:
        return None
    absolute = Path(path).absolute()
    if not absolute.exists():
        raise UsageError(f"{str(path)!r}: no such file (looked at {str(absolute)!r})")
    return absolute
