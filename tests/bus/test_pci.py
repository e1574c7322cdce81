"""PCI as firmware would leave it; QEMU says where everything is."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import pytest

from pytest_virtio import Blk, Declaration, Device, Net, NotSupportedError, Rng, Scripted, UsageError, VirtioFactory
from pytest_virtio.bus.config_space import PciAddress
from pytest_virtio.bus.pci import Function, PciHost, Range
from pytest_virtio.guest.scripted.driver import Driver
from pytest_virtio.guest.scripted.drivers.rng import RngDriver
from pytest_virtio.guest.scripted.guest import ScriptedGuest
from pytest_virtio.handle import Virtio

from .conftest import common_configurations, pci_functions, place, regions, transport_of, wire_of

BRIDGE = ["-global", "pci-bridge.chassis_nr=1"]
"""It needs the property; the declaration below has none of it."""


def driver(virtio: Virtio, id: str) -> RngDriver:
    return cast(ScriptedGuest, virtio.guest).driver(id, RngDriver)


def works(virtio: Virtio, *ids: str) -> bool:
    """Whether each device answers a request of its own."""
    return all(driver(virtio, id).read(16) for id in ids)


def root_ports(count: int) -> list[Declaration]:
    return [Device("pcie-root-port", id=f"rp{n}", chassis=n + 1) for n in range(count)]


@pytest.mark.qemu
@pytest.mark.parametrize("machine", ["q35", "pc"])
@pytest.mark.parametrize("transport", ["pci", "pci-transitional"])
def test_twenty_devices(virtio_factory: VirtioFactory, machine: str, transport: str) -> None:
    """No two share an address, and each is where QEMU says (PCI 3.0 section 6.2.5.1, virtio 1.3 section 4.1.4)."""
    ids = [f"rng{n}" for n in range(20)]
    with virtio_factory(*(Rng() for _ in ids), machine=machine, transport=transport) as virtio:
        ours = sorted(place(transport_of(virtio, id).status_register) - 0x14 for id in ids)
        assert ours == common_configurations(virtio)
        for space in ("memory", "io"):
            bars = [bar for id in ids for bar in regions(virtio, id).values() if bar[0] == space]
            ends = sorted((address, address + size) for _, address, size in bars)
            assert all(end <= start for (_, end), (start, _) in pairwise(ends))
            assert all(address % size == 0 for _, address, size in bars)
        assert works(virtio, *ids)


@pytest.mark.qemu
@pytest.mark.parametrize("transport", ["pci", "pci-transitional", "pci-legacy"])
def test_bars_are_what_qemu_says(virtio_factory: VirtioFactory, transport: str) -> None:
    with virtio_factory(Blk(), Net(), transport=transport, guest=Scripted(legacy=transport == "pci-legacy")) as virtio:
        host = PciHost(wire_of(virtio))
        for id in ("blk0", "net0"):
            found = next(function for function in pci_functions(virtio) if function["qdev_id"] == id)
            address = PciAddress(found["bus"], found["slot"], found["function"])
            function = Function(host, address)
            bars = function.map_bars(function.config())
            host.wire.flush()
            assert {number: tuple(bar) for number, bar in bars.items()} == regions(virtio, id)


@pytest.mark.qemu
@pytest.mark.parametrize("size", ["64M", "8G"])
def test_a_large_bar(virtio_factory: VirtioFactory, size: str) -> None:
    """What has no room below 4 GiB goes above; ivshmem's BAR 2 is as large as its memory."""
    args = [
        *("-object", f"memory-backend-ram,id=shared,size={size},reserve=off"),
        *("-device", "ivshmem-plain,id=large,memdev=shared"),
    ]
    with virtio_factory(Rng(), args=args) as virtio:
        host = PciHost(wire_of(virtio))
        found = next(function for function in pci_functions(virtio) if function["qdev_id"] == "large")
        function = Function(host, PciAddress(found["bus"], found["slot"], found["function"]))
        bars = function.map_bars(function.config())
        host.wire.flush()
        assert {number: tuple(bar) for number, bar in bars.items()} == regions(virtio, "large")
        assert (bars[2].address >= 1 << 32) == (size == "8G")


@pytest.mark.qemu
@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_functions_of_one_slot(virtio_factory: VirtioFactory, machine: str) -> None:
    several = [Rng(id=f"f{n}", addr=f"5.{n}", multifunction="on") for n in range(8)]
    with virtio_factory(*several, machine=machine) as virtio:
        assert works(virtio, *(f"f{n}" for n in range(8)))
        assert {transport_of(virtio, f"f{n}").title for n in range(8)} == {
            f"virtio-pci (modern) at 00:05.{n}" for n in range(8)
        }


