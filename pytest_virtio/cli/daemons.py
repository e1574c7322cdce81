"""The vhost-user daemons that declarations start by themselves, as findings of ``doctor``.

Responsible for what is of use and for the words; must not know how findings are shown.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from pytest_virtio.backend.programs import KNOWN, PASST, STORAGE_DAEMON, Known, found, usable
from pytest_virtio.backend.storage_daemon import places
from pytest_virtio.provision.status import Finding

__all__ = ("daemons",)

HELP_SECONDS = 5.0
VHOST_USER = b"--vhost-user"


def daemons(qemu: Path | None) -> Iterator[Finding]:
    """Yield one for each; nobody needs them all.

    :param qemu: beside which qemu-storage-daemon is looked for.
    """
    for daemon in map(usable, KNOWN):
        here = found(daemon.name, places(qemu) if qemu and daemon is STORAGE_DAEMON else daemon.places)
        if here is None:
            yield _missing(daemon, "neither in PATH nor where distributions have it")
        elif daemon is PASST and not _has_vhost_user(here):
            yield _missing(daemon, f"{here} is too old for vhost-user")
        else:
            yield Finding(daemon.name, True, str(here))


def _missing(daemon: Known, why: str) -> Finding:
    return Finding(daemon.name, False, why, f"install {daemon.packages}", needed=False)


def _has_vhost_user(passt: Path) -> bool:
    try:
        told = subprocess.run(
            [passt, "--help"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=HELP_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return VHOST_USER in told.stdout + told.stderr
