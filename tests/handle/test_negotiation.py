"""``dev.negotiation()``: the sides of a feature's negotiation, with a real driver, device and vhost backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_virtio import Driver, Rng, VhostUserBlk, Virtio, VirtioAssertionError, VirtioFactory, render
from pytest_virtio.model.negotiation import Difference, FeatureNegotiation


@pytest.fixture
def virtio(virtio_factory: VirtioFactory) -> Iterator[Virtio]:
    with virtio_factory(VhostUserBlk(), Rng()) as virtio:
        yield virtio


def rows(virtio: Virtio, id: str = "vublk0") -> dict[str, FeatureNegotiation]:
    return {row.feature: row for row in virtio[id].negotiation()}


def negotiate(virtio: Virtio, *features: str) -> None:
    driver: Driver = virtio.guest.driver("vublk0")
    driver.reset().acknowledge().driver().negotiate(set(features)).features_ok().setup_queues().driver_ok()


def tells(virtio: Virtio) -> bool:
    """Whether this QEMU tells what it told the backend; 11.1 can't be asked."""
    return virtio["vublk0"].status().vhost_dev is not None


def section(virtio: Virtio, title: str) -> list[str]:
    return next(section.text for section in virtio.report() if section.title == title).splitlines()


def test_all_sides(virtio: Virtio) -> None:
    told = True if tells(virtio) else None
    found = rows(virtio)
    flush, multiqueue = found["VIRTIO_BLK_F_FLUSH"], found["VIRTIO_BLK_F_MQ"]
    assert (flush.offered, flush.acknowledged, flush.backend_offers, flush.backend_told) == (True, True, True, told)
    assert (multiqueue.offered, multiqueue.acknowledged, multiqueue.backend_offers) == (False, False, True)
    assert (multiqueue.option, flush.option) == ("num-queues=1", "")
    assert not {row.difference for row in found.values()} & {Difference.NOT_PASSED_ON, Difference.NOT_BACKENDS}


def test_a_device_without_backend(virtio: Virtio) -> None:
    found = rows(virtio, "rng0")
    assert {(row.backend_offers, row.backend_told) for row in found.values()} == {(None, None)}
    assert list(found) == list(virtio["rng0"].status().host_features)
    header, *_ = render.negotiation(found.values())
    assert header.split() == ["feature", "device", "driver"]


def test_the_backend_is_told_what_the_driver_acknowledged(virtio: Virtio) -> None:
    negotiate(virtio, "VERSION_1", "FLUSH", "NOTIFY_ON_EMPTY")
    found = rows(virtio).values()
    acknowledged = {row.feature for row in found if row.acknowledged}
    assert acknowledged == {"VIRTIO_F_VERSION_1", "VIRTIO_BLK_F_FLUSH", "VIRTIO_F_NOTIFY_ON_EMPTY"}
    assert {row.feature for row in found if row.backend_told} == (acknowledged if tells(virtio) else set())


def test_the_report_shows_where_the_sides_differ(virtio: Virtio) -> None:
    negotiate(virtio, "VERSION_1", "FLUSH")
    lines = section(virtio, "virtio: vublk0")
    table = lines[lines.index("negotiation, where the sides differ:") + 1 :]
    told = tells(virtio)
    assert table[0].split("  ")[1].strip() == "feature"
    assert table[0].endswith("backend told" if told else "backend offers")
    declined = next(line for line in table if "VIRTIO_BLK_F_CONFIG_WCE" in line)
    assert declined.split() == ["VIRTIO_BLK_F_CONFIG_WCE", "yes", "no", "yes", *(["no"] if told else [])]
    assert not any(line.startswith("  VIRTIO_BLK_F_FLUSH ") for line in table)


def test_an_assertion_says_what_the_backend_made_of_it(virtio: Virtio) -> None:
    with pytest.raises(VirtioAssertionError) as error:
        virtio["vublk0"].assert_negotiated("MQ", "ZONED")
    told = ", was told none of these" if tells(virtio) else ""
    assert f"\n  backend: offers VIRTIO_BLK_F_MQ{told}\n" in str(error.value)
    with pytest.raises(VirtioAssertionError) as error:
        virtio["rng0"].assert_negotiated("RING_PACKED")
    assert "backend" not in str(error.value)
