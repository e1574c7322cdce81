"""What a Linux guest is started from, put together from the image and what a user brings along: a kernel, an initrd,
modules under development. It must not know how QEMU is started, nor what the guest will be asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_virtio.errors import MissingError, UsageError

from . import cpio, linux
from .modules import (
    KernelModule,
    ModuleTree,
    collect,
    for_device_ids,
    load_order,
    module_bytes,
    module_name,
    overlay,
    scan,
    virtio_device_ids,
)

__all__ = ("LinuxBoot", "prepare")

_USER_DIRECTORY = "pytest-virtio/user-modules"
_LONGEST_COMMAND_LINE = 2047  # COMMAND_LINE_SIZE of x86 is 2048 with the final NUL; the kernel cuts off the rest unsaid


@dataclass(frozen=True, slots=True)
class LinuxBoot:
    """What to start, and with what.

    :param kernel: for QEMU's ``-kernel``.
    :param initramfs: for QEMU's ``-initrd``.
    :param append: kernel command line; more may follow it.
    :param load: names of the modules that the guest loads, in this order.
    :param undriven: virtio device types for which no module is known: only a built-in driver can serve them.
    """

    kernel: Path
    initramfs: Path
    append: str
    load: tuple[str, ...]
    undriven: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Pool:
    """The modules to choose from: the user's stand for the distribution's of the same name or virtio alias."""

    modules: tuple[KernelModule, ...]
    own: tuple[KernelModule, ...]
    asked: tuple[str, ...]
    builtin: frozenset[str]


def prepare(
    directory: Path,
    device_ids: Iterable[int],
    *,
    kernel: Path | None = None,
    initrd: Path | None = None,
    modules: Sequence[Path] = (),
    append: str = "",
) -> LinuxBoot:
    """Put together what a guest with devices of these types starts from.

    :param directory: where an initramfs is written if the image's own won't do.
    :param device_ids: numbers of the virtio specification.
    :param kernel: the user's own, instead of the distribution's; the distribution's modules are then left out.
    :param initrd: the user's own; its ``/init`` becomes PID 1, and our agent runs beside it.
    :param modules: ``.ko`` files, which are loaded in any case, and directories, from which the devices' drivers are.
    :param append: more for the kernel's command line.
    :raise MissingError: there is no image yet, or a module lacks one that it depends on.
    :raise UsageError: a file does not exist or is no module; the command line is too long.
    """
    image = _image_for(kernel)
    _check_files(kernel, initrd)
    cooking, ids = linux.recipe(), tuple(device_ids)
    pool = _pool(image, modules, cooking)
    load = load_order(pool.modules, _wanted(pool, ids, cooking), pool.builtin)
    driven = {found for module in pool.modules for found in virtio_device_ids(module)}
    return LinuxBoot(
        kernel=kernel or _need(image).kernel,
        initramfs=_initramfs(directory, image, initrd, pool.own),
        append=_command_line(cooking.append, load, append),
        load=tuple(module.name for module in load),
        undriven=tuple(sorted(set(ids) - driven)),
    )


def _image_for(kernel: Path | None) -> linux.LinuxImage | None:
    return None if kernel else _need(linux.linux_image())


def _need(image: linux.LinuxImage | None) -> linux.LinuxImage:
    if image is None:
        raise MissingError(
            "there is no Linux guest yet: run 'pytest-virtio image build linux', or name a kernel by --virtio-kernel"
        )
    return image


def _check_files(kernel: Path | None, initrd: Path | None) -> None:
    for what, path in (("kernel", kernel), ("initrd", initrd)):
        if path is not None and not path.is_file():
            raise UsageError(f"{what} (Linux({what}=…) or --virtio-{what}): no such file: {str(path)!r}")


# ---- modules
# ----------------------------------------------------------------------------------------------------------


def _pool(image: linux.LinuxImage | None, places: Sequence[Path], cooking: linux.Recipe) -> _Pool:
    tree = scan(places)
    asked = tuple(module_name(place.name) for place in places if place.is_file())
    own = _relevant(tree, asked, cooking)
    builtin = tree.builtin | (image.builtin if image else frozenset())
    return _Pool(overlay(image.modules if image else (), own), own, asked, builtin)


def _relevant(tree: ModuleTree, asked: Sequence[str], cooking: linux.Recipe) -> tuple[KernelModule, ...]:
    """Of a tree of perhaps thousands: virtio drivers, what goes with them, what was asked for, and what these need."""
    drivers = [module.name for module in collect(tree, tree.seeds) if virtio_device_ids(module)]
    companions = [name for names in cooking.companions.values() for name in names]
    return collect(tree, (*drivers, *cooking.transports, *companions, *asked))


def _wanted(pool: _Pool, ids: Sequence[int], cooking: linux.Recipe) -> Iterable[str]:
    there = {module.name for module in pool.modules}
    yield from (name for name in cooking.transports if name in there)
    yield from (module.name for module in for_device_ids(pool.modules, ids))
    yield from (name for device in ids for name in cooking.companions.get(device, ()) if name in there)
    yield from pool.asked


# ---- files
# ------------------------------------------------------------------------------------------------------------


def _initramfs(
    directory: Path, image: linux.LinuxImage | None, initrd: Path | None, own: Sequence[KernelModule]
) -> Path:
    if image and not initrd and not own:
        return image.initramfs
    parts = [initrd.read_bytes() if initrd else linux.root_archive(), linux.core_archive(_busybox())]
    if image:
        parts.append(image.modules_archive.read_bytes())
    if own:
        parts.append(_own_archive(own))
    target = directory / "initramfs.cpio"
    # The kernel takes archives one after another, compressed or not, if each starts at a multiple of four bytes.
    target.write_bytes(b"".join(cpio.pad(part) for part in parts))
    return target


def _own_archive(own: Sequence[KernelModule]) -> bytes:
    members = (cpio.regular(f"{_USER_DIRECTORY}/{module.name}.ko", module_bytes(module.path)) for module in own)
    return cpio.archive((cpio.directory("pytest-virtio"), cpio.directory(_USER_DIRECTORY), *members))


def _busybox() -> Path:
    found = linux.find_busybox()
    if found is None:
        raise MissingError(
            "the guest's agent needs a statically linked busybox: run 'pytest-virtio image build linux', or install "
            "your distribution's (busybox-static)"
        )
    return found


def _command_line(needed: str, load: Sequence[KernelModule], more: str) -> str:
    names = ",".join(module.name for module in load)
    line = " ".join(part for part in (needed, f"pytest_virtio.load={names}" if names else "", more) if part)
    if len(line) > _LONGEST_COMMAND_LINE:
        raise UsageError(
            f"the kernel's command line has {len(line)} characters, but may have {_LONGEST_COMMAND_LINE}: {line}"
        )
    return line
