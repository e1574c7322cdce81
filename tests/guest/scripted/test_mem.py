"""The memory device: blocks are plugged and unplugged (virtio 1.3 section 5.15).

Oracle: QEMU's ``query-memory-devices``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_virtio import Mem, RequestFailedError, UsageError, Virtio
from pytest_virtio.guest.scripted.drivers.mem import MemDriver
from pytest_virtio.spec.devices.mem import MemState

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

BLOCK = 2 << 20
BLOCKS = 64


def request(virtio: Virtio, size: int) -> None:
    """What the host wants the guest to have."""
    virtio.vm.qmp("qom-set", {"path": "/machine/peripheral/mem0", "property": "requested-size", "value": size})


def listed(virtio: Virtio) -> dict[str, Any]:
    (device,) = cast(list[dict[str, Any]], virtio.vm.qmp("query-memory-devices"))
    return cast(dict[str, Any], device["data"])


@contextmanager
def booted(scripted: Boot, **options: Any) -> Iterator[tuple[Virtio, MemDriver, int]]:
    """A VM with 128 MiB to plug in blocks of 2 MiB, all of which the host wants plugged; where they are."""
    with scripted(Mem(block_size="2M"), **options) as virtio:
        request(virtio, BLOCKS * BLOCK)
        yield virtio, (driver := virtio.guest.driver("mem0", MemDriver)), driver.config().addr


def test_its_configuration(scripted: Boot) -> None:
    """Where the memory is and how much of it there is (5.15.4)."""
    with booted(scripted) as (virtio, driver, _):
        config, seen = driver.config(), listed(virtio)
        assert (config.addr, config.block_size) == (seen["memaddr"], BLOCK)
        assert (config.region_size, config.requested_size) == (seen["max-size"], seen["requested-size"])
        assert config.plugged_size == seen["size"] == 0
        assert status_of(virtio, "mem0").driver_ok


def test_blocks_are_plugged_and_unplugged(scripted: Boot) -> None:
    """PLUG, UNPLUG and UNPLUG_ALL (5.15.6.3 to 5.15.6.5)."""
    with booted(scripted) as (virtio, driver, start):
        driver.plug(start, 3)
        driver.plug(start + 10 * BLOCK)
        assert listed(virtio)["size"] == driver.config().plugged_size == 4 * BLOCK
        driver.unplug(start + BLOCK, 2)
        assert listed(virtio)["size"] == driver.config().plugged_size == 2 * BLOCK
        driver.unplug_all()
        assert listed(virtio)["size"] == driver.config().plugged_size == 0


def test_the_state_of_blocks(scripted: Boot) -> None:
    """STATE: plugged, unplugged or both (5.15.6.6)."""
    with booted(scripted) as (_, driver, start):
        driver.plug(start + 2 * BLOCK, 2)
        assert driver.state(start + 2 * BLOCK, 2) is MemState.PLUGGED
        assert driver.state(start, 2) is MemState.UNPLUGGED
        assert driver.state(start + BLOCK, 2) is MemState.MIXED


def test_the_host_wants_another_size(scripted: Boot) -> None:
    """``requested_size`` changes, and a configuration interrupt says so (5.15.5, 5.15.6)."""
    with booted(scripted) as (virtio, driver, start):
        driver.config_interrupted()
        assert not driver.config_interrupted()
        request(virtio, 8 * BLOCK)
        assert driver.config_interrupted()
        assert driver.config().requested_size == 8 * BLOCK
        driver.plug(start, 8)
        with pytest.raises(RequestFailedError, match="NACK"):
            driver.plug(start + 8 * BLOCK)
        assert listed(virtio)["size"] == 8 * BLOCK


def test_requests_that_the_device_refuses(scripted: Boot) -> None:
    """ERROR for what is out of the region, not aligned, or in the other state already (5.15.6.3 to 5.15.6.6)."""
    with booted(scripted) as (virtio, driver, start):
        driver.plug(start)
        with pytest.raises(RequestFailedError) as caught:
            driver.plug(start)
        assert (caught.value.step, caught.value.seen) == (f"PLUG of 1 blocks at {start:#x}", "0x3 (ERROR)")
        for address, blocks in ((start + BLOCK // 2, 1), (start - BLOCK, 1), (start, 0), (start, BLOCKS + 1)):
            with pytest.raises(RequestFailedError, match="ERROR"):
                driver.unplug(address, blocks)
            with pytest.raises(RequestFailedError, match="ERROR"):
                driver.state(address, blocks)
        with pytest.raises(UsageError, match="nb_blocks: 65536"):
            driver.plug(start, 1 << 16)
        assert listed(virtio)["size"] == BLOCK


def test_a_packed_ring(scripted: Boot) -> None:
    """The same requests by a packed ring (2.8)."""
    with scripted(Mem(packed="on")) as virtio:
        request(virtio, BLOCKS * BLOCK)
        driver = virtio.guest.driver("mem0", MemDriver)
        driver.plug(driver.config().addr, 2)
        assert listed(virtio)["size"] == 2 * driver.config().block_size


@pytest.mark.parametrize(
    ("written", "said"),
    [(b"", "too short"), (bytes(9), "too short"), (b"\x4d" + bytes(9), "means nothing"), (bytes(8) + b"\3\0", "state")],
)
def test_answers_that_make_no_sense(scripted: Boot, monkeypatch: pytest.MonkeyPatch, written: bytes, said: str) -> None:
    """What a device of another kind might write (5.15.6)."""
    with booted(scripted) as (_, driver, start):
        answer = SimpleNamespace(written=written)
        monkeypatch.setattr(driver, "queue", lambda which: SimpleNamespace(request=lambda *_, **__: answer))
        with pytest.raises(RequestFailedError, match=said):
            driver.state(start)
