"""What the frozen values promise as values: immutable, comparable, hashable, convertible."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from pytest_virtio.model.features import Features
from pytest_virtio.model.queue import VirtVhostQueueStatus
from pytest_virtio.model.status import VirtioInfo, VirtioStatus
from pytest_virtio.spec.devices import NET

STATUS = VirtioStatus(
    name="virtio-net",
    device_id=1,
    status=frozenset({"DRIVER"}),
    guest_features=Features(1, NET),
    host_features=Features(1, NET),
    source="test",
    extra={"new-key": [1]},
)
QUEUE = VirtVhostQueueStatus(
    name="virtio-net",
    kick=1,
    call=2,
    num=256,
    desc_phys=0x1000,
    desc_size=4096,
    avail_phys=0x2000,
    avail_size=516,
    used_phys=0x3000,
    used_size=2052,
    source="test",
)


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        STATUS.device_id = 2  # type: ignore[misc]


def test_what_a_source_does_not_tell_is_none() -> None:
    assert STATUS.broken is None
    assert STATUS.vhost_dev is None
    assert QUEUE.desc is None


def test_extra_keys_count_for_equality_and_not_for_the_hash() -> None:
    other = replace(STATUS, extra={})
    assert other != STATUS
    assert hash(other) == hash(STATUS)


def test_convertible_to_a_dictionary() -> None:
    assert asdict(STATUS)["extra"] == {"new-key": [1]}
    assert asdict(STATUS)["guest_features"] == {"CSUM"}


def test_devices_sort_by_path() -> None:
    assert VirtioInfo("/a", "b") < VirtioInfo("/b", "a")
