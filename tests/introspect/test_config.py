"""Constant fields of configuration space, against what the scripted driver reads by its own transport, on real QEMU."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_virtio import P9, Blk, Crypto, Net, Rng, Scripted, Scsi, Serial, VhostUserBlk, Virtio, VirtioFactory
from pytest_virtio.bus.observed_device_config import _unchanged
from pytest_virtio.introspect.config import Constants, constant_configs
from pytest_virtio.introspect.quirks import asks_backend_for_config
from pytest_virtio.spec.devices import BlkFeature, NetFeature
from pytest_virtio.spec.devices.config import CONFIGS, DeviceConfig
from pytest_virtio.spec.devices.iommu import IommuConfig, IommuRange32, IommuRange64

DEVICES = (Net(host_mtu=1400), Blk(), Serial(), Scsi(), P9())

WAYS = [
    pytest.param("pci", {}, {}, id="pci"),
    pytest.param("pci", {}, {"machine": "pc"}, id="pc"),
    pytest.param("mmio", {}, {}, id="mmio"),
    pytest.param("pci-transitional", {}, {}, id="transitional-modern"),
    pytest.param("pci-transitional", {"legacy": True}, {}, id="transitional-legacy"),
    # With MSI-X, two registers stand before the configuration of the legacy interface (4.1.4.10).
    pytest.param("pci-legacy", {}, {}, id="legacy-msix"),
    pytest.param("pci-legacy", {"interrupts": "intx"}, {}, id="legacy-intx"),
]


def constants(virtio: Virtio) -> dict[str, Constants]:
    running = virtio._running
    statuses = {device.path: device.status() for device in virtio}
    found = constant_configs(running.qemu, running.qemu.qtest, running.calm, statuses, 10)
    return {device.id: found[device.path] for device in virtio if device.path in found}


@pytest.mark.qemu
@pytest.mark.parametrize(("transport", "settings", "options"), WAYS)
def test_as_the_driver_reads_it(
    virtio_factory: VirtioFactory, transport: str, settings: dict[str, Any], options: dict[str, Any]
) -> None:
    with virtio_factory(*DEVICES, guest=Scripted(**settings), transport=transport, **options) as virtio:
        found = constants(virtio)
        assert found.keys() == {"net0", "blk0", "serial0", "scsi0", "p90"}
        assert (found["net0"]["mac"], found["net0"]["mtu"]) == ("52:54:00:12:34:56", 1400)
        for id, fields in found.items():
            config, bits = CONFIGS[virtio[id].status().device_id], virtio[id].status().host_features.bits
            driver = virtio.guest.driver(id)
            data = driver.transport.read_config(0, config.layout.size())
            whole = config.constants(data, bits)
            assert fields == whole
            assert id != "blk0" or fields["write_zeroes_may_unmap"] == 1
            assert fields


@pytest.mark.qemu
def test_before_firmware_there_is_no_place_to_read(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), Rng(), boot=False) as virtio:
        assert constants(virtio) == {}


@pytest.mark.qemu
def test_of_a_backend_that_stands_still(virtio_factory: VirtioFactory) -> None:
    """QEMU holds this type's configuration: reading it does not hang."""
    with virtio_factory(VhostUserBlk()) as virtio:
        running = constants(virtio)
        virtio["vublk0"].backend.stop()
        assert constants(virtio) == running
        assert running["vublk0"]["capacity"]
        virtio["vublk0"].backend.cont()


@pytest.mark.parametrize(
    ("type", "asks"),
    [
        ("virtio-net-pci", False),
        ("vhost-user-blk-pci-non-transitional", False),
        ("vhost-user-fs-device", False),
        ("vhost-user-rng-pci", True),
        ("vhost-user-gpu", True),
        ("vhost-user-next-year-pci", True),
        ("", True),
    ],
)
def test_whom_qemu_asks(type: str, asks: bool) -> None:
    assert asks_backend_for_config(type) is asks


def test_a_configuration_that_changes_is_read_again() -> None:
    generations, reads = iter([1, 2, 2]), iter([b"torn", b"whole"])
    assert _unchanged(lambda: next(generations), lambda: next(reads)) == b"whole"


def test_one_that_never_stops_changing() -> None:
    generations = iter(range(100))
    assert _unchanged(lambda: next(generations), lambda: b"") is None


def fields_of(id: int, data: bytes, *features: int) -> Constants:
    return CONFIGS[id].constants(data, sum(1 << bit for bit in features))


def test_a_field_is_there_with_its_feature_only() -> None:
    assert fields_of(1, bytes(range(24))) == {}
    assert fields_of(1, bytes(range(24)), NetFeature.MAC) == {"mac": "00:01:02:03:04:05"}
    assert "status" not in fields_of(1, bytes(24), NetFeature.STATUS)
    either = [fields_of(1, bytes(24), feature) for feature in (NetFeature.MQ, NetFeature.RSS)]
    assert all("max_virtqueue_pairs" in fields for fields in either)


def test_a_field_beyond_the_end_is_absent() -> None:
    assert fields_of(2, bytes(8), BlkFeature.SEG_MAX) == {"capacity": 0}


def test_structures_inside_and_what_drivers_write() -> None:
    layout = IommuConfig(0x1000, IommuRange64(1, 2), IommuRange32(3, 4), 5, 1, b"\0\0\0")
    assert fields_of(23, layout.pack(), 0) == {"page_size_mask": 0x1000, "input_range.start": 1, "input_range.end": 2}


def test_text_is_text_whatever_is_in_it() -> None:
    assert fields_of(26, b"my\xfffs".ljust(36, b"\0") + bytes(8)) == {"tag": "my\\xfffs", "num_request_queues": 0}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=lambda config: config.layout.__name__)
def test_the_table_names_fields_that_there_are(config: DeviceConfig) -> None:
    inside = [getattr(config.layout.unpack(b""), name) for name in config.layout.names()]
    parts = {part for value in inside if hasattr(value, "names") for part in value.names()}
    names = {*config.layout.names(), *parts}
    assert {*config.needs, *config.volatile, *config.text} <= names


@pytest.mark.qemu
def test_crypto(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Crypto()) as virtio:
        assert "status" not in constants(virtio)["crypto0"]
        assert constants(virtio)["crypto0"]["max_dataqueues"] == 1
