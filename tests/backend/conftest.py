"""What the tests of backends share: whether a process has ended, and files by their content."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

import pytest

from pytest_virtio.vm.backends import PrivateFile


@pytest.fixture
def ended() -> Callable[[int], bool]:
    """Whether a process has ended, or does within some seconds."""

    def ended(pid: int) -> bool:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            return bool(poller.poll(20_000))
        finally:
            os.close(pidfd)

    return ended


def made(file: PrivateFile) -> bytes:
    """The bytes of a file."""
    assert file.size is not None
    content = bytearray(file.size)
    for offset, piece in file.content.items():
        content[offset : offset + len(piece)] = piece
    return bytes(content)
