"""Which version a backend's program is of, as the program itself tells.

Responsible for asking once, and only programs of which it is known that they answer ``--version`` and leave: a user's
own would start to serve. Must not know what they serve.
"""

from __future__ import annotations

import functools
import re
import shutil
from pathlib import Path

from pytest_virtio.errors import VirtioError
from pytest_virtio.render import escape
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.drain import Drain
from pytest_virtio.vm.process import BACKEND_RANK, Child

__all__ = ("version_of",)

VERSION_SECONDS = 2.0
LONGEST = 120
TELLING = re.compile(r"qemu-storage-daemon|virtiofsd|passt|vhost-device-[a-z0-9]+")
"""testpmd tells its version too, and goes on to look for network cards."""


def version_of(program: str) -> str:
    """``"virtiofsd 1.13.2"``; the file's name alone of a program that does not tell. Asks each once in a process."""
    name = Path(program).name
    found = shutil.which(program) if TELLING.fullmatch(name) else None
    return f"{name} {_ask(found)}".rstrip() if found else name


@functools.lru_cache
def _ask(program: str) -> str:
    drain = Drain("version")
    try:
        drain.start()
        child = Child((program, "--version"), drain, rank=BACKEND_RANK)
        try:
            told = child.wait(Deadline.after(VERSION_SECONDS)) and child.returncode == 0
        finally:
            child.kill()
        return _version(Path(program).name, child.stderr.log.text()) if told else ""
    except VirtioError:
        return ""
    finally:
        drain.close()


def _version(name: str, said: bytes) -> str:
    """``qemu-storage-daemon version 7.2.22 (Debian …)`` less the program's name; other programs leave out a word."""
    first, *_ = said.strip().splitlines() or [b""]
    return escape(re.sub(rb"^" + re.escape(name.encode()) + rb" (version )?", b"", first), LONGEST, keep="head")
