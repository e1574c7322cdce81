"""Packages of the distribution, downloaded and unpacked without root and without a trace outside the cache, by the
machine's own apt with its own sources and keys. It must not know what the packages are for."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_virtio.errors import MissingError

from . import cache

__all__ = (
    "INSTALLED",
    "Package",
    "checked",
    "download",
    "download_closure",
    "have_apt",
    "require_apt",
    "resolve",
    "unpack",
)

INSTALLED = Path("/var/lib/dpkg/status")
"""dpkg's record of what is installed."""

_DOWNLOAD_SECONDS = 1200
_QUERY_SECONDS = 60
_UNPACK_SECONDS = 300

# Hooks of the machine's configuration that would reach outside the cache, such as docker-clean's "rm /var/cache/apt/…".
_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
"""


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


def have_apt() -> bool:
    """Whether this machine has the tools of a Debian or Ubuntu."""
    return all(shutil.which(tool) for tool in ("apt-get", "apt-cache", "dpkg-deb"))


def require_apt(wanted: str) -> None:
    """Say what to do by hand on a machine without apt.

    :param wanted: what was to be fetched, in the user's words.
    :raise MissingError: there is no apt.
    """
    if not have_apt():
        raise MissingError(
            f"can't fetch {wanted}: this machine has no apt-get and dpkg-deb (Debian, Ubuntu). Install with its own "
            "package tool: QEMU for x86 (qemu-system-x86), and for a Linux guest a statically linked busybox; "
            "then name a kernel by --virtio-kernel, and its modules (/lib/modules/VERSION) by --virtio-modules "
            "or its initrd by --virtio-initrd"
        )


def resolve(name: str) -> tuple[str, ...]:
    """The packages behind a name: itself, or for a metapackage of kernels such as ``linux-image-amd64`` what it
    stands for.

    On Ubuntu a kernel's modules are in a second package, which is returned as well.
    :raise MissingError: the distribution has no such package.
    """
    depends = re.search(r"^Depends: (.*)$", _query("show", "--no-all-versions", name), re.MULTILINE)
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
    with cache.lock("apt", _DOWNLOAD_SECONDS):
        return _with_lists(lambda: _download(wanted, progress), progress)


def download_closure(
    names: Sequence[str], progress: Callable[[str], None], installed: Path = INSTALLED
) -> tuple[Package, ...]:
    """Download these packages and all that they depend on, as far as the machine hasn't got it installed.

    :param installed: dpkg's record of what is installed.
    :raise MissingError: there is no apt, no such package or no network.
    """
    require_apt(" and ".join(names))
    with cache.lock("apt", _DOWNLOAD_SECONDS):
        return _with_lists(lambda: _download_closure(names, progress, installed), progress)


def unpack(packages: Iterable[Package], directory: Path) -> None:
    """Unpack the files of the packages below the directory; their scripts don't run.

    :raise MissingError: a package is broken or the disk is full.
    """
    for package in packages:
        checked(["dpkg-deb", "-x", str(package.path), str(directory)], _UNPACK_SECONDS)


# ---- downloading
# ------------------------------------------------------------------------------------------------------


def _with_lists(fetch: Callable[[], tuple[Package, ...]], progress: Callable[[str], None]) -> tuple[Package, ...]:
    """Fetch; where the lists of packages are missing or too old for that, update them and fetch again."""
    with contextlib.suppress(MissingError):
        if any((_state() / "lists").glob("*_Packages*")):
            return fetch()
    progress("updating the list of packages (apt-get update, in the cache)")
    _apt("update", "-q", seconds=_DOWNLOAD_SECONDS)
    return fetch()


def _download(wanted: Sequence[Sequence[str]], progress: Callable[[str], None]) -> tuple[Package, ...]:
    found = [real for names in wanted for real in _resolve_first(names)]
    progress(f"downloading {', '.join(found)}")
    return tuple(_one(name, cache.subdirectory("apt", "packages")) for name in found)


def _resolve_first(names: Sequence[str]) -> tuple[str, ...]:
    for name in names[:-1]:
        with contextlib.suppress(MissingError):
            return resolve(name)
    return resolve(names[-1])


def _one(name: str, directory: Path) -> Package:
    """Download one; apt-get does nothing if the file is there and its checksum right."""
    # Asked in a directory without the file: where it is there already, nothing would be printed.
    shown = _apt("download", "--print-uris", name, seconds=_QUERY_SECONDS, directory=cache.subdirectory("apt", "log"))
    file_names = _file_names(shown)
    if not file_names:
        raise MissingError(f"apt-get finds no file for the package {name}: {shown.strip()}")
    _apt("download", "-q", name, seconds=_DOWNLOAD_SECONDS, directory=directory)
    return _described(directory / file_names[0])


def _download_closure(names: Sequence[str], progress: Callable[[str], None], installed: Path) -> tuple[Package, ...]:
    record = f"Dir::State::status={installed}"
    install = ("-o", record, "install", "-q", "-y", "--no-install-recommends", "--reinstall", *names)
    # Asked with another directory for archives: a file that is there already would not be printed.
    nowhere = f"Dir::Cache::archives={cache.subdirectory('apt', 'log')}"
    files = _file_names(_apt("-o", nowhere, *install, "--print-uris", seconds=_QUERY_SECONDS))
    progress(f"downloading {', '.join(names)} and what it needs ({len(files)} packages)")
    _apt(*install, "--download-only", seconds=_DOWNLOAD_SECONDS)
    return tuple(_described(_archives() / "archives" / name) for name in files)


def _file_names(shown: str) -> list[str]:
    """The files in what ``apt-get --print-uris`` shows: lines of ``'URI' FILE SIZE CHECKSUM``."""
    return re.findall(r"^'.*' (\S+\.deb) ", shown, re.MULTILINE)


def _described(path: Path) -> Package:
    text = checked(["dpkg-deb", "--field", str(path), "Package", "Version"], _QUERY_SECONDS)
    fields = dict(line.split(": ", 1) for line in text.splitlines())
    return Package(fields["Package"], fields["Version"], path)


# ---- apt
# --------------------------------------------------------------------------------------------------------------


def _state() -> Path:
    return cache.subdirectory("apt", "state")


def _archives() -> Path:
    return cache.subdirectory("apt", "cache")


def _options() -> Iterator[str]:
    configuration = cache.subdirectory("apt") / "configuration"
    configuration.write_text(_CONFIGURATION)
    yield from ("-c", str(configuration))
    settings = {
        "Dir::State": _state(),
        "Dir::State::status": INSTALLED,
        "Dir::Cache": _archives(),
        "Dir::Log": cache.subdirectory("apt", "log"),
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
        "APT::Keep-Downloaded-Packages": "true",
        "Debug::NoLocking": "true",  # the cache's own lock is held, and dpkg's is not for us to take
    }
    if os.geteuid() == 0:
        settings["APT::Sandbox::User"] = "root"  # the user _apt can't write in root's cache
    for name, value in settings.items():
        yield from ("-o", f"{name}={value}")


def _apt(*arguments: str, seconds: float, directory: Path | None = None) -> str:
    (_state() / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (_archives() / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    return checked(["apt-get", *_options(), *arguments], seconds, directory)


def _query(*arguments: str) -> str:
    return checked(["apt-cache", *_options(), *arguments], _QUERY_SECONDS)


def checked(command: Sequence[str], seconds: float, directory: Path | None = None) -> str:
    """Run a tool and return what it wrote.

    :param seconds: how long it may take.
    :raise MissingError: it fails or takes longer; its last words are in the message.
    """
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    shown = f"{command[0]} {' '.join(word for word in command[1:] if word.isalnum() or word[:1].islower())}"
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"{shown}: not done within {seconds:g} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise MissingError("\n".join((f"{shown} failed (exit status {done.returncode}):", *said[-8:])))
    return done.stdout.decode(errors="replace")
