"""A boot takes seconds, so tests that only look share one: a fixture of wider scope over ``virtio_factory``."""

from collections.abc import Iterator

import pytest

from pytest_virtio import Blk, Net, Rng, Virtio, VirtioFactory


@pytest.fixture(scope="session")
def linux(virtio_factory: VirtioFactory) -> Iterator[Virtio]:
    """A Linux guest with a network card, a disk and an entropy device, all at DRIVER_OK."""
    with virtio_factory(Net(), Blk(size="64M"), Rng(), guest="linux") as virtio:
        yield virtio
