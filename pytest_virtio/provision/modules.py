"""Kernel modules: read what a ``.ko`` file says about itself, find the one that drives a virtio device, and put
modules in an order in which each finds what it depends on. It must not know which modules a guest wants, nor where
they come from."""

from __future__ import annotations

import fnmatch
import gzip
import lzma
import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_virtio.errors import MissingError, UnknownNameError, UsageError

__all__ = (
    "KernelModule",
    "ModuleTree",
    "collect",
    "for_device_ids",
    "load_order",
    "module_bytes",
    "module_name",
    "overlay",
    "read_module",
    "scan",
    "virtio_device_ids",
)

_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
_ZSTD_TIMEOUT_SECONDS = 60
_VIRTIO_VENDOR_ID = 0x1AF4


@dataclass(frozen=True, slots=True)
class KernelModule:
    """What a module says about itself in its ``.modinfo`` section.

    :param name: as the kernel has it, with ``_`` for ``-``.
    :param path: where its file is.
    :param depends: names of modules that must be loaded before it.
    :param softdeps: names of modules that should be loaded before it, if they exist.
    :param aliases: patterns of the devices that it drives: ``virtio:d00000001v*``.
    :param vermagic: the kernel that it was built for; "" if it doesn't say.
    """

    name: str
    path: Path
    depends: tuple[str, ...] = ()
    softdeps: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    vermagic: str = ""


@dataclass(frozen=True, slots=True)
class ModuleTree:
    """The module files below some directories, by name and not yet read, and the names of modules built into the
    kernel."""

    files: Mapping[str, Path]
    seeds: tuple[str, ...]
    builtin: frozenset[str] = field(default_factory=frozenset)


# ---- reading
# ----------------------------------------------------------------------------------------------------------


def module_name(file_name: str) -> str:
    """The name of the module in a file: ``virtio-gpu.ko.xz`` holds ``virtio_gpu``."""
    return file_name.partition(".ko")[0].replace("-", "_")


def read_module(path: Path) -> KernelModule:
    """Read a module's own description.

    :raise UsageError: it is no kernel module, or can't be read.
    :raise MissingError: it is compressed by zstd and this machine has no ``zstd``.
    """
    pairs = list(_modinfo(path))
    return KernelModule(
        name=module_name(path.name),
        path=path,
        depends=tuple(_names(value for key, value in pairs if key == "depends")),
        softdeps=tuple(_soft_names(value for key, value in pairs if key == "softdep")),
        aliases=tuple(value for key, value in pairs if key == "alias"),
        vermagic=next((value.strip() for key, value in pairs if key == "vermagic"), ""),
    )


def module_bytes(path: Path) -> bytes:
    """The module itself, unpacked if its file is compressed.

    :raise UsageError: the file can't be read or unpacked.
    :raise MissingError: it is compressed by zstd and this machine has no ``zstd``.
    """
    try:
        if path.name.endswith(".xz"):
            return lzma.decompress(path.read_bytes())
        if path.name.endswith(".gz"):
            return gzip.decompress(path.read_bytes())
        return _unzstd(path) if path.name.endswith(".zst") else path.read_bytes()
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise UsageError(f"can't read the kernel module {path}: {error}") from error


