"""The IOMMU device: what an entropy device behind it can reach, and what is told of the rest (virtio 1.3 section 5.13).

The entropy device is the oracle: its data comes, or doesn't. Which endpoint it is, QMP's query-pci says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import pytest

from pytest_virtio import Declaration, Iommu, RequestFailedError, Rng, UsageError, Virtio
from pytest_virtio.guest.scripted.drivers.iommu import IommuDriver
from pytest_virtio.guest.scripted.drivers.rng import RngDriver
from pytest_virtio.guest.scripted.queue import Request
from pytest_virtio.ring.driver import Buffer
from pytest_virtio.spec.devices.iommu import (
    IommuAttachFlag,
    IommuFault,
    IommuFaultFlag,
    IommuFaultReason,
    IommuMapFlag,
    IommuProbeType,
    IommuResvMemType,
)
from pytest_virtio.spec.features import TransportFeature

from .conftest import Boot, status_of

pytestmark = pytest.mark.qemu

DOMAIN, PAGE, NOBODY = 1, 4096, 0x1234
PATTERN = b"untouched " * 6


class Behind(NamedTuple):
    """A VM with an IOMMU, and behind it an entropy device that no driver has touched yet."""

    virtio: Virtio
    iommu: IommuDriver
    rng: RngDriver
    endpoint: int
    hole: int
    """The last page of RAM but one: all below is mapped as it is when :meth:`attach` is done."""

    def attach(self) -> None:
        self.iommu.attach(DOMAIN, self.endpoint)
        self.iommu.map(DOMAIN, 0, 0, self.hole)

    def write_pattern(self) -> None:
        self.rng.memory.write(self.hole, PATTERN.ljust(PAGE, b"\0") + PATTERN)

    def untouched(self, page: int) -> bool:
        return self.rng.memory.read(page, len(PATTERN)) == PATTERN

    def fill_hole(self) -> Request:
        """Have the entropy device write to the hole."""
        self.write_pattern()
        queue = self.rng.queue(0)
        request = queue.submit_buffers([Buffer(self.hole, len(PATTERN), device_writes=True)])
        queue.kick()
        return request

    def faults_in_hole(self) -> IommuFault:
        """The fault that this gives; the entropy device's data is nowhere."""
        self.rng.queue(0).wait(self.fill_hole())
        fault = self.iommu.next_fault()
        assert (fault.endpoint, fault.address) == (self.endpoint, self.hole)
        assert self.untouched(self.hole)
        return fault


@contextmanager
def behind(scripted: Boot, iommu: Declaration | None = None, machine: str = "q35") -> Iterator[Behind]:
    with scripted(iommu or Iommu(), Rng(iommu_platform="on", driver=None), machine=machine) as virtio:
        driver = virtio.guest.driver("iommu0", IommuDriver)
        rng = virtio.guest.driver("rng0", RngDriver)
        yield Behind(virtio, driver, rng, endpoint_of(virtio, "rng0"), driver.memory.size - 2 * PAGE)


def endpoint_of(virtio: Virtio, id: str) -> int:
    """Slot and function of a device on bus 0, which is how QEMU numbers endpoints."""
    buses = cast(list[dict[str, list[dict[str, Any]]]], virtio.vm.qmp("query-pci"))
    (slot,) = [found["slot"] for bus in buses for found in bus["devices"] if found["qdev_id"] == id]
    return int(slot) << 3


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_what_is_mapped_is_reached(scripted: Boot, machine: str) -> None:
    """5.13.6.3, 5.13.6.5: rings, buffer and MSI-X messages go through identity mappings, and no fault is reported."""
    with behind(scripted, machine=machine) as vm:
        vm.attach()
        vm.iommu.map(DOMAIN, vm.hole, vm.hole, PAGE)
        vm.rng.initialise()
        assert vm.rng.has(TransportFeature.ACCESS_PLATFORM)
        vm.rng.queue(0).wait(vm.fill_hole())
        assert not vm.untouched(vm.hole)
        assert vm.rng.queue(0).interrupted()
        assert vm.iommu.faults() == ()
        assert status_of(vm.virtio, "iommu0").driver_ok


