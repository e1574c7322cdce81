"""What the network card and its driver agree on is committed beside this file, and a change of it turns CI red."""

from __future__ import annotations

import pytest

from pytest_virtio import Net, Virtio


# A versioned machine type: what QEMU adds to newer ones is no difference here.
@pytest.mark.virtio(Net(), machine="pc-q35-7.2")
def test_negotiation(virtio: Virtio) -> None:
    virtio.assert_baseline()
