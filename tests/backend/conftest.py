"""What the tests of backends share: whether a process has ended, files by their content, and wires."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

import pytest

from pytest_virtio.backend.wire import Masks
from pytest_virtio.declare.wire import Fault
from pytest_virtio.vm.backends import PrivateFile

from .ends import Ends, Wired, possessions


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


@pytest.fixture
def wired() -> Iterator[Wired]:
    """Makes wires; each gives back its descriptors and threads."""
    before = possessions()
    made: list[Ends] = []

    def make(*faults: Fault, masks: Masks = Masks()) -> Ends:  # noqa: B008 - frozen
        made.append(Ends(*faults, masks=masks))
        return made[-1]

    yield make
    for ends in made:
        ends.close()
        ends.witness.close()
    assert possessions() == before


def made(file: PrivateFile) -> bytes:
    """The bytes of a file."""
    assert file.size is not None
    content = bytearray(file.size)
    for offset, piece in file.content.items():
        content[offset : offset + len(piece)] = piece
    return bytes(content)
