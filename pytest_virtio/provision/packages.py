"""Packages of a distribution, downloaded and unpacked without their scripts being run. It must not know how apt is kept
in its directory, nor what the packages are for."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_virtio.errors import MissingError

from . import cache
from .apt import DOWNLOAD_SECONDS, QUERY_SECONDS, Apt, checked, machine_apt, require_apt

__all__ = ("Package", "closure", "download", "download_closure", "resolve", "unpack")

_UNPACK_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Package:
    """A downloaded package.

    :param name: ``busybox-static``.
    :param version: the distribution's version.
    :param path: its ``.deb`` file.
    """

    name: str
    version: str
    path: Path


def resolve(name: str) -> tuple[str, ...]:
    """The packages behind a name: itself, or for a metapackage of kernels such as ``linux-image-amd64`` what it
    stands for.

    On Ubuntu a kernel's modules are in a second package, which is returned as well.
    :raise MissingError: the distribution has no such package.
    """
    shown = machine_apt().query("show", "--no-all-versions", name)
    depends = re.search(r"^Depends: (.*)$", shown, re.MULTILINE)
    names = re.findall(r"\blinux-(?:image|modules|binary)-[^\s,(]+", depends[1] if depends else "")
    kernels = [found for found in names if found.startswith("linux-image-")]
    parts = [found for found in names if not found.startswith("linux-image-")]
    first = resolve(kernels[0]) if kernels else (name,)
    return tuple(dict.fromkeys((*first, *parts)))


def download(wanted: Sequence[Sequence[str]], progress: Callable[[str], None]) -> tuple[Package, ...]:
    """Download the newest version of each wanted package, and nothing that it depends on.

    :param wanted: for each, the names that it may have; the first that the distribution knows is taken.
    :raise MissingError: there is no apt, no such package or no network.
    """
    require_apt(" and ".join(names[0] for names in wanted))
    with cache.lock("apt", DOWNLOAD_SECONDS, progress):
        apt = machine_apt()
        return _with_lists(apt, lambda: _download(apt, wanted, progress), progress)


def download_closure(names: Sequence[str], progress: Callable[[str], None]) -> tuple[Package, ...]:
    """Download these packages and all that they can't be without, whether the machine has it installed or not.

    :raise MissingError: there is no apt, no such package or no network.
    """
    require_apt(" and ".join(names))
    with cache.lock("apt", DOWNLOAD_SECONDS, progress):
        apt = machine_apt()
        return _with_lists(apt, lambda: closure(apt, names, progress), progress)


def closure(apt: Apt, names: Sequence[str], progress: Callable[[str], None]) -> tuple[Package, ...]:
    """Download these packages and all that they can't be without, by an apt that has its lists.

    :param names: of packages; ``NAME=VERSION`` asks for one version, whose end may be ``*``.
    :raise MissingError: there is no such package or no network.
    """
    nothing = apt.as_if_nothing_were_installed()
    install = (*nothing, "install", "-q", "-y", "--no-install-recommends", *names)
    # Asked with another directory for archives: a file that is there already would not be printed.
    elsewhere = ("-o", f"Dir::Cache::archives={apt.nowhere()}")
    files = _file_names(apt.get(*elsewhere, *install, "--print-uris", seconds=QUERY_SECONDS))
    progress(f"downloading {', '.join(names)} and what they need ({len(files)} packages)")
    apt.get(*install, "--download-only", seconds=DOWNLOAD_SECONDS, progress=progress)
    return tuple(_described(apt.archives / name) for name in files)


def unpack(packages: Iterable[Package], directory: Path) -> None:
    """Unpack the files of the packages below the directory; their scripts don't run.

    :raise MissingError: a package is broken or the disk is full.
    """
    for package in packages:
        checked(["dpkg-deb", "-x", str(package.path), str(directory)], _UNPACK_SECONDS)


def _with_lists(
    apt: Apt, fetch: Callable[[], tuple[Package, ...]], progress: Callable[[str], None]
) -> tuple[Package, ...]:
    """Fetch; where the lists of packages are missing or too old for that, update them and fetch again."""
    with contextlib.suppress(MissingError):
        if apt.has_lists:
            return fetch()
    apt.update(progress)
    return fetch()


def _download(apt: Apt, wanted: Sequence[Sequence[str]], progress: Callable[[str], None]) -> tuple[Package, ...]:
    found = [real for names in wanted for real in _resolve_first(names)]
    progress(f"downloading {', '.join(found)}")
    return tuple(_one(apt, name, cache.subdirectory("apt", "packages"), progress) for name in found)


def _resolve_first(names: Sequence[str]) -> tuple[str, ...]:
    for name in names[:-1]:
        with contextlib.suppress(MissingError):
            return resolve(name)
    return resolve(names[-1])


def _one(apt: Apt, name: str, directory: Path, progress: Callable[[str], None]) -> Package:
    """Download one; apt-get does nothing if the file is there and its checksum right."""
    # Asked in a directory without the file: where it is there already, nothing would be printed.
    shown = apt.get("download", "--print-uris", name, seconds=QUERY_SECONDS, directory=apt.nowhere())
    file_names = _file_names(shown)
    if not file_names:
        raise MissingError(f"apt-get finds no file for the package {name}: {shown.strip()}")
    apt.get("download", "-q", name, seconds=DOWNLOAD_SECONDS, directory=directory, progress=progress)
    return _described(directory / file_names[0])


def _file_names(shown: str) -> list[str]:
    """The files in what ``apt-get --print-uris`` shows: lines of ``'URI' FILE SIZE CHECKSUM``."""
    return re.findall(r"^'.*' (\S+\.deb) ", shown, re.MULTILINE)


def _described(path: Path) -> Package:
    text = checked(["dpkg-deb", "--field", str(path), "Package", "Version"], QUERY_SECONDS)
    fields = dict(line.split(": ", 1) for line in text.splitlines())
    return Package(fields["Package"], fields["Version"], path)
