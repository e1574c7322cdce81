"""QEMUs of other releases than the machine's own, by the recipe in ``images/qemu``, kept in the cache side by side. It
must not know how an unpacked QEMU is made to run, nor how the Debian archive is reached."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_virtio.errors import UnknownNameError

from . import cache, debian, packages, unpacked
from .apt import Apt, require_apt
from .recipes import recipe_directory

__all__ = ("QemuRelease", "build_release", "find_release", "names")

_KIND = "qemu-releases"
_BUILD_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class QemuRelease:
    """A build in the cache.

    :param program: for ``--virtio-qemu``; a script that becomes QEMU.
    :param version: Debian's, of QEMU.
    :param packages: name and version of each package that it was made from.
    """

    program: Path
    version: str
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What ``images/qemu`` says of one release; the pattern of versions ends with ``*``."""

    name: str
    suites: tuple[str, ...]
    versions: str
    needed: tuple[str, ...]
    where_there: tuple[str, ...]

    @property
    def key(self) -> str:
        """Of its entry in the cache: another one when the recipe changes."""
        content = (*self.suites, self.versions, *self.needed, *self.where_there)
        return f"{self.name}-{cache.digest(unpacked.FORMAT, *content)}"


def names() -> tuple[str, ...]:
    """The releases that there are recipes for: ``qemu-7.2`` …

    :raise MissingError: the installation lacks its ``images`` directory.
    """
    return tuple(cooking.name for cooking in _recipes())


def find_release(name: str) -> QemuRelease | None:
    """The release's build by the present recipe, or None if it isn't built; uses no network and starts no process.

    :raise UnknownNameError: there is no recipe for it.
    """
    directory = cache.root() / _KIND / _recipe(name).key
    return _read(directory) if directory.is_dir() else None


def build_release(name: str, progress: Callable[[str], None], mirror: str | None = None) -> QemuRelease:
    """Download and unpack a release of QEMU if the cache hasn't got it; what is there stays as it is.

    :param mirror: URI of a mirror of the Debian archive; by default the setting's or the machine's own.
    :raise UnknownNameError: there is no recipe for it.
    :raise UsageError: the mirror is no URI.
    :raise MissingError: it can't be had, or does not run here; the message says what to do.
    """
    cooking = _recipe(name)

    def fill(directory: Path) -> None:
        require_apt(name)
        source = debian.checked_mirror(mirror) if mirror else debian.find_mirror(progress)
        progress(f"{name}: from {source}")
        _fill(directory, cooking, source, progress)

    return _read(cache.entry(_KIND, cooking.key, fill, _BUILD_SECONDS, progress))


def _fill(directory: Path, cooking: _Recipe, mirror: str, progress: Callable[[str], None]) -> None:
    with cache.temporary() as place:
        apt = debian.archive_apt(place, mirror, cooking.suites, progress)
        wanted = [f"{package}={cooking.versions}" for package in _there(apt, cooking)]
        found = packages.closure(apt, wanted, progress)
        unpacked.fill(directory, cache.root() / _KIND / cooking.key, found, progress, whole=True)
    _write_manifest(directory, cooking, found)


def _there(apt: Apt, cooking: _Recipe) -> tuple[str, ...]:
    known = apt.query("pkgnames", "qemu-").split()
    return (*cooking.needed, *(name for name in cooking.where_there if name in known))


def _write_manifest(directory: Path, cooking: _Recipe, found: Iterable[packages.Package]) -> None:
    versions = {package.name: package.version for package in found}
    manifest = {"version": versions[cooking.needed[0]], "packages": versions}
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _read(directory: Path) -> QemuRelease:
    manifest = json.loads((directory / "manifest.json").read_text())
    return QemuRelease(directory / "bin" / unpacked.BINARY, manifest["version"], manifest["packages"])


def _recipe(name: str) -> _Recipe:
    found = next((cooking for cooking in _recipes() if cooking.name == name), None)
    if found is None:
        raise UnknownNameError("release of QEMU", name, names())
    return found


def _recipes() -> Iterator[_Recipe]:
    table = tomllib.loads((recipe_directory("qemu") / "recipe.toml").read_text())
    for release, its in table["releases"].items():
        yield _Recipe(
            name=f"qemu-{release}",
            suites=tuple(its["suites"]),
            versions=its["version"],
            needed=tuple(table["packages"]["needed"]),
            where_there=tuple(table["packages"]["where_there"]),
        )