def test_what_is_unmapped_faults(scripted: Boot) -> None:
    """5.13.6.6, 5.13.6.9: after UNMAP the same buffer gives a fault report that names it, and no data."""
    with behind(scripted) as vm:
        vm.attach()
        for page in (vm.hole, vm.hole + PAGE):
            vm.iommu.map(DOMAIN, page, page, PAGE)
        vm.rng.initialise()
        vm.rng.queue(0).wait(vm.fill_hole())
        vm.iommu.unmap(DOMAIN, vm.hole, PAGE)
        fault = vm.faults_in_hole()
        assert fault.reason == IommuFaultReason.MAPPING
        assert fault.flags == IommuFaultFlag.ADDRESS


def test_read_only(scripted: Boot) -> None:
    """5.13.6.5: without WRITE a mapping keeps what is there, and the fault says that it was a write."""
    with behind(scripted) as vm:
        vm.attach()
        vm.iommu.map(DOMAIN, vm.hole, vm.hole, PAGE, IommuMapFlag.READ)
        vm.rng.initialise()
        fault = vm.faults_in_hole()
        assert fault.reason == IommuFaultReason.MAPPING
        assert fault.flags == IommuFaultFlag.ADDRESS | IommuFaultFlag.WRITE


def test_addresses_are_translated(scripted: Boot) -> None:
    """5.13.6.5: the data comes out at the physical address, and what has the virtual one's number stays."""
    with behind(scripted) as vm:
        vm.attach()
        after_hole = vm.hole + PAGE
        vm.iommu.map(DOMAIN, vm.hole, after_hole, PAGE)
        vm.rng.initialise()
        vm.rng.queue(0).wait(vm.fill_hole())
        assert vm.untouched(vm.hole)
        assert not vm.untouched(after_hole)


def test_more_faults_than_buffers(scripted: Boot) -> None:
    """5.13.6.9: a buffer whose report was read serves again, so that reports never end."""
    with behind(scripted) as vm:
        vm.attach()
        vm.rng.initialise()
        events = vm.iommu.queue("event")
        while events.completed <= events.size:
            vm.faults_in_hole()
            assert all(vm.hole <= fault.address < vm.hole + PAGE for fault in vm.iommu.faults())


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_probe(scripted: Boot, machine: str) -> None:
    """5.13.6.7, 5.13.6.8.1: the window of MSI is reserved; on x86 it is 0xfee00000 to 0xfeefffff."""
    with behind(scripted, machine=machine) as vm:
        (property,) = vm.iommu.probe(vm.endpoint)
        (region,) = vm.iommu.reserved(vm.endpoint)
        assert property.type == IommuProbeType.RESV_MEM
        assert property.data == region.pack()
        assert (region.subtype, region.start, region.end) == (IommuResvMemType.MSI, 0xFEE00000, 0xFEEFFFFF)


def test_config(scripted: Boot) -> None:
    """5.13.4: pages of 4 KiB, and the bypass that boot-bypass, a property of QEMU's, says."""
    for bypass, said in ((1, "on"), (0, "off")):
        with behind(scripted, Iommu(boot_bypass=said)) as vm:
            config = vm.iommu.config()
            assert config.page_size_mask & -config.page_size_mask == PAGE
            assert config.bypass == bypass


def test_bypass(scripted: Boot) -> None:
    """5.13.4, 5.13.6.9: without a domain bypass decides, and it can be switched.

    The reason should be DOMAIN. QEMU says UNKNOWN of an endpoint that was never in a domain (7.2, 10.0, 11.1).
    """
    with behind(scripted, Iommu(boot_bypass="off")) as vm:
        vm.rng.initialise()
        vm.fill_hole()
        fault = vm.iommu.next_fault()
        assert fault.reason in (IommuFaultReason.DOMAIN, IommuFaultReason.UNKNOWN)
        assert fault.endpoint == vm.endpoint
        assert vm.untouched(vm.hole)
        vm.rng.reset()
        vm.iommu.set_bypass(True)
        assert vm.iommu.config().bypass == 1
        vm.rng.initialise()
        vm.rng.queue(0).wait(vm.fill_hole())
        assert not vm.untouched(vm.hole)


