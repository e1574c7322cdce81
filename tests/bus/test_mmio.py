"""virtio-mmio on a real microvm, version 2 and version 1 (virtio 1.3 sections 4.2.2 and 4.2.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from pytest_virtio import Blk, NotSupportedError, Rng, VirtioFactory
from pytest_virtio.bus.transport import Message
from pytest_virtio.bus.virtio_mmio import MmioDevice
from pytest_virtio.errors import DriverError
from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
from pytest_virtio.guest.scripted.drivers.rng import RngDriver
from pytest_virtio.guest.scripted.guest import ScriptedGuest

from .conftest import place, transport_of, wire_of

pytestmark = pytest.mark.qemu

SECTOR = 512
EMPTY = 0xFEB00000
"""The first place; QEMU fills them from the last."""


@pytest.mark.parametrize("legacy", [False, True])
def test_both_versions_work(virtio_factory: VirtioFactory, legacy: bool) -> None:
    args = ["-global", f"virtio-mmio.force-legacy={'on' if legacy else 'off'}"]
    with virtio_factory(Rng(), Blk(size="1M"), transport="mmio", args=args) as virtio:
        guest = cast(ScriptedGuest, virtio.guest)
        assert transport_of(virtio, "blk0").title.startswith(f"virtio-mmio (version {1 if legacy else 2}) at 0xfeb0")
        assert len(guest.driver("rng0", RngDriver).read(16)) > 0
        blk = guest.driver("blk0", BlkDriver)
        assert ("VIRTIO_F_VERSION_1" in blk.negotiated) is not legacy
        blk.write(3 * SECTOR, b"mmio" * (SECTOR // 4))
        assert blk.read(2 * SECTOR, 3 * SECTOR) == bytes(SECTOR) + b"mmio" * (SECTOR // 4) + bytes(SECTOR)
        assert blk.config().capacity == (1 << 20) // SECTOR


def test_devices_are_where_qemu_says(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng(), Rng(), Blk(), transport="mmio") as virtio:
        tree = virtio.vm.hmp("info qtree")
        for id in ("rng0", "rng1", "blk0"):
            # The board's line of the bus that the device is on, which stands above it.
            before = tree.partition(f'id "{id}"')[0]
            address = int(before.rpartition("mmio ")[2].partition("/")[0], 16)
            assert place(transport_of(virtio, id).status_register) == address + 0x70


def test_a_place_without_a_device(virtio_factory: VirtioFactory) -> None:
    """Its DeviceID is 0."""
    with virtio_factory(Rng(), transport="mmio") as virtio, pytest.raises(DriverError, match="no virtio-mmio device"):
        MmioDevice(wire_of(virtio), EMPTY, None)


def test_there_are_no_messages(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng(), transport="mmio") as virtio:
        device = transport_of(virtio, "rng0")
        assert device.vectors == 0
        attempts: tuple[Callable[[], object], ...] = (
            lambda: device.set_messages((Message(0, 1),)),
            lambda: device.set_config_vector(0),
            lambda: device.set_queue_vector(0, 0),
        )
        for attempt in attempts:
            with pytest.raises(NotSupportedError, match="virtio-mmio has no MSI-X"):
                attempt()
