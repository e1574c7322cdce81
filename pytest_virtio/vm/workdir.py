"""Private directories: one for each VM, readable by its owner alone, removed whatever ends the test.

A QMP socket or a guest's image in a shared directory would hand the host user to anybody on the machine.
Responsible for making, registering and removing them; must not know what is put in.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from pytest_virtio.vm import janitor
from pytest_virtio.vm.interrupts import uninterrupted

__all__ = ("make", "remove")


def make() -> Path:
    """Make a private directory (mode 0700) that the janitor removes if this process can't.

    :raises VirtioError: when the janitor can't be told; then there is no directory.
    """
    with uninterrupted():
        path = Path(tempfile.mkdtemp(prefix="pytest-virtio-"))
        try:
            janitor.adopt_directory(path)
        except BaseException:
            path.rmdir()
            raise
        return path


def remove(path: Path) -> None:
    """Remove a private directory and tell the janitor; a directory that is gone already is fine.

    What can't be removed now stays with the janitor, which tries again when this process ends.
    """
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        janitor.release_directory(path)
