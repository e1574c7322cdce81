"""Tables of the transports: capability lists however broken, device ids, and registers that don't overlap."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest

from pytest_virtio.spec.transport.mmio import Mmio
from pytest_virtio.spec.transport.pci import CapabilityType, Common, Legacy, device_id, parse_capabilities
from pytest_virtio.spec.transport.register import Register

VIRTIO, MSIX, OTHER = 0x09, 0x11, 0x05
NOWHERE = 0


def space(first: int, *capabilities: tuple[int, bytes]) -> bytes:
    """A configuration space with these capabilities at their places."""
    config = bytearray(256)
    config[0x34] = first
    # From the lowest: most have no multiplier, and end where the next begins.
    for place, data in sorted(capabilities):
        config[place : place + len(data)] = data[: 256 - place]
    assert len(config) == 256
    return bytes(config)


def virtio(after: int, cfg_type: int, bar: int = 4, offset: int = 0, length: int = 0x1000) -> bytes:
    """``struct virtio_pci_cap`` by hand (virtio 1.3 section 4.1.4), with a multiplier of 4."""
    return struct.pack("<BBBBBB2xIII", VIRTIO, after, 20, cfg_type, bar, 0, offset, length, 4)


def test_what_qemu_has() -> None:
    """As QEMU 7.2 lays out virtio-rng-pci: MSI-X, then the virtio capabilities, each pointing at the one before."""
    config = space(
        0x84,
        (0x84, virtio(0x70, 5)),
        (0x70, virtio(0x60, 2, offset=0x3000)),
        (0x60, virtio(0x50, 4, offset=0x2000)),
        (0x50, virtio(0x40, 3, offset=0x1000)),
        (0x40, virtio(0xDC, 1)),
        (0xDC, struct.pack("<BBHII", MSIX, 0, 0x8001, 0x0001, 0x0801)),
    )
    found, msix = parse_capabilities(config)
    assert set(found) == {1, 2, 3, 4, 5}
    notify = found[CapabilityType.NOTIFY_CFG]
    assert (notify.bar, notify.offset_in_bar, notify.length, notify.notify_off_multiplier) == (4, 0x3000, 0x1000, 4)
    assert msix is not None
    place, capability = msix
    assert (place, capability.vectors, capability.table, capability.pending) == (0xDC, 2, 1, 0x801)


def test_the_first_of_a_type_counts() -> None:
    """4.1.4: a driver takes the first that it can use."""
    found, _ = parse_capabilities(space(0x40, (0x40, virtio(0x60, 1, offset=1)), (0x60, virtio(0, 1, offset=2))))
    assert found[1].offset_in_bar == 1


def test_reserved_bars_are_ignored() -> None:
    """4.1.4.1: a capability with a reserved BAR value must be ignored; the next of its type counts then."""
    found, _ = parse_capabilities(space(0x40, (0x40, virtio(0x60, 1, bar=6)), (0x60, virtio(0, 1, bar=5))))
    assert found[1].bar == 5


def test_other_capabilities_and_types_are_passed_over() -> None:
    config = space(0x40, (0x40, bytes([OTHER, 0x50])), (0x50, virtio(0x70, 0xEE)), (0x70, virtio(0, 1)))
    assert set(parse_capabilities(config)[0]) == {1, 0xEE}


@pytest.mark.parametrize(
    ("what", "config"),
    [
        ("no list", space(NOWHERE)),
        ("into the header", space(0x3C, (0x3C, virtio(0, 1)))),
        ("itself", space(0x40, (0x40, bytes([OTHER, 0x40])))),
        ("a circle", space(0x40, (0x40, bytes([OTHER, 0x80])), (0x80, bytes([OTHER, 0x40])))),
        ("all ones", bytes([0xFF]) * 256),
        ("zeros from there on", space(0x40)),
    ],
)
def test_lists_without_anything(what: str, config: bytes) -> None:
    assert parse_capabilities(config) == ({}, None), what


def test_the_lowest_bits_of_a_pointer_mean_nothing() -> None:
    """PCI 3.0 section 6.7: they are reserved, and software masks them."""
    assert set(parse_capabilities(space(0x43, (0x40, virtio(0x62, 1)), (0x60, virtio(0, 2))))[0]) == {1, 2}


@pytest.mark.parametrize("kind", [VIRTIO, MSIX])
def test_a_capability_that_the_end_cuts_off(kind: int) -> None:
    """What is missing counts as zeros: a window of no length, that nobody can use."""
    found, msix = parse_capabilities(space(0xFC, (0xFC, bytes([kind, 0, 20, 1]))))
    if kind == VIRTIO:
        assert found[1].length == 0
    else:
        assert msix is not None
        assert msix[1].table == 0


@pytest.mark.parametrize(
    ("vendor", "device", "expected"),
    [
        (0x1AF4, 0x1041, 1),
        (0x1AF4, 0x1042, 2),
        (0x1AF4, 0x1059, 25),
        (0x1AF4, 0x107F, 63),
        (0x1AF4, 0x1000, 1),
        (0x1AF4, 0x1001, 2),
        (0x1AF4, 0x1002, 5),
        (0x1AF4, 0x1003, 3),
        (0x1AF4, 0x1004, 8),
        (0x1AF4, 0x1005, 4),
        (0x1AF4, 0x1009, 9),
        # ivshmem has the vendor, too.
        (0x1AF4, 0x1110, None),
        (0x1AF4, 0x1040, None),
        (0x1AF4, 0x1006, None),
        (0x1AF4, 0x0FFF, None),
        (0x8086, 0x1041, None),
    ],
)
def test_device_ids(vendor: int, device: int, expected: int | None) -> None:
    """4.1.2 and 4.1.2.1."""
    assert device_id(vendor, device) == expected


def registers(table: type) -> list[Register]:
    found: list[Register] = []
    for value in vars(table).values():
        if isinstance(value, Register):
            found.append(value)
        elif isinstance(value, tuple):
            found += value
    return sorted(found, key=lambda register: register.offset)


@pytest.mark.parametrize(("table", "end"), [(Common, 0x3C), (Legacy, 0x18), (Mmio, 0x100)])
def test_registers_are_aligned_and_apart(table: type, end: int) -> None:
    ordered = registers(table)
    assert all(register.offset % register.size == 0 for register in ordered)
    assert all(one.offset + one.size <= other.offset for one, other in pairwise(ordered))
    assert ordered[-1].offset + ordered[-1].size == end
