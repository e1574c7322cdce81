"""The table of device types, and what their queues are called, against virtio 1.3 section 5."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.spec.devices import DEVICE_TYPES, NET, device_type
from pytest_virtio.spec.devices import __all__ as exported
from pytest_virtio.spec.features import TransportFeature

LINUX_HEADERS = Path("/usr/include/linux")
_FEATURE = re.compile(r"^#define\s+(VIRTIO_(?:\w+_)?F_\w+|VIRTIO_9P_MOUNT_TAG)\s+(\d+)\b", re.MULTILINE)
_ID = re.compile(r"^#define\s+VIRTIO_ID_\w+\s+(\d+)", re.MULTILINE)
_OF = {"9p": 9, "balloon": 5, "blk": 2, "bt": 40, "console": 3, "gpio": 41, "gpu": 16, "i2c": 34, "iommu": 23}
_OF |= {"mem": 24, "net": 1, "scmi": 32, "scsi": 8, "vsock": 19, "config": 1}


def first_names(device_id: int, count: int, features: int = 0) -> list[str]:
    return [names[0] for names in device_type(device_id).queue_names(count, features)]


def test_ids_names_and_titles_are_unique() -> None:
    assert list(DEVICE_TYPES) == [*range(1, 14), *range(16, 46)]
    for attribute in ("id", "name", "title"):
        assert len({getattr(device, attribute) for device in DEVICE_TYPES.values()}) == len(DEVICE_TYPES)


def test_everything_of_the_room_is_exported() -> None:
    for device in DEVICE_TYPES.values():
        assert device.features is None or device.features.__name__ in exported


@pytest.mark.skipif(not (LINUX_HEADERS / "virtio_ids.h").exists(), reason="the kernel's headers aren't installed")
def test_ids_against_linux() -> None:
    ids = {int(found) for found in _ID.findall((LINUX_HEADERS / "virtio_ids.h").read_text())}
    assert ids
    assert ids <= set(DEVICE_TYPES)


@pytest.mark.parametrize("header", _OF)
def test_features_against_linux(header: str) -> None:
    path = LINUX_HEADERS / f"virtio_{header}.h"
    if not path.exists():
        pytest.skip(f"{path} isn't installed")
    found = {name: int(bit) for name, bit in _FEATURE.findall(path.read_text()) if not _is_no_feature(name)}
    assert found
    names = device_type(_OF[header]).feature_names
    assert {name: names.bit(name) for name in found} == found


def _is_no_feature(name: str) -> bool:
    # Flags of requests and headers, and the range of the transport's bits.
    return re.search(r"_(MAP|ATTACH|FAULT|HDR|TRANSPORT)_F_", name) is not None


def test_an_unknown_id_gets_a_generic_type() -> None:
    device = device_type(99)
    assert (device.id, device.name, device.features) == (99, "device-99", None)
    assert device.feature_names.bit("VERSION_1") == TransportFeature.VERSION_1
    assert first_names(99, 2) == ["queue0", "queue1"]


def test_feature_names_are_made_once() -> None:
    assert NET.feature_names is NET.feature_names


@pytest.mark.parametrize(
    ("device_id", "count", "features", "names"),
    [
        (1, 3, 1 << 17, ["rx0", "tx0", "ctrl"]),
        (1, 5, 1 << 17, ["rx0", "tx0", "rx1", "tx1", "ctrl"]),
        (1, 2, 0, ["rx0", "tx0"]),
        (1, 3, 0, ["rx0", "tx0", "queue2"]),
        (1, 1, 1 << 17, ["ctrl"]),
        (1, 2, 1 << 17, ["queue0", "ctrl"]),
        (1, 0, 1 << 17, []),
        (2, 2, 0, ["request0", "request1"]),
        (3, 8, 0, ["rx0", "tx0", "ctrl_rx", "ctrl_tx", "rx1", "tx1", "rx2", "tx2"]),
        (4, 1, 0, ["request"]),
        (4, 2, 0, ["request", "queue1"]),
        (5, 5, 0b101010, ["inflate", "deflate", "stats", "free_page", "reporting"]),
        (5, 3, 0b100000, ["inflate", "deflate", "reporting"]),
        (8, 4, 0, ["ctrl", "event", "request0", "request1"]),
        (16, 2, 0, ["ctrl", "cursor"]),
        (18, 2, 0, ["event", "status"]),
        (19, 3, 0, ["rx", "tx", "event"]),
        (20, 3, 0, ["data0", "data1", "ctrl"]),
        (23, 2, 0, ["request", "event"]),
        (25, 4, 0, ["ctrl", "event", "tx", "rx"]),
        (26, 2, 0, ["hiprio", "request0"]),
        (26, 3, 1, ["hiprio", "notification", "request0"]),
        (41, 2, 1, ["request", "event"]),
    ],
)
def test_queue_names(device_id: int, count: int, features: int, names: list[str]) -> None:
    assert first_names(device_id, count, features) == names


@pytest.mark.parametrize(
    ("device_id", "index", "name"),
    [
        (1, 2, "receiveq2"),
        (1, 4, "controlq"),
        (2, 0, "requestq1"),
        (3, 4, "receiveq(port1)"),
        (3, 2, "control receiveq"),
        (5, 0, "inflateq"),
        (8, 0, "controlq"),
        (24, 0, "guest_request"),
    ],
)
def test_names_of_the_specification(device_id: int, index: int, name: str) -> None:
    assert name in device_type(device_id).queue_names(5, 1 << 17)[index][1:]


@given(st.sampled_from(list(DEVICE_TYPES)), st.integers(0, 70), st.integers(0, (1 << 128) - 1))
def test_every_queue_has_a_name_of_its_own(device_id: int, count: int, features: int) -> None:
    names = device_type(device_id).queue_names(count, features)
    flat = [name for accepted in names for name in accepted]
    assert len(names) == count
    assert len(set(flat)) == len(flat)


@pytest.mark.parametrize(
    ("device_id", "count", "features", "answered"),
    [
        (1, 3, 1 << 17, ["tx0", "ctrl"]),
        (2, 2, 0, ["request0", "request1"]),
        (3, 6, 0, ["tx0", "ctrl_tx", "tx1"]),
        (4, 1, 0, ["request"]),
        (5, 3, 1 << 1, ["inflate", "deflate"]),
        (6, 2, 0, []),
        (8, 3, 0, ["ctrl", "request0"]),
        (18, 2, 0, ["status"]),
        (19, 3, 0, ["tx"]),
        (25, 4, 0, ["ctrl"]),
        (20, 3, 0, ["data0", "data1", "ctrl"]),
    ],
)
def test_queues_that_the_device_answers(device_id: int, count: int, features: int, answered: list[str]) -> None:
    names = first_names(device_id, count, features)
    assert [names[index] for index in device_type(device_id).answered_queues(count, features)] == answered
