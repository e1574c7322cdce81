"""What a decoder of rings works on: what is told beforehand, and RAM.

Responsible for these two and for reading an area or saying why it can't be read; must not know any layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from pytest_virtio.errors import VirtioError
from pytest_virtio.model.ring import Ring
from pytest_virtio.spec.layout import ByteOrder
from pytest_virtio.spec.ring import Areas

__all__ = ("ADDRESSES", "Area", "ReadableMemory", "Told", "read_area")

ADDRESSES = 1 << 64


class ReadableMemory(Protocol):
    """Guest RAM by guest-physical address."""

    def read(self, address: int, length: int, /) -> bytes:
        """Copy ``length`` bytes.

        :raises VirtioError: when they are not all in RAM.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is known of a ring besides its memory.

    :param name: QEMU's name for the device id.
    :param source: by which way all this is known.
    :param used_idx: the device's used index when it was told; packed: a position.
    :param last_avail_idx: the next entry that the device will take; packed: a position.
    :param inuse: elements that the device holds.
    """

    name: str
    queue_index: int
    num: int
    areas: Areas
    source: str
    packed: bool = False
    event_idx: bool = False
    in_order: bool = False
    order: ByteOrder = "little"
    used_idx: int | None = None
    last_avail_idx: int | None = None
    inuse: int | None = None

    def ring(self, **more: Any) -> Ring:
        """A ring of which that much is known."""
        return Ring(
            name=self.name,
            queue_index=self.queue_index,
            packed=self.packed,
            num=self.num,
            desc=self.areas.descriptors,
            avail=self.areas.driver,
            used=self.areas.device,
            source=self.source,
            **{"last_avail_idx": self.last_avail_idx, **more},
        )


class Area(Exception):
    """An area can't be read: why, in words. It leaves no decoder."""


def read_area(memory: ReadableMemory, what: str, address: int, length: int) -> bytes:
    """Read a whole area.

    :raises Area: saying why that can't be done.
    """
    if address + length > ADDRESSES:
        raise Area(f"{what}: {length} bytes at {address:#x} run past 2^64")
    try:
        return memory.read(address, length)
    except VirtioError as error:
        raise Area(f"{what} can't be read: {error}") from None
