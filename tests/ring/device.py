"""Reference devices: the other side of a ring, written from virtio 1.3 sections 2.7 and 2.8, not from our code.

They are slow and plain on purpose: numbers are cut out of bytes, wrap counters are bits that flip, and notification is
decided by looking at each index in turn, as the text has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pytest_virtio.spec.ring import Areas

from .ram import Ram

NEXT, WRITE, INDIRECT, AVAIL, USED = 1, 2, 4, 1 << 7, 1 << 15

Seen = list[tuple[int, int, bool]]
"""Address, length and whether the device may write, buffer by buffer."""


@dataclass
class Element:
    """A chain as the device sees it; ``descriptors`` is how many of the ring it takes."""

    token: int
    seen: Seen
    descriptors: int
    tables: int = 0


class Device(Protocol):
    def fetch(self) -> list[Element]:
        """Take everything that is visible and was not taken."""

    def complete(self, elements: Sequence[Element], length: int) -> bool:
        """Give elements back by one used entry, which names the last; say whether the driver wants an interrupt."""

    def ask(self, ahead: int) -> None:
        """With the event index: want a notification at the entry so many after the next one to be fetched."""

    def want_notifications(self, wanted: bool) -> None:
        """Without the event index: want them or not."""


@dataclass
class SplitDevice:
    ram: Ram
    areas: Areas
    size: int
    order: Literal["little", "big"] = "little"
    event_idx: bool = False
    fetched: int = 0
    used: int = 0

    def fetch(self) -> list[Element]:
        elements = []
        while self.fetched != self.number(self.areas.driver + 2, 2):
            elements.append(self.chain(self.number(self.areas.driver + 4 + 2 * (self.fetched % self.size), 2)))
            self.fetched = (self.fetched + 1) % 65536
        return elements

    def chain(self, head: int) -> Element:
        element = Element(head, [], 0)
        self.walk(self.areas.descriptors, head, element)
        element.descriptors -= element.tables
        return element

    def walk(self, table: int, index: int, element: Element) -> None:
        for _ in range(self.size + 1):
            at = table + 16 * index
            address, length = self.number(at, 8), self.number(at + 8, 4)
            flags, following = self.number(at + 12, 2), self.number(at + 14, 2)
            element.descriptors += 1
            if flags & INDIRECT:
                assert not flags & NEXT
                assert not element.tables
                element.tables = length // 16
                self.walk(address, 0, element)
                return
            element.seen.append((address, length, bool(flags & WRITE)))
            if not flags & NEXT:
                return
            index = following
        raise AssertionError("the chain doesn't end")

    def complete(self, elements: Sequence[Element], length: int) -> bool:
        at = self.areas.device + 4 + 8 * (self.used % self.size)
        self.put(at, 4, elements[-1].token)
        self.put(at + 4, 4, length)
        written = {(self.used + n) % 65536 for n in range(len(elements))}
        self.used = (self.used + len(elements)) % 65536
        self.put(self.areas.device + 2, 2, self.used)
        flags = self.number(self.areas.driver, 2)
        if not self.event_idx:
            return flags == 0
        assert flags == 0
        return self.number(self.areas.driver + 4 + 2 * self.size, 2) in written

    def ask(self, ahead: int) -> None:
        self.put(self.areas.device + 4 + 8 * self.size, 2, (self.fetched + ahead) % 65536)

    def want_notifications(self, wanted: bool) -> None:
        self.put(self.areas.device, 2, 0 if wanted else 1)

    def number(self, address: int, length: int) -> int:
        return int.from_bytes(self.ram.read(address, length), self.order)

    def put(self, address: int, length: int, value: int) -> None:
        self.ram.write(address, value.to_bytes(length, self.order))


@dataclass
class Place:
    """A position in a packed ring with its wrap counter (2.8.1)."""

    size: int
    position: int = 0
    wrap: int = 1

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.position += 1
            if self.position == self.size:
                self.position, self.wrap = 0, self.wrap ^ 1

    def after(self, count: int) -> Place:
        place = Place(self.size, self.position, self.wrap)
        place.step(count)
        return place

    @property
    def off_wrap(self) -> int:
        return self.position | self.wrap << 15


@dataclass
class PackedDevice:
    ram: Ram
    areas: Areas
    size: int
    event_idx: bool = False
    fetched: Place = field(init=False)
    used: Place = field(init=False)

    def __post_init__(self) -> None:
        self.fetched, self.used = Place(self.size), Place(self.size)

    def fetch(self) -> list[Element]:
        elements = []
        while self.is_available(self.fetched):
            elements.append(self.chain())
        return elements

    def is_available(self, place: Place) -> bool:
        flags = self.number(self.areas.descriptors + 16 * place.position + 14, 2)
        return bool(flags & AVAIL) == bool(place.wrap) and bool(flags & USED) != bool(place.wrap)

    def chain(self) -> Element:
        element = Element(-1, [], 0)
        for _ in range(self.size):
            assert self.is_available(self.fetched)
            at = self.areas.descriptors + 16 * self.fetched.position
            flags = self.number(at + 14, 2)
            if flags & INDIRECT:
                self.table(self.number(at, 8), self.number(at + 8, 4), element)
            else:
                element.seen.append(self.buffer(at))
            element.descriptors += 1
            self.fetched.step()
            if not flags & NEXT:
                element.token = self.number(at + 12, 2)
                return element
            assert not flags & INDIRECT
        raise AssertionError("the chain doesn't end")

    def table(self, address: int, length: int, element: Element) -> None:
        element.tables = length // 16
        for at in range(address, address + length, 16):
            assert self.number(at + 14, 2) in {0, WRITE}
            element.seen.append(self.buffer(at))

    def buffer(self, at: int) -> tuple[int, int, bool]:
        return self.number(at, 8), self.number(at + 8, 4), bool(self.number(at + 14, 2) & WRITE)

    def complete(self, elements: Sequence[Element], length: int) -> bool:
        at = self.areas.descriptors + 16 * self.used.position
        self.put(at + 8, 4, length)
        self.put(at + 12, 2, elements[-1].token)
        self.put(at + 14, 2, AVAIL | USED if self.used.wrap else 0)
        count = sum(element.descriptors for element in elements)
        written = {self.used.after(n).off_wrap for n in range(count)}
        self.used.step(count)
        flags = self.number(self.areas.driver + 2, 2)
        assert flags in ({0, 1, 2} if self.event_idx else {0, 1})
        return flags == 0 or (flags == 2 and self.number(self.areas.driver, 2) in written)

    def ask(self, ahead: int) -> None:
        self.put(self.areas.device, 2, self.fetched.after(ahead).off_wrap)
        self.put(self.areas.device + 2, 2, 2)

    def want_notifications(self, wanted: bool) -> None:
        self.put(self.areas.device + 2, 2, 0 if wanted else 1)

    def number(self, address: int, length: int) -> int:
        return int.from_bytes(self.ram.read(address, length), "little")

    def put(self, address: int, length: int, value: int) -> None:
        self.ram.write(address, value.to_bytes(length, "little"))