def _unzstd(path: Path) -> bytes:
    if shutil.which("zstd") is None:
        raise MissingError(f"{path} is compressed by zstd, and this machine has no zstd command: apt-get install zstd")
    command = ["zstd", "-dcq", "--", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=_ZSTD_TIMEOUT_SECONDS, check=False)
    if done.returncode:
        raise UsageError(f"can't read the kernel module {path}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _modinfo(path: Path) -> Iterator[tuple[str, str]]:
    section = _modinfo_section(path)
    if section is None:
        raise UsageError(f"{path} is no kernel module: it has no .modinfo section")
    for text in section.split(b"\0"):
        key, equals, value = text.decode(errors="replace").partition("=")
        if equals:
            yield key, value


def _modinfo_section(path: Path) -> bytes | None:
    if path.name.endswith(".ko"):
        # A build tree holds hundreds of megabytes of debug sections, of which a mapping touches none.
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return _elf_section(mapped, b".modinfo")
        except (OSError, ValueError) as error:
            raise UsageError(f"can't read the kernel module {path}: {error}") from error
    return _elf_section(module_bytes(path), b".modinfo")


def _elf_section(image: bytes | mmap.mmap, wanted: bytes) -> bytes | None:
    """The content of a section of a 64-bit little-endian ELF file; None if there is none of that name."""
    if image[:6] != b"\x7fELF\x02\x01":
        return None
    try:
        (table,) = struct.unpack_from("<Q", image, 0x28)
        size, count, names = struct.unpack_from("<HHH", image, 0x3A)
        headers = [struct.unpack_from("<IIQQQQ", image, table + n * size) for n in range(count)]
        text = _section_bytes(image, headers[names])
        found = (header for header in headers if text[header[0] :].split(b"\0", 1)[0] == wanted)
        return next((_section_bytes(image, header) for header in found), None)
    except (struct.error, IndexError):
        return None


def _section_bytes(image: bytes | mmap.mmap, header: Sequence[int]) -> bytes:
    offset, size = header[4], header[5]
    return bytes(image[offset : offset + size])


def _names(values: Iterable[str]) -> Iterator[str]:
    for value in values:
        yield from (name.replace("-", "_") for name in value.split(",") if name)


def _soft_names(values: Iterable[str]) -> Iterator[str]:
    """The names after ``pre:`` in ``pre: a b post: c``: what stands after ``post:`` is not needed to start."""
    for value in values:
        before, _, _ = value.partition("post:")
        yield from (word.replace("-", "_") for word in before.split() if word != "pre:")


# ---- finding
# ----------------------------------------------------------------------------------------------------------


def scan(places: Iterable[Path]) -> ModuleTree:
    """Find the module files in the places: each a ``.ko`` file, a build tree, ``/lib/modules/VERSION`` or any
    directory.

    Where there is an index made by depmod, only virtio's modules are seeds, and reading the tree stays fast.
    :raise UsageError: a place does not exist or has no module in it.
    """
    files: dict[str, Path] = {}
    seeds: list[str] = []
    builtin: set[str] = set()
    for place in places:
        found = _files_in(place)
        files.update(found)
        indexed = place / "modules.alias"
        seeds.extend(_virtio_in_index(indexed) if indexed.is_file() else found)
        builtin.update(_builtin_in(place))
    return ModuleTree(files, tuple(dict.fromkeys(seeds)), frozenset(builtin))


def collect(tree: ModuleTree, wanted: Iterable[str]) -> tuple[KernelModule, ...]:
    """Read the wanted modules and everything in the tree that they depend on; a name the tree doesn't have is left
    out."""
    read: dict[str, KernelModule] = {}
    todo = [name for name in wanted if name in tree.files]
    while todo:
        name = todo.pop()
        if name not in read:
            module = read[name] = read_module(tree.files[name])
            todo.extend(needed for needed in (*module.depends, *module.softdeps) if needed in tree.files)
    return tuple(read[name] for name in sorted(read))


def overlay(below: Iterable[KernelModule], above: Iterable[KernelModule]) -> tuple[KernelModule, ...]:
    """The modules of both, where one above takes the place of each below that has its name or a virtio alias of it."""
    above = tuple(above)
    names = {module.name for module in above}
    taken = {alias for module in above for alias in _virtio_aliases(module)}
    kept = (m for m in below if m.name not in names and taken.isdisjoint(_virtio_aliases(m)))
    return (*kept, *above)


def for_device_ids(modules: Iterable[KernelModule], ids: Iterable[int]) -> tuple[KernelModule, ...]:
    """The modules that drive virtio devices of these types (numbers of the virtio specification), by their own
    aliases."""
    events = [f"virtio:d{device_id:08X}v{_VIRTIO_VENDOR_ID:08X}" for device_id in ids]
    return tuple(
        module
        for module in modules
        if any(fnmatch.fnmatchcase(event, alias) for event in events for alias in _virtio_aliases(module))
    )


def virtio_device_ids(module: KernelModule) -> tuple[int, ...]:
    """The virtio device types that a module drives; a pattern without a number in it is left out."""
    heads = (alias[len("virtio:d") :].partition("v")[0] for alias in _virtio_aliases(module))
    return tuple(sorted({int(head, 16) for head in heads if len(head) == 8 and "*" not in head}))


def _virtio_aliases(module: KernelModule) -> tuple[str, ...]:
    return tuple(alias for alias in module.aliases if alias.startswith("virtio:"))


def _files_in(place: Path) -> dict[str, Path]:
    if place.is_file() and place.name.endswith(_SUFFIXES):
        return {module_name(place.name): place}
    found = sorted(path for path in place.rglob("*.ko*") if path.name.endswith(_SUFFIXES)) if place.is_dir() else []
    if not found:
        raise UsageError(
            f"no kernel module in {str(place)!r}: give a .ko file (or .ko.xz, .ko.gz, .ko.zst), the tree in which it "
            "was built, or /lib/modules/VERSION"
        )
    return {module_name(path.name): path for path in found}


def _virtio_in_index(index: Path) -> Iterator[str]:
    for line in index.read_text(errors="replace").splitlines():
        match line.split():
            case ["alias", pattern, name] if pattern.startswith("virtio:"):
                yield name.replace("-", "_")


def _builtin_in(place: Path) -> Iterator[str]:
    listing = place / "modules.builtin"
    if listing.is_file():
        yield from (module_name(line.rpartition("/")[2]) for line in listing.read_text(errors="replace").splitlines())


# ---- order
# ------------------------------------------------------------------------------------------------------------


def load_order(
    modules: Iterable[KernelModule], wanted: Iterable[str], builtin: frozenset[str] = frozenset()
) -> tuple[KernelModule, ...]:
    """The wanted modules and what they depend on, each after all that it depends on.

    :param builtin: names of modules that are part of the kernel, and need no file.
    :raise UnknownNameError: a wanted module is not there.
    :raise MissingError: one depends on a module that is neither there nor built in.
    """
    by_name = {module.name: module for module in modules}
    order: dict[str, KernelModule] = {}
    for name in (n.replace("-", "_") for n in wanted):
        if name not in by_name and name not in builtin:
            raise UnknownNameError("kernel module", name, by_name)
        _visit(name, by_name, builtin, order, ())
    return tuple(order.values())


def _visit(
    name: str,
    by_name: Mapping[str, KernelModule],
    builtin: frozenset[str],
    order: dict[str, KernelModule],
    above: tuple[str, ...],
) -> None:
    if name in order or name in above or (name in builtin and name not in by_name):
        return
    module = by_name.get(name)
    if module is None:
        raise MissingError(
            f"the kernel module {above[-1]} depends on {name}, which is neither among the modules nor built into the "
            f"kernel (wanted: {' → '.join((*above, name))}); add {name}.ko to --virtio-modules"
        )
    soft = (needed for needed in module.softdeps if needed in by_name)
    for needed in (*soft, *module.depends):
        _visit(needed, by_name, builtin, order, (*above, name))
    order[name] = module
