"""Chains of descriptors as they lie in guest RAM, whoever wrote them there.

Responsible for following a chain and its indirect table, and for doing so in bounded time and space; must not know
which chains there are. Of all chains of a ring together no descriptor is read twice, and of their tables no more than
``TABLE_ENTRIES`` and ``RING_ENTRIES``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cache

from pytest_virtio.model.queue import VirtioRingDesc
from pytest_virtio.model.ring import ElementState, RingElement
from pytest_virtio.ring.told import ADDRESSES, Area, ReadableMemory, read_area
from pytest_virtio.spec.ring import DESCRIPTOR_SIZE, DescriptorFlag

__all__ = ("Chain", "SplitChains", "Tables")

TABLE_ENTRIES = 1024
"""Of one table; QEMU takes no more either (VIRTQUEUE_MAX_SIZE)."""
RING_ENTRIES = 1 << 15
"""Of all tables of a ring; 256 requests of 128 buffers are as many."""

_NEXT, _WRITE, _INDIRECT = int(DescriptorFlag.NEXT), int(DescriptorFlag.WRITE), int(DescriptorFlag.INDIRECT)
_NAMED = tuple((int(flag), str(flag.name).lower()) for flag in DescriptorFlag)
_ALL = int(DescriptorFlag.NEXT | DescriptorFlag.WRITE | DescriptorFlag.INDIRECT)
_ALL_PACKED = _ALL | DescriptorFlag.AVAIL | DescriptorFlag.USED


@cache
def _flag_names(flags: int) -> frozenset[str]:
    return frozenset(name for bit, name in _NAMED if flags & bit)


@dataclass(slots=True)
class Chain:
    """A chain while it is followed."""

    descs: list[VirtioRingDesc] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    indirect: bool = False

    def add(self, address: int, length: int, flags: int) -> None:
        """Append a buffer; ``flags`` without those that have no meaning here."""
        if address + length > ADDRESSES:
            self.faults.append(f"buffer {len(self.descs)}: {length} bytes at {address:#x} run past 2^64")
        self.descs.append(VirtioRingDesc(address, length, _flag_names(flags)))

    def element(self, head: int, slot: int, state: ElementState) -> RingElement:
        """What it came to."""
        return RingElement(head, slot, state, tuple(self.descs), self.indirect, None, tuple(self.faults))


class Tables:
    """The indirect tables of one ring (virtio 1.3 sections 2.7.5.3 and 2.8.7)."""

    def __init__(self, memory: ReadableMemory) -> None:
        self._memory, self._left = memory, RING_ENTRIES

    def read(self, address: int, length: int, chain: Chain) -> bytes:
        """As much of a table as there is; what is wrong with it is noted."""
        chain.indirect = True
        entries, odd = divmod(length, DESCRIPTOR_SIZE)
        if odd or not entries:
            chain.faults.append(f"its indirect table has {length} bytes, not {DESCRIPTOR_SIZE} or a multiple")
        most = min(TABLE_ENTRIES, self._left)
        if entries > most:
            chain.faults.append(f"its indirect table has {entries} entries, of which {most} are looked at")
        self._left -= min(entries, most)
        try:
            return read_area(self._memory, "its indirect table", address, DESCRIPTOR_SIZE * min(entries, most))
        except Area as why:
            chain.faults.append(str(why))
            return b""

    def add_packed(self, address: int, length: int, layout: struct.Struct, chain: Chain) -> None:
        """Append the buffers of a packed ring's table: all of them, one after the other; only WRITE has a meaning."""
        for buffer, size, _, flags in layout.iter_unpack(self.read(address, length, chain)):
            if flags & _INDIRECT:
                chain.faults.append("its indirect table has an indirect descriptor")
                return
            chain.add(buffer, size, flags & _ALL_PACKED)


class SplitChains:
    """The chains of one split descriptor table (2.7.5)."""

    def __init__(self, tables: Tables, table: bytes, layout: struct.Struct) -> None:
        self._tables, self._table, self._layout = tables, table, layout
        self._owner: dict[int, int] = {}

    def element(self, head: int, slot: int, state: ElementState) -> RingElement:
        """Follow the chain that begins at a descriptor."""
        chain = Chain()
        table = self._follow(chain, self._table, head, self._owner, head)
        if table is not None:
            self._follow(chain, self._tables.read(*table, chain), 0, {}, head, inner=True)
        return chain.element(head, slot, state)

    def _follow(
        self, chain: Chain, table: bytes, index: int, owner: dict[int, int], head: int, *, inner: bool = False
    ) -> tuple[int, int] | None:
        """Append buffers from an index on, to the end or to an indirect table: its address and length."""
        where, entries = "of its indirect table " if inner else "", len(table) // DESCRIPTOR_SIZE
        while not inner or entries:
            if index >= entries or index in owner:
                chain.faults.append(_astray(index, entries, owner, head, where, is_head=not chain.descs and not inner))
                return None
            owner[index] = head
            address, length, flags, following = self._layout.unpack_from(table, DESCRIPTOR_SIZE * index)
            if flags & _INDIRECT:
                chain.faults.extend(_odd_indirect(index, flags, where))
                return None if inner else (address, length)
            chain.add(address, length, flags & _ALL)
            if not flags & _NEXT:
                return None
            index = following
        return None


def _astray(index: int, entries: int, owner: dict[int, int], head: int, where: str, *, is_head: bool) -> str:
    if index >= entries:
        return f"its {'head' if is_head else f'next descriptor {where}'.rstrip()} is {index}, of {entries}"
    if owner[index] != head or is_head:
        return f"descriptor {index} is in the chain of head {owner[index]} too"
    return f"it loops: descriptor {index} {where}comes again"


def _odd_indirect(index: int, flags: int, where: str) -> list[str]:
    if where:
        return [f"descriptor {index} {where}is indirect itself"]
    return [f"descriptor {index} has both INDIRECT and NEXT"] if flags & _NEXT else []
