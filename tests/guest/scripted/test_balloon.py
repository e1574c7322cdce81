"""The memory balloon: pages given away and taken back, statistics (virtio 1.3 section 5.5).

Oracles: QEMU's ``query-balloon`` and ``guest-stats``, and guest RAM itself: QEMU drops what is in a page given away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from pytest_virtio import Balloon, QueueFullError, RequestTimeoutError, UsageError, Virtio
from pytest_virtio.guest.scripted.drivers.balloon import BalloonDriver
from pytest_virtio.spec.devices.balloon import PAGE_BYTES, BalloonStatTag

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

RAM = 256 << 20
STATS = {"path": "/machine/peripheral/balloon0", "property": "guest-stats"}
INTERVAL = {"path": "/machine/peripheral/balloon0", "property": "guest-stats-polling-interval"}

VARIATIONS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "modern": ({}, {}),
    "packed": ({"packed": "on"}, {}),
    "transitional": ({}, {"transport": "pci-transitional", "legacy": True}),
    "legacy": ({}, {"transport": "pci-legacy"}),
    "mmio": ({}, {"transport": "mmio"}),
    "legacy mmio": ({}, {"transport": "mmio", "args": ["-global", "virtio-mmio.force-legacy=on"]}),
}


def driver_of(virtio: Virtio) -> BalloonDriver:
    return virtio.guest.driver("balloon0", BalloonDriver)


def balloon(virtio: Virtio, ram: int = RAM) -> int:
    """How many pages QEMU takes the balloon to have."""
    actual = cast(dict[str, int], virtio.vm.qmp("query-balloon"))["actual"]
    return (ram - actual) // PAGE_BYTES


def told(virtio: Virtio) -> dict[str, int]:
    """The statistics that QEMU has of the guest; -1 for those that it was not told."""
    return cast(dict[str, dict[str, int]], virtio.vm.qmp("qom-get", STATS))["stats"]


@pytest.mark.parametrize(("properties", "options"), VARIATIONS.values(), ids=VARIATIONS)
def test_pages_come_and_go(scripted: Boot, properties: dict[str, Any], options: dict[str, Any]) -> None:
    """Inflating and deflating, and ``actual`` of configuration space (5.5.6)."""
    with scripted(Balloon(**properties), memory=RAM, **options) as virtio:
        driver = driver_of(virtio)
        first, second = driver.inflate(3), driver.inflate(500)
        assert balloon(virtio) == driver.config().actual == 503
        driver.deflate(first)
        assert balloon(virtio) == driver.config().actual == 500
        assert driver.pages == set(second)
        driver.deflate(second)
        assert balloon(virtio) == 0
        assert status_of(virtio, "balloon0").driver_ok


def test_what_was_in_a_page_is_gone(scripted: Boot) -> None:
    """The device may drop what is in a page of the balloon (5.5.6), and QEMU does."""
    with scripted(Balloon()) as virtio:
        driver = driver_of(virtio)
        for block in (page := driver.allocate(PAGE_BYTES, PAGE_BYTES), kept := driver.allocate(PAGE_BYTES, PAGE_BYTES)):
            driver.memory.write(block, b"x" * PAGE_BYTES)
        driver.free(page)
        assert driver.inflate(1) == (page,)
        assert driver.memory.read(page, PAGE_BYTES) == bytes(PAGE_BYTES)
        assert driver.memory.read(kept, PAGE_BYTES) == b"x" * PAGE_BYTES


def test_free_pages_are_reported(scripted: Boot) -> None:
    """VIRTIO_BALLOON_F_PAGE_REPORTING: what was in the pages is gone, the balloon is as it was (5.5.6.7)."""
    with scripted(Balloon(free_page_reporting="on")) as virtio:
        driver = driver_of(virtio)
        pages = [driver.allocate(PAGE_BYTES, PAGE_BYTES) for _ in range(4)]
        for page in pages:
            driver.memory.write(page, b"x" * PAGE_BYTES)
        driver.report_free(pages[:3])
        assert [driver.memory.read(page, 1) for page in pages] == [b"\0", b"\0", b"\0", b"x"]
        assert balloon(virtio) == 0


def test_the_host_wants_pages(scripted: Boot) -> None:
    """``num_pages`` changes, and a configuration interrupt says so (5.5.6)."""
    with scripted(Balloon(), memory=RAM) as virtio:
        driver = driver_of(virtio)
        assert driver.config().num_pages == 0
        assert not driver.config_interrupted()
        virtio.vm.qmp("balloon", {"value": RAM - 100 * PAGE_BYTES})
        assert driver.config_interrupted()
        assert driver.config().num_pages == 100
        driver.inflate(driver.config().num_pages)
        assert balloon(virtio) == 100


@pytest.mark.parametrize(("properties", "options"), VARIATIONS.values(), ids=VARIATIONS)
def test_statistics(scripted: Boot, properties: dict[str, Any], options: dict[str, Any]) -> None:
    """VIRTIO_BALLOON_F_STATS_VQ: the device keeps a buffer, and asks for others by giving it back (5.5.6.3)."""
    with scripted(Balloon(**properties), memory=RAM, **options) as virtio:
        driver = driver_of(virtio)
        assert told(virtio)["stat-total-memory"] == RAM
        virtio.vm.qmp("qom-set", {**INTERVAL, "value": 1})
        free, swapped = 0x123456789ABC, 77
        driver.answer_stats({BalloonStatTag.MEMFREE: free, BalloonStatTag.SWAP_IN: swapped, 4242: 1})
        stats = told(virtio)
        assert (stats["stat-free-memory"], stats["stat-swap-in"]) == (free, swapped)
        assert driver.queue("stats").completed == 1


def test_nobody_asks_for_statistics(scripted: Boot) -> None:
    """Without an interval QEMU doesn't ask; a wait for that ends."""
    with scripted(Balloon()) as virtio, pytest.raises(RequestTimeoutError, match="stats"):
        driver_of(virtio).answer_stats({BalloonStatTag.MEMFREE: 1}, timeout=0.05)


