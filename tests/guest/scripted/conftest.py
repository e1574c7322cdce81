"""What the tests of the scripted guest share: VMs that take milliseconds, on the QEMU that ``--virtio-qemu`` names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from pytest_virtio import Declaration, MissingError, Scripted, Virtio, VirtioFactory
from pytest_virtio.model.status import VirtioStatus

Boot = Callable[..., AbstractContextManager[Virtio]]


@pytest.fixture(scope="session")
def scripted(virtio_factory: VirtioFactory) -> Boot:
    """``with scripted(Blk(), without={"MQ"}, machine="pc") as virtio:``; a device that this QEMU has not skips."""
    own = {"features", "without", "legacy", "interrupts"}

    @contextmanager
    def boot(*devices: Declaration, **options: Any) -> Iterator[Virtio]:
        guest = Scripted(**{name: value for name, value in options.items() if name in own})
        others = {name: value for name, value in options.items() if name not in own}
        block = virtio_factory(*devices, guest=guest, **others)
        try:
            virtio = block.__enter__()
        except MissingError as error:
            pytest.skip(str(error))
        try:
            yield virtio
        finally:
            block.__exit__(None, None, None)

    return boot


def status_of(virtio: Virtio, id: str) -> VirtioStatus:
    """QEMU's own view of a device, the oracle of many tests."""
    return virtio[id].status()
