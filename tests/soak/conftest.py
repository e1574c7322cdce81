"""What the soak tests share: how long they are, and a guest that is at work while it is observed.

In the normal suite they run at a tenth; ``tox -e soak`` sets ``VIRTIO_SOAK=whole``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import pytest

from pytest_virtio import Virtio
from pytest_virtio.guest.linux import CommandResult

SOAK_SECONDS = 1800.0
LAST_ROUND_SECONDS = 60.0
STOP = "/tmp/stop"
"""The guest's work ends when this file is there."""


def rounds(whole: int) -> int:
    """How often a thing is done in this run."""
    asked = os.environ.get("VIRTIO_SOAK", "")
    if asked not in ("", "whole"):
        raise pytest.UsageError(f"VIRTIO_SOAK={asked!r}: 'whole' is expected, or nothing, which means a tenth")
    return whole if asked else whole // 10


class Work:
    """Shell scripts that run in the guest side by side, until they are told to stop."""

    def __init__(self, virtio: Virtio, scripts: tuple[str, ...], threads: ThreadPoolExecutor) -> None:
        self._virtio = virtio
        self._running = [threads.submit(virtio.guest.run, script, SOAK_SECONDS) for script in scripts]

    @property
    def goes_on(self) -> bool:
        """Whether none of them has ended yet."""
        return not any(script.done() for script in self._running)

    def finish(self) -> list[str]:
        """Tell them to stop; what each of them said. Each does one more round first."""
        self._virtio.guest.run(f"touch {STOP}", timeout=60)
        return [_said(script) for script in self._running]


def _said(script: Future[CommandResult]) -> str:
    wait([script], LAST_ROUND_SECONDS)
    assert script.done(), f"the guest's work has not ended within {LAST_ROUND_SECONDS:g} s: some request hangs"
    result = script.result()
    assert result.exit_status == 0, result.text
    return result.text.strip()


@contextmanager
def work(virtio: Virtio, *scripts: str) -> Iterator[Work]:
    """Have the guest work. A script that hangs ends with the VM, not before."""
    threads = ThreadPoolExecutor(len(scripts))
    try:
        yield Work(virtio, scripts, threads)
    finally:
        threads.shutdown(wait=False)
