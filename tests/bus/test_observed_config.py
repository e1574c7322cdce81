"""Configuration space as who drives nothing reads it, against all of it as a driver does; both ways there."""

from __future__ import annotations

import pytest

from pytest_virtio import Blk, Net, VirtioFactory, qapi
from pytest_virtio.bus.config_space import MemoryAccess, PciAddress, PortAccess
from pytest_virtio.bus.find import Q35_CONFIG_SPACE
from pytest_virtio.bus.observed_config import UNMAPPED, configurations, word_reader
from pytest_virtio.bus.observed_interrupts import interrupts_of_pci
from pytest_virtio.spec.transport.pci import CAPABILITY_ID, MSIX_ID, CapabilityType, Config, parse_capabilities

from .conftest import wire_of

pytestmark = pytest.mark.qemu

NOBODY = PciAddress(0, 17, 0)


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_what_is_read_is_what_is_there(virtio_factory: VirtioFactory, machine: str) -> None:
    with virtio_factory(Net(), Blk(), machine=machine) as virtio:
        wire, found = wire_of(virtio), qapi.parse_pci(virtio.vm.qmp("query-pci"))
        ecam = Q35_CONFIG_SPACE if machine == "q35" else None
        functions = {f.qdev_id: PciAddress(f.bus, f.slot, f.function) for f in found if f.qdev_id}
        words = word_reader(wire, found, ecam, ports=True)
        assert words
        configs = configurations(words, [*functions.values(), NOBODY])
        assert [*interrupts_of_pci(wire, found[0], configs[NOBODY], [0], select=True)] == []
        for function in functions.values():
            access = PortAccess(wire) if ecam is None else MemoryAccess(wire, ecam)
            whole, seen = access.read(function, 0, 256), configs[function]
            assert seen[Config.COMMAND.offset : 8] == whole[Config.COMMAND.offset : 8]
            places = places_of(whole)
            assert places == places_of(seen)
            assert {CAPABILITY_ID, MSIX_ID} <= {whole[place] for place in places}
            assert all(seen[place : place + 4] == whole[place : place + 4] for place in places)
            assert parse_capabilities(seen)[1] == parse_capabilities(whole)[1]
            common, expected = (parse_capabilities(config)[0][CapabilityType.COMMON_CFG] for config in (seen, whole))
            assert (common.bar, common.offset_in_bar) == (expected.bar, expected.offset_in_bar)


def places_of(config: bytes) -> list[int]:
    places, place = [], config[Config.CAPABILITIES.offset]
    while place:
        places.append(place)
        place = config[place + 1]
    return places


def test_no_way_there(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk()) as virtio:
        found = qapi.parse_pci(virtio.vm.qmp("query-pci"))
        assert word_reader(wire_of(virtio), found, UNMAPPED) is None
        assert word_reader(wire_of(virtio), found, None, ports=True) is None


def test_ports_are_not_touched_beside_a_processor_that_runs(virtio_factory: VirtioFactory) -> None:
    with virtio_factory(Blk(), machine="pc") as virtio:
        assert word_reader(wire_of(virtio), qapi.parse_pci(virtio.vm.qmp("query-pci")), None) is None
