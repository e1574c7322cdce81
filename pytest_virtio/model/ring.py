"""A virtqueue as it lies in guest RAM: its indices, its elements, and what is wrong with it.

Responsible for the fields and their meaning; it must not know how RAM is read, and it judges nothing but the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from pytest_virtio.model.queue import VirtioRingDesc

__all__ = ("ElementState", "Ring", "RingElement")

ElementState = Literal["pending", "in_flight", "outstanding", "candidate", "used"]
"""``pending``: made available, and the device has not taken it. ``in_flight``: taken, and not given back.
``outstanding``: one of these two; nobody tells which. ``candidate``: perhaps in flight, perhaps given back. ``used``:
given back."""


class RingElement(NamedTuple):
    """A chain of buffers. (No dataclass: rings have hundreds, and one is made in a fifth of the time.)

    :param head: split: the index of its first descriptor; packed: its buffer id.
    :param slot: where it was read: of a used one in the used ring, of others in the avail ring; packed: in the
        descriptor ring.
    :param descs: head first; an indirect table stands in the place of its descriptor. As far as they could be read;
        of a used one none, for they are the driver's again.
    :param indirect: whether a table was followed.
    :param written: how many bytes the device says it wrote, of a used one; None of others.
    :param faults: what is wrong with it, in words.
    """

    head: int
    slot: int
    state: ElementState
    descs: tuple[VirtioRingDesc, ...] = ()
    indirect: bool = False
    written: int | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """One look at a virtqueue. ``None`` means that it is not told, or that there is no such thing in this kind of ring.

    :param name: QEMU's name for the device id.
    :param num: how many entries it has.
    :param desc: guest-physical address of the descriptor area; likewise ``avail`` (driver area) and ``used`` (device
        area).
    :param avail_idx: the driver's free-running index; likewise ``used_idx`` the device's. Packed: None.
    :param last_avail_idx: the next entry that the device will take: free-running, packed: a position.
    :param no_interrupt: whether the driver asks for no interrupts by flag; likewise ``no_notify`` the device for no
        kicks.
    :param used_event: with EVENT_IDX, the used index at which the driver wants to be interrupted; likewise
        ``avail_event`` the avail index at which the device wants to be kicked. Packed: position, if so asked for.
    :param elements: outstanding ones first, oldest first; then used ones, the newest first.
    :param untold: how many more are in flight (without ``last_avail_idx``: outstanding) of which the rings no longer
        tell which they are.
    :param candidates: the likeliest of those that these may be, the newest first. What has been in flight for longer
        than the avail ring remembers is not among them.
    :param faults: what is wrong with the ring itself, in words.
    :param source: by which way it was read.
    """

    name: str
    queue_index: int
    packed: bool
    num: int
    desc: int
    avail: int
    used: int
    avail_idx: int | None = None
    used_idx: int | None = None
    last_avail_idx: int | None = None
    no_interrupt: bool | None = None
    no_notify: bool | None = None
    used_event: int | None = None
    avail_event: int | None = None
    elements: tuple[RingElement, ...] = ()
    untold: int = 0
    candidates: tuple[RingElement, ...] = ()
    faults: tuple[str, ...] = ()
    source: str

    def in_state(self, *states: ElementState) -> tuple[RingElement, ...]:
        """The elements in one of these states."""
        return tuple(element for element in self.elements if element.state in states)

    @property
    def count(self) -> int | None:
        """How many chains the driver has made available and not got back; None where that can't be told."""
        if self.avail_idx is not None and self.used_idx is not None:
            return self.avail_idx - self.used_idx & 0xFFFF
        return None if self.faults else len(self.outstanding) + self.untold

    @property
    def outstanding(self) -> tuple[RingElement, ...]:
        """What the driver has made available and not got back, oldest first."""
        return self.in_state("pending", "in_flight", "outstanding")
