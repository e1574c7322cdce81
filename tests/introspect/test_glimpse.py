"""Registers through the monitor: the same as by the wire, as far as they tell, and left as they were."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_virtio import Blk, Net, Rng, Serial, Virtio, VirtioFactory
from pytest_virtio.introspect.glimpse import SOURCE, Glimpses
from pytest_virtio.introspect.query import Queries, raised
from pytest_virtio.introspect.quirks import may_have_vhost, survives_status_query
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.vm.deadline import Deadline
from pytest_virtio.vm.qtest import Space
from tests.guest.scripted.conftest import Boot, scripted

__all__ = ("scripted",)


def glimpsed(virtio: Virtio) -> dict[str, VirtioStatus]:
    qemu = virtio._running.qemu
    glimpses = Glimpses(qemu, Queries(qemu).devices(10))
    answers = glimpses.statuses(list(virtio._running.paths.values()), Deadline.after(20))
    return {id: raised(answers[path]) for id, path in virtio._running.paths.items()}


def same(seen: VirtioStatus, told: VirtioStatus) -> None:
    """What both tell is the same."""
    assert (seen.name, seen.device_id, seen.status, seen.source) == (told.name, told.device_id, told.status, SOURCE)
    assert (seen.vm_running, seen.num_vqs or told.num_vqs) == (told.vm_running, told.num_vqs)
    assert seen.host_features <= told.host_features
    if seen.guest_features.untold:
        assert "not survive being asked" in seen.guest_features.untold
    else:
        assert seen.guest_features == told.guest_features
    if not any("to 31" in text or "to 63" in text for text in seen.host_features.texts):
        assert seen.host_features == told.host_features


@pytest.mark.qemu
@pytest.mark.parametrize("boot", [True, False])
@pytest.mark.parametrize("machine", ["q35", "pc"])
@pytest.mark.parametrize("transport", ["pci", "pci-transitional", "pci-legacy"])
def test_pci(scripted: Boot, transport: str, machine: str, boot: bool) -> None:
    with scripted(Net(), Blk(), Serial(), machine=machine, transport=transport, boot=boot) as virtio:
        for id, seen in glimpsed(virtio).items():
            same(seen, virtio[id].status())


@pytest.mark.qemu
def test_a_device_that_nobody_maps_is_at_rest(scripted: Boot) -> None:
    with scripted(Rng(), boot=False) as virtio:
        (seen,) = glimpsed(virtio).values()
        assert (seen.status, seen.guest_features.names, seen.num_vqs) == (frozenset(), (), None)


@pytest.mark.qemu
def test_mmio(scripted: Boot) -> None:
    with scripted(Rng(), Blk(), machine="microvm", transport="mmio") as virtio:
        for id, seen in glimpsed(virtio).items():
            assert seen.status == virtio[id].status().status
            assert seen.guest_features.untold
            assert "bits 0 to 31, bits 32 to 63" in seen.host_features.texts[0]


@pytest.mark.guest
def test_linux(virtio_factory: VirtioFactory) -> None:
    """It leaves the selectors at the second word, and a transitional device shows the first by its header."""
    devices = Net(), Blk(packed="on"), Rng()
    with virtio_factory(*devices, guest="linux", transport="pci-transitional", timeout=120) as virtio:
        for id, seen in glimpsed(virtio).items():
            told = virtio[id].status()
            same(seen, told)
            assert not seen.guest_features.untold
            assert seen.host_features == told.host_features
            assert "VIRTIO_F_VERSION_1" in seen.guest_features


@pytest.mark.qemu
@pytest.mark.parametrize("transport", ["pci", "pci-transitional", "pci-legacy"])
def test_neither_selectors_nor_the_interrupt_status_change(scripted: Boot, transport: str) -> None:
    with scripted(Blk(), transport=transport, interrupts="intx") as virtio:
        driver = virtio.guest.driver("blk0")
        driver.read(0, 512)
        before = list(_registers(virtio))
        for _ in range(3):
            glimpsed(virtio)
        assert list(_registers(virtio)) == before
        assert before


def _registers(virtio: Virtio) -> Iterator[int]:
    """All that a glimpse reads or passes by; the interrupt status by QEMU's own word, which does not clear it."""
    qemu = virtio._running.qemu
    pci = qemu.execute("query-pci")
    assert isinstance(pci, list)
    for function in pci[0]["devices"]:
        for bar in function["regions"] if function["qdev_id"] == "blk0" else ():
            if bar["bar"] in (0, 4) and bar["address"] != -1:
                space: Space = "io" if bar["type"] == "io" else "memory"
                yield from (qemu.qtest.read(space, bar["address"] + at, 2) for at in (0, 2, 8, 10, 14, 16))
    yield virtio["blk0"].status().isr or 0


def test_who_may_have_a_vhost_backend() -> None:
    assert not may_have_vhost("virtio-blk-pci", frozenset())
    assert may_have_vhost("vhost-user-blk-pci", frozenset())
    assert may_have_vhost("virtio-crypto-pci", frozenset())
    assert may_have_vhost("", frozenset())
    assert may_have_vhost("virtio-net-pci", frozenset())
    assert may_have_vhost("virtio-net-pci-non-transitional", frozenset({"user", "tap"}))
    assert not may_have_vhost("virtio-net-pci", frozenset({"user"}))


def test_which_releases_survive_being_asked_untried() -> None:
    known = {version: survives_status_query(version) for version in ("7.2.0", "10.2.2", "11.0.0", "11.1.3", "12.0", "")}
    assert [version for version, survives in known.items() if survives] == ["7.2.0", "10.2.2"]