def test_byte_order_of_a_legacy_device(scripted: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configuration space is little-endian whatever the guest is, unlike the queues (5.5.4)."""
    with scripted(Balloon(), memory=RAM, transport="pci-legacy") as virtio:
        driver = driver_of(virtio)
        monkeypatch.setattr(driver.transport, "order", "big")
        virtio.vm.qmp("balloon", {"value": RAM - 100 * PAGE_BYTES})
        assert driver.config().num_pages == 100
        (page,) = driver.inflate(1)
        assert balloon(virtio) == 1
        assert driver.queue("inflate").completed == 1
        driver.deflate([page])


def test_pages_that_could_not_be_taken_are_there_again(scripted: Boot) -> None:
    """More than guest RAM has, or has left: nothing is given away, and all that was taken can be given away later."""
    with scripted(Balloon(), memory=32 << 20) as virtio:
        driver, most = driver_of(virtio), (32 << 20) // PAGE_BYTES
        with pytest.raises(UsageError, match=rf"inflate\({most + 1}\): 1 to {most} pages"):
            driver.inflate(most + 1)
        with pytest.raises(UsageError, match="guest RAM is used up"):
            driver.inflate(most)
        assert (driver.pages, balloon(virtio, 32 << 20)) == (frozenset(), 0)
        for number in range(1, 8):
            driver.inflate(1000)
            assert balloon(virtio, 32 << 20) == number * 1000


def test_pages_that_could_not_be_told_are_there_again(scripted: Boot) -> None:
    """What finds no room in the queue is not given away: another try has the same pages, and goes."""
    with scripted(Balloon(), memory=32 << 20) as virtio:
        driver, queue = driver_of(virtio), driver_of(virtio).queue("inflate")
        waiting = [queue.submit(bytes(4)) for _ in range(queue.ring.free)]
        taken = set(driver._blocks)
        with pytest.raises(QueueFullError):
            driver.inflate(1)
        assert driver._blocks == taken
        queue.kick()
        for request in waiting:
            queue.wait(request)
        assert len(driver.inflate(1)) == 1


def test_mistakes_of_the_caller(scripted: Boot) -> None:
    """Pages that are not in the balloon, and none at all."""
    with scripted(Balloon()) as virtio:
        driver = driver_of(virtio)
        (page,) = driver.inflate(1)
        with pytest.raises(UsageError, match=r"not 0x1000$"):
            driver.deflate([page, 0x1000])
        with pytest.raises(UsageError, match="not none"):
            driver.deflate([])
        with pytest.raises(UsageError, match=r"inflate\(0\)"):
            driver.inflate(0)
        assert driver.pages == {page}
        assert driver.reset().pages == frozenset()
