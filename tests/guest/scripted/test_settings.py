"""What a test says of its guest is what the devices see: features, what is left out, which devices are driven."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_virtio import (
    P9,
    Balloon,
    Blk,
    Crypto,
    Gpu,
    Iommu,
    Keyboard,
    Mem,
    Mouse,
    Net,
    Pmem,
    Rng,
    Scsi,
    Serial,
    Sound,
    Tablet,
    UnknownNameError,
    UsageError,
    Virtio,
)
from pytest_virtio.guest.scripted import drivers
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.blk import BlkDriver
from pytest_virtio.guest.scripted.drivers.rng import RngDriver
from pytest_virtio.guest.scripted.guest import ScriptedGuest

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

EVERYTHING = (
    *(Net(), Blk(), Rng(), Balloon(), Serial(), Scsi(), Keyboard(), Mouse(), Tablet(), Gpu()),
    *(Crypto(), Iommu(), Mem(), Pmem(), P9()),
)
ON_MMIO = tuple(declaration for declaration in EVERYTHING if declaration.kind not in {"mem", "pmem", "iommu"})
TRANSITIONAL = (Net(), Blk(), Rng(), Balloon(), Serial(), Scsi(), P9())
ON = {"pci": EVERYTHING, "mmio": ON_MMIO, "pci-transitional": TRANSITIONAL, "pci-legacy": TRANSITIONAL}


def guest_of(virtio: Virtio) -> ScriptedGuest:
    assert isinstance(virtio.guest, ScriptedGuest)
    return virtio.guest


def test_exactly_these_features(scripted: Boot) -> None:
    with scripted(Blk(), Rng(), features={"blk0": {"VERSION_1", "VIRTIO_BLK_F_RO", 9}}) as virtio:
        driver = virtio.guest.driver("blk0", BlkDriver)
        assert driver.negotiated == {"VERSION_1", "VIRTIO_BLK_F_RO", "VIRTIO_BLK_F_FLUSH"}
        assert "EVENT_IDX" in virtio.guest.driver("rng0", RngDriver).negotiated
        # RO was not offered: QEMU drops it.
        assert status_of(virtio, "blk0").guest_features == {"VERSION_1", "VIRTIO_BLK_F_FLUSH"}


def test_what_is_left_out_of_one_device(scripted: Boot) -> None:
    with scripted(Blk(), Rng(), without={"blk0": ["EVENT_IDX"]}) as virtio:
        assert "EVENT_IDX" not in virtio.guest.driver("blk0", BlkDriver).negotiated
        assert "EVENT_IDX" in virtio.guest.driver("rng0", RngDriver).negotiated


def test_what_is_left_out_of_those_that_can_have_it(scripted: Boot) -> None:
    """A name that one type has counts for it; ``MQ`` means something else to another, and nothing to a third."""
    with scripted(Blk(num_queues=2), Net(), Rng(), without=["VIRTIO_BLK_F_MQ", "INDIRECT_DESC"]) as virtio:
        assert not virtio.guest.driver("blk0", BlkDriver).negotiated & {"VIRTIO_BLK_F_MQ", "INDIRECT_DESC"}
        assert "INDIRECT_DESC" not in virtio.guest.driver("rng0", RngDriver).negotiated


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": {"blk1": set()}}, "unknown device in Scripted(features=...): 'blk1'. Did you mean 'blk0'?"),
        ({"without": {"rng": set()}}, "unknown device in Scripted(without=...): 'rng'. Did you mean 'rng0'?"),
        (
            {"features": {"blk0": {"VIRTIO_BLK_F_FLUHS"}}},
            "unknown feature of block device: 'VIRTIO_BLK_F_FLUHS'. Did you mean 'VIRTIO_BLK_F_FLUSH'",
        ),
        (
            {"without": {"rng0": {"VERSION_2"}}},
            "unknown feature of entropy device: 'VERSION_2'. Did you mean 'VERSION_1'",
        ),
        ({"without": ["EVENT_IDX", "EVENT_INDEX"]}, "'EVENT_INDEX'. Did you mean"),
    ],
)
def test_names_that_nothing_answers_to(scripted: Boot, settings: dict[str, Any], message: str) -> None:
    """Found before any device is touched, at the line that boots the VM."""
    with pytest.raises(UnknownNameError, match=re.escape(message)), scripted(Blk(), Rng(), **settings):
        pytest.fail("the VM must not start")


@pytest.mark.parametrize("setting", ["features", "without"])
def test_a_type_that_is_no_feature(scripted: Boot, setting: str) -> None:
    with (
        pytest.raises(UsageError, match="not a feature of block device: None"),
        scripted(Blk(), **{setting: {"blk0": [None]}}),
    ):
        pytest.fail("the VM must not start")


# Which devices are driven.


def test_a_device_that_is_not_to_be_driven_is_left_alone(scripted: Boot) -> None:
    with scripted(Rng(), Blk(driver=None)) as virtio:
        idle = virtio.guest.driver("blk0", BlkDriver)
        assert (idle.status(), len(idle.history)) == (frozenset(), 0)
        assert not status_of(virtio, "blk0").status
        idle.initialise().write(0, bytes(512))
        assert status_of(virtio, "blk0").driver_ok


@pytest.mark.parametrize("transport", ON)
def test_every_declared_device_is_at_driver_ok(scripted: Boot, transport: str) -> None:
    """The default of every test: all devices are live when its body starts."""
    with scripted(*ON[transport], transport=transport) as virtio:
        assert len(guest_of(virtio).drivers) == len(ON[transport])
        for driver in guest_of(virtio).drivers:
            assert {"DRIVER_OK"} <= driver.status(), driver
        for device in virtio:
            assert status_of(virtio, device.id).driver_ok, device


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_every_declared_device_and_sound(scripted: Boot, machine: str) -> None:
    """Sound came with QEMU 8.2."""
    with scripted(*EVERYTHING, Sound(), machine=machine) as virtio:
        assert all({"DRIVER_OK"} <= driver.status() for driver in guest_of(virtio).drivers)
        assert len(guest_of(virtio).drivers) == 16


def test_types_without_a_driver_of_their_own(scripted: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generic driver brings any device up: every queue is there, and nothing is asked of it."""
    monkeypatch.setattr(drivers, "_CLASSES", {})
    # Without UNPLUGGED_INACCESSIBLE, which a driver must understand, QEMU 10.0 has no virtio-mem.
    with scripted(*(declaration for declaration in EVERYTHING if declaration.kind != "mem")) as virtio:
        for driver in guest_of(virtio).drivers:
            assert type(driver) is Driver
            assert {"DRIVER_OK"} <= driver.status(), driver
            assert driver.queues, driver
