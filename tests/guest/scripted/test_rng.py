"""The entropy device: what comes back is random, and of the length that was asked for (virtio 1.3 section 5.4)."""

from __future__ import annotations

import pytest

from pytest_virtio import Rng

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu


def test_it_gives_bytes(scripted: Boot) -> None:
    with scripted(Rng()) as virtio:
        driver = virtio.guest.driver("rng0")
        first, second = driver.read(64), driver.read(64)
        assert 1 <= len(first) <= 64
        assert first != second
        assert status_of(virtio, "rng0").driver_ok