@pytest.mark.qemu
def test_behind_root_ports(virtio_factory: VirtioFactory) -> None:
    """Each port has a bus and windows of its own (PCI-to-PCI Bridge Architecture 1.2, section 3.2)."""
    behind = [Rng(bus=f"rp{n}") for n in range(3)]
    with virtio_factory(*root_ports(3), *behind, Rng(id="root"), machine="q35") as virtio:
        assert works(virtio, "rng0", "rng1", "rng2", "root")
        assert [transport_of(virtio, f"rng{n}").title[-7:] for n in range(3)] == ["01:00.0", "02:00.0", "03:00.0"]
        ours = sorted(place(transport_of(virtio, id).status_register) - 0x14 for id in ("rng0", "rng1", "rng2", "root"))
        assert ours == common_configurations(virtio)


@pytest.mark.qemu
@pytest.mark.parametrize("machine", ["q35", "pc"])
@pytest.mark.parametrize("transport", ["pci", "pci-transitional", "pci-legacy"])
def test_behind_a_bridge(virtio_factory: VirtioFactory, machine: str, transport: str) -> None:
    behind = [Rng(bus="br0", addr=f"{slot:#x}") for slot in (1, 9)]
    guest = Scripted(legacy=transport != "pci")
    with virtio_factory(
        Device("pci-bridge", id="br0"), *behind, machine=machine, transport=transport, guest=guest, args=BRIDGE
    ) as virtio:
        assert works(virtio, "rng0", "rng1")
        assert ("legacy" in transport_of(virtio, "rng0").title) == (transport != "pci")


@pytest.mark.qemu
def test_bridges_leave_room_on_the_root_bus(virtio_factory: VirtioFactory) -> None:
    """There is I/O space for three bridges only; what is on the root bus needs some too."""
    with virtio_factory(*root_ports(6), Rng(), transport="pci-transitional", guest=Scripted(legacy=True)) as virtio:
        assert works(virtio, "rng0")


@pytest.mark.qemu
def test_behind_two_bridges(virtio_factory: VirtioFactory) -> None:
    bridges = Device("pci-bridge", id="br0"), Device("pci-bridge", id="br1", bus="br0")
    with (
        pytest.raises(NotSupportedError, match=r"br1: the scripted guest reaches .* not those behind a second bridge"),
        virtio_factory(*bridges, Rng(bus="br1"), machine="pc", args=BRIDGE),
    ):
        pass


@pytest.mark.qemu
@pytest.mark.parametrize("legacy", [False, True])
def test_a_transitional_device_has_both_interfaces(virtio_factory: VirtioFactory, legacy: bool) -> None:
    """It is driven by the one that was asked for, and QEMU knows by which (virtio 1.3 section 2.2.3)."""
    with virtio_factory(Rng(), transport="pci-transitional", guest=Scripted(legacy=legacy)) as virtio:
        assert transport_of(virtio, "rng0").legacy is legacy
        assert works(virtio, "rng0")
        negotiated = cast(Driver, driver(virtio, "rng0")).negotiated
        assert ("VIRTIO_F_VERSION_1" in negotiated) is not legacy


@pytest.mark.qemu
def test_a_legacy_device_has_one(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng(), transport="pci-legacy") as virtio:
        assert transport_of(virtio, "rng0").legacy
        assert works(virtio, "rng0")
        assert regions(virtio, "rng0")[0][0] == "io"
        # BAR 0 as its name in messages has it.
        assert place(transport_of(virtio, "rng0").status_register) == regions(virtio, "rng0")[0][1] + 0x12


@pytest.mark.qemu
def test_devices_without_an_id_are_left_alone(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Rng(), args=["-device", "virtio-rng-pci", "-device", "virtio-rng-pci,id=more"]) as virtio:
        assert {one.id for one in cast(ScriptedGuest, virtio.guest).drivers} == {"rng0", "more"}
        driver(virtio, "more").initialise()
        assert works(virtio, "rng0", "more")


@pytest.mark.qemu
@pytest.mark.parametrize("transport", ["pci", "pci-legacy", "mmio"])
def test_the_configuration_ends_where_it_ends(virtio_factory: VirtioFactory, transport: str) -> None:
    """Beyond it there is something else, which a write must not reach."""
    with virtio_factory(Blk(), transport=transport) as virtio:
        device = transport_of(virtio, "blk0")
        whole = device.read_config(0, 1 << 16)
        assert int.from_bytes(whole[:8], "little") == 64 << 20 >> 9
        assert 0x18 < len(whole) <= 0x1000
        with pytest.raises(UsageError, match="4 bytes can't be written at"):
            device.write_config(len(whole) - 2, bytes(4))


def test_a_range_aligns_and_ends() -> None:
    space = Range("a space", 0x1010, 0x3000)
    assert space.take(0x10) == 0x1010
    assert space.take(0x800) == 0x1800
    assert space.take(0x1000) == 0x2000
    assert not space.has(1)
    with pytest.raises(UsageError, match="no room for 0x1 bytes in a space"):
        space.take(1)
