"""The machine's own apt, run without root and without a trace outside of one directory: its lists, its archives, its
log. It must not know which packages are wanted, nor what for."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_virtio.errors import MissingError

from . import cache

__all__ = ("DOWNLOAD_SECONDS", "QUERY_SECONDS", "Apt", "checked", "have_apt", "machine_apt", "require_apt")

DOWNLOAD_SECONDS = 1200
QUERY_SECONDS = 60
TELL_SECONDS = 5.0

_INSTALLED = Path("/var/lib/dpkg/status")

# Hooks of the machine's configuration that would reach outside the directory, such as docker-clean's
# "rm /var/cache/apt/…".
_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
"""


@dataclass(frozen=True, slots=True)
class Apt:
    """apt with the machine's configuration, but for what is said here.

    :param directory: it writes below this one only.
    :param settings: further settings, by apt's names for them.
    """

    directory: Path
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def archives(self) -> Path:
        """Where downloaded packages are."""
        return self._below("cache", "archives")

    @property
    def has_lists(self) -> bool:
        """Whether it has lists of packages, of whatever age."""
        return any(self._below("state", "lists").glob("*_Packages*"))

    def update(self, progress: Callable[[str], None]) -> None:
        """Get new lists of packages.

        :raise MissingError: apt-get fails: no network, a source that isn't there, a signature that is wrong.
        """
        progress("updating the list of packages (apt-get update, in the cache)")
        self.get("update", "-q", seconds=DOWNLOAD_SECONDS, progress=progress)

    def get(
        self,
        *arguments: str,
        seconds: float,
        directory: Path | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> str:
        """Run apt-get in a directory and return what it wrote.

        :param progress: is told every few seconds how much has been downloaded.
        :raise MissingError: it fails, or takes longer than these seconds.
        """
        places = [self._below("state", "lists", "partial").parent, self._below("cache", "archives", "partial").parent]
        if directory is not None:
            places.append(directory)
        before = _megabytes(places)

        def tell(elapsed: float) -> None:
            if progress is not None:
                progress(f"{_megabytes(places) - before:.0f} MB after {elapsed:.0f} s")

        return checked(["apt-get", *self._options(), *arguments], seconds, directory, tell)

    def query(self, *arguments: str) -> str:
        """Run apt-cache and return what it wrote.

        :raise MissingError: it fails.
        """
        return checked(["apt-cache", *self._options(), *arguments], QUERY_SECONDS)

    def nowhere(self) -> Path:
        """A directory in which no package is."""
        return self._below("log")

    def as_if_nothing_were_installed(self) -> Iterator[str]:
        """Options for :meth:`get`: with these, a package needs all the packages that it can't be without."""
        record = self._below("state") / "nothing-installed"
        record.touch()
        yield from ("-o", f"Dir::State::status={record}")

    def _below(self, *names: str) -> Path:
        path = self.directory.joinpath(*names)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _options(self) -> Iterator[str]:
        configuration = self._below() / "configuration"
        configuration.write_text(_CONFIGURATION)
        yield from ("-c", str(configuration))
        for name, value in {**self._own_settings(), **self.settings}.items():
            yield from ("-o", f"{name}={value}")

    def _own_settings(self) -> Mapping[str, object]:
        return {
            "Dir::State": self._below("state"),
            "Dir::State::status": _INSTALLED,
            "Dir::Cache": self._below("cache"),
            "Dir::Log": self._below("log"),
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
            "APT::Keep-Downloaded-Packages": "true",
            # Whoever uses the directory holds a lock of the cache's, and dpkg's is not for us to take.
            "Debug::NoLocking": "true",
            # The user _apt, whom root's apt works as, can't write in root's cache.
            **({"APT::Sandbox::User": "root"} if os.geteuid() == 0 else {}),
        }


def machine_apt() -> Apt:
    """apt with the machine's own sources and keys, in the cache; use it under the cache's lock ``apt`` only."""
    return Apt(cache.subdirectory("apt"))


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


def _megabytes(directories: Sequence[Path]) -> float:
    """How much lies below; what goes while it is counted does not count."""
    sizes = 0
    for path in (path for directory in directories for path in directory.rglob("*")):
        with contextlib.suppress(OSError):
            sizes += path.stat().st_size
    return sizes / 1e6


def checked(
    command: Sequence[str],
    seconds: float,
    directory: Path | None = None,
    tell: Callable[[float], None] | None = None,
) -> str:
    """Run a tool and return what it wrote.

    :param seconds: how long it may take.
    :param tell: is called every few seconds while it runs, with how long it has.
    :raise MissingError: it fails or takes longer; its last words are in the message.
    """
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    shown = f"{command[0]} {' '.join(word for word in command[1:] if word.isalnum() or word[:1].islower())}"
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=directory,
        env=environment,
    ) as process:
        try:
            written, complaints = _written(process, seconds, tell)
        except BaseException as error:
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise MissingError(f"{shown}: not done within {seconds:g} s") from error
            raise
    if process.returncode:
        said = (complaints or written).decode(errors="replace").strip().splitlines()
        raise MissingError("\n".join((f"{shown} failed (exit status {process.returncode}):", *said[-8:])))
    return written.decode(errors="replace")


def _written(
    process: subprocess.Popen[bytes], seconds: float, tell: Callable[[float], None] | None
) -> tuple[bytes, bytes]:
    """What it wrote to stdout and stderr until its end.

    :raises subprocess.TimeoutExpired: when that does not come in time.
    """
    began = time.monotonic()
    while True:
        elapsed = time.monotonic() - began
        left = max(0.0, seconds - elapsed)
        try:
            return process.communicate(timeout=min(TELL_SECONDS, left))
        except subprocess.TimeoutExpired:
            if left <= TELL_SECONDS:
                raise
            if tell is not None:
                tell(elapsed + TELL_SECONDS)