def test_bypass_domain(scripted: Boot) -> None:
    """5.13.6.3: a domain with BYPASS lets its endpoints through, whatever the device's own bypass says."""
    with behind(scripted, Iommu(boot_bypass="off")) as vm:
        vm.iommu.attach(DOMAIN, vm.endpoint, IommuAttachFlag.BYPASS)
        vm.rng.initialise()
        vm.rng.queue(0).wait(vm.fill_hole())
        assert not vm.untouched(vm.hole)
        with pytest.raises(RequestFailedError, match="INVAL"):
            vm.iommu.map(DOMAIN, 0, 0, PAGE)


def test_detached(scripted: Boot) -> None:
    """5.13.6.4: a domain that is left by its last endpoint is gone, and bypass decides again."""
    with behind(scripted) as vm:
        vm.iommu.attach(DOMAIN, vm.endpoint)
        vm.iommu.detach(DOMAIN, vm.endpoint)
        with pytest.raises(RequestFailedError, match="NOENT"):
            vm.iommu.map(DOMAIN, 0, 0, PAGE)
        vm.rng.initialise()
        vm.rng.queue(0).wait(vm.fill_hole())
        assert not vm.untouched(vm.hole)


REFUSED: dict[str, tuple[Callable[[Behind], object], str, str]] = {
    "probe nobody": (lambda vm: vm.iommu.probe(NOBODY), "PROBE", "NOENT"),
    "attach nobody": (lambda vm: vm.iommu.attach(DOMAIN, NOBODY), "ATTACH", "NOENT"),
    "unknown attach flag": (lambda vm: vm.iommu.attach(DOMAIN, vm.endpoint, 1 << 31), "ATTACH", "INVAL"),
    "detach from another domain": (lambda vm: vm.iommu.detach(DOMAIN + 1, vm.endpoint), "DETACH", "INVAL"),
    "map into no domain": (lambda vm: vm.iommu.map(DOMAIN + 1, 0, 0, PAGE), "MAP", "NOENT"),
    "map twice": (lambda vm: vm.iommu.map(DOMAIN, PAGE, 0, PAGE), "MAP", "INVAL"),
    "unknown map flag": (lambda vm: vm.iommu.map(DOMAIN, vm.hole, 0, PAGE, 1 << 31), "MAP", "INVAL"),
    "unmap from no domain": (lambda vm: vm.iommu.unmap(DOMAIN + 1, 0, PAGE), "UNMAP", "NOENT"),
    "unmap a part": (lambda vm: vm.iommu.unmap(DOMAIN, 0, PAGE), "UNMAP", "RANGE"),
}


@pytest.mark.parametrize(("ask", "step", "status"), REFUSED.values(), ids=REFUSED)
def test_refused(scripted: Boot, ask: Callable[[Behind], object], step: str, status: str) -> None:
    """5.13.6: an error status becomes an error that names it and the request, and what was mapped stays so."""
    with behind(scripted) as vm:
        vm.attach()
        with pytest.raises(RequestFailedError, match=rf"\({status}\)") as raised:
            ask(vm)
        assert raised.value.step == step
        vm.iommu.map(DOMAIN, vm.hole, vm.hole, PAGE)
        vm.rng.initialise()
        vm.rng.queue(0).wait(vm.fill_hole())
        assert not vm.untouched(vm.hole)


def test_bad_input(scripted: Boot) -> None:
    """What no request can hold is the caller's error."""
    with behind(scripted) as vm:
        with pytest.raises(UsageError, match="virt_end: -1 doesn't fit"):
            vm.iommu.map(DOMAIN, 0, 0, 0)
        with pytest.raises(UsageError, match="bypass='zz': True or False"):
            vm.iommu.set_bypass(cast(bool, "zz"))
        with pytest.raises(UsageError, match="endpoint: 4294967296 doesn't fit"):
            vm.iommu.attach(DOMAIN, 1 << 32)
