"""The image of the Linux guest: built from the distribution's kernel and busybox by the recipe in ``images/linux``,
kept in the cache. It must not know which devices a test has, nor what a user brings along."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_virtio.errors import MissingError

from . import cache, cpio, kernel, packages
from .apt import require_apt
from .modules import KernelModule, collect, module_bytes, scan
from .recipes import recipe_directory

__all__ = (
    "LinuxImage",
    "Recipe",
    "build_linux",
    "core_archive",
    "find_busybox",
    "linux_image",
    "recipe",
    "root_archive",
)

_FORMAT = "1"  # of what this module makes of a recipe; another number makes other entries in the cache
_SCRIPTS = {"init": 0o755, "agent": 0o755, "devices": 0o644}
_DIRECTORIES = ("dev", "proc", "sys", "tmp", "run", "root", "etc")
_LIST_SECONDS = 10
_ELF_PROGRAM_INTERPRETER = 3  # PT_INTERP


@dataclass(frozen=True, slots=True)
class Recipe:
    """What ``images/linux`` says.

    :param kernels: names of kernel packages, the first that exists is taken.
    :param busyboxes: names of packages with a static busybox.
    :param paths: a module whose path has this in it is in the image.
    :param transports: names of modules without which a virtio driver finds no device.
    :param companions: by virtio device type, names of modules that go with its driver.
    :param append: kernel command line that every Linux guest needs.
    :param digest: changes with anything in ``images/linux``.
    """

    kernels: tuple[str, ...]
    busyboxes: tuple[str, ...]
    paths: str
    transports: tuple[str, ...]
    companions: Mapping[int, tuple[str, ...]]
    append: str
    digest: str


@dataclass(frozen=True, slots=True)
class LinuxImage:
    """A guest in the cache.

    :param kernel: for QEMU's ``-kernel``: an ELF kernel with a PVH entry, or else the package's ``bzImage``.
    :param initramfs: for QEMU's ``-initrd``.
    :param modules_archive: the part of the initramfs that holds the modules.
    :param modules: what the initramfs holds; their paths are paths in it.
    :param builtin: names of modules that are part of the kernel.
    :param version: the kernel's, as ``uname -r`` has it.
    :param packages: name and version of each package that it was made from.
    """

    kernel: Path
    initramfs: Path
    modules_archive: Path
    modules: tuple[KernelModule, ...]
    builtin: frozenset[str]
    version: str
    packages: Mapping[str, str]


# ---- the recipe
# -------------------------------------------------------------------------------------------------------


def recipe() -> Recipe:
    """Read the recipe that came with this plugin.

    :raise MissingError: the installation lacks its ``images`` directory.
    """
    directory = recipe_directory("linux")
    text = (directory / "recipe.toml").read_bytes()
    table = tomllib.loads(text.decode())
    return Recipe(
        kernels=tuple(table["packages"]["kernel"]),
        busyboxes=tuple(table["packages"]["busybox"]),
        paths=table["modules"]["paths"],
        transports=tuple(table["modules"]["transports"]),
        companions={int(device): tuple(names) for device, names in table["modules"]["companions"].items()},
        append=table["kernel"]["append"],
        digest=cache.digest(_FORMAT, text, *((directory / name).read_bytes() for name in _SCRIPTS)),
    )


# ---- the image
# --------------------------------------------------------------------------------------------------------


def linux_image() -> LinuxImage | None:
    """The newest image in the cache that the present recipe made, or None; uses no network and starts no process."""
    wanted = recipe().digest
    manifests = sorted((cache.root() / "linux").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    found = (path.parent for path in reversed(manifests) if json.loads(path.read_text())["recipe"] == wanted)
    return next((_read(path) for path in found), None)


def build_linux(progress: Callable[[str], None]) -> LinuxImage:
    """Download the newest kernel and busybox, and make the image if the cache hasn't got it.

    :raise MissingError: the packages can't be had; the message says what to do.
    """
    cooking = recipe()
    require_apt("a kernel and busybox")
    found = packages.download([cooking.kernels, cooking.busyboxes], progress)
    key = cache.digest(cooking.digest, *(f"{package.name} {package.version}" for package in found))
    return _read(
        cache.entry("linux", key, lambda directory: _fill(directory, cooking, found, progress), progress=progress)
    )


def _fill(
    directory: Path, cooking: Recipe, found: tuple[packages.Package, ...], progress: Callable[[str], None]
) -> None:
    with cache.temporary() as files:
        progress("unpacking the kernel")
        packages.unpack(found, files)
        tree = _module_directory(files)
        progress(f"making the guest of Linux {tree.name}")
        shutil.copyfile(_unpacked_busybox(files), directory / "busybox")
        (directory / "busybox").chmod(0o755)
        _write_kernel(files / "boot" / f"vmlinuz-{tree.name}", directory / "kernel")
        modules = _choose(tree, cooking)
        _write_archives(directory, modules)
        manifest = {
            "recipe": cooking.digest,
            "version": tree.name,
            "packages": {package.name: package.version for package in found},
            "builtin": sorted(scan([tree]).builtin),
            "modules": [_described(module) for module in modules],
        }
        (directory / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _choose(tree: Path, cooking: Recipe) -> tuple[KernelModule, ...]:
    found = scan([tree])
    virtio = [name for name, path in found.files.items() if cooking.paths in str(path.relative_to(tree))]
    companions = [name for names in cooking.companions.values() for name in names]
    return collect(found, (*virtio, *cooking.transports, *companions))


def _write_archives(directory: Path, modules: tuple[KernelModule, ...]) -> None:
    members = (cpio.regular(_path_in_image(module.name), module_bytes(module.path)) for module in modules)
    modules_archive = cpio.archive((cpio.directory("pytest-virtio"), cpio.directory("pytest-virtio/modules"), *members))
    (directory / "modules.cpio").write_bytes(modules_archive)
    whole = root_archive() + core_archive(directory / "busybox") + modules_archive
    (directory / "initramfs.cpio").write_bytes(whole)


def _write_kernel(source: Path, target: Path) -> None:
    image = source.read_bytes()
    target.write_bytes(kernel.unpacked(image) or image)


def _module_directory(files: Path) -> Path:
    found = [path for top in ("lib", "usr/lib") for path in (files / top / "modules").glob("*/kernel")]
    if not found:
        raise MissingError(
            "the kernel's packages hold no modules: name a kernel by --virtio-kernel and --virtio-modules"
        )
    return found[0].parent


def _unpacked_busybox(files: Path) -> Path:
    for path in (files / "bin" / "busybox", files / "usr" / "bin" / "busybox"):
        if path.is_file():
            return path
    raise MissingError("the package of busybox holds no busybox: put a statically linked busybox into PATH")


def _path_in_image(name: str) -> str:
    return f"pytest-virtio/modules/{name}.ko"


def _described(module: KernelModule) -> dict[str, Any]:
    return {
        "name": module.name,
        "depends": module.depends,
        "softdeps": module.softdeps,
        "aliases": module.aliases,
        "vermagic": module.vermagic,
    }


def _read(directory: Path) -> LinuxImage:
    manifest = json.loads((directory / "manifest.json").read_text())
    return LinuxImage(
        kernel=directory / "kernel",
        initramfs=directory / "initramfs.cpio",
        modules_archive=directory / "modules.cpio",
        modules=tuple(_module(entry) for entry in manifest["modules"]),
        builtin=frozenset(manifest["builtin"]),
        version=manifest["version"],
        packages=manifest["packages"],
    )


def _module(entry: Mapping[str, Any]) -> KernelModule:
    return KernelModule(
        name=entry["name"],
        path=Path("/" + _path_in_image(entry["name"])),
        depends=tuple(entry["depends"]),
        softdeps=tuple(entry["softdeps"]),
        aliases=tuple(entry["aliases"]),
        vermagic=entry["vermagic"],
    )


# ---- parts of an initramfs
# --------------------------------------------------------------------------------------------


def root_archive() -> bytes:
    """Directories, device nodes and links of a root file system in which there is nothing else."""
    return cpio.archive(
        (
            *(cpio.directory(name) for name in _DIRECTORIES),
            cpio.character("dev/console", 5, 1),
            cpio.character("dev/null", 1, 3, 0o666),
            cpio.symlink("bin", "pytest-virtio/bin"),
            cpio.symlink("sbin", "pytest-virtio/bin"),
        )
    )


def core_archive(busybox: Path) -> bytes:
    """``/pytest-virtio`` with busybox, init and agent: it fits beside whatever else an initramfs holds.

    :raise MissingError: this busybox does not run.
    """
    scripts = recipe_directory("linux")
    return cpio.archive(
        (
            cpio.directory("pytest-virtio"),
            cpio.directory("pytest-virtio/bin"),
            cpio.regular("pytest-virtio/busybox", busybox.read_bytes(), 0o755),
            *(cpio.symlink(f"pytest-virtio/bin/{name}", "../busybox") for name in _applets(busybox)),
            *(cpio.regular(f"pytest-virtio/{n}", (scripts / n).read_bytes(), mode) for n, mode in _SCRIPTS.items()),
        )
    )


def find_busybox() -> Path | None:
    """A statically linked busybox: the image's, else the machine's, else None."""
    image = linux_image()
    if image is not None:
        return image.initramfs.parent / "busybox"
    machine = (shutil.which("busybox"), "/usr/lib/initramfs-tools/bin/busybox", shutil.which("busybox-static"))
    return next((Path(path) for path in machine if path and _is_static(Path(path))), None)


def _applets(busybox: Path) -> Iterator[str]:
    try:
        done = subprocess.run([busybox, "--list"], capture_output=True, timeout=_LIST_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingError(f"{busybox} --list: {error}; put a statically linked busybox into PATH") from error
    yield from done.stdout.decode().split()


def _is_static(path: Path) -> bool:
    """Whether it is a 64-bit ELF program that needs no interpreter (ld.so), and so no library either."""
    if not os.access(path, os.X_OK):
        return False
    image = path.read_bytes()
    if image[:6] != b"\x7fELF\x02\x01":
        return False
    (table,) = struct.unpack_from("<Q", image, 0x20)
    size, count = struct.unpack_from("<HH", image, 0x36)
    types = [struct.unpack_from("<I", image, table + number * size)[0] for number in range(count)]
    return _ELF_PROGRAM_INTERPRETER not in types
