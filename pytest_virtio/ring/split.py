"""The split virtqueue (virtio 1.3 section 2.7), from the driver's side.

Responsible for descriptor table, available and used ring in either byte order; must not know packed rings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from pytest_virtio.errors import RingError, UsageError
from pytest_virtio.ring.driver import (
    Buffer,
    Row,
    Used,
    check_areas,
    check_room,
    descriptor_rows,
    indirect_row,
    pack_descriptor,
    writable_bytes,
)
from pytest_virtio.ring.in_flight import Chain, account
from pytest_virtio.ring.memory import Memory
from pytest_virtio.spec.layout import ByteOrder
from pytest_virtio.spec.ring import (
    DESCRIPTOR_SIZE,
    SPLIT_ALIGNMENT,
    SPLIT_DESCRIPTOR,
    USED_ELEMENT,
    Areas,
    AvailFlag,
    DescriptorFlag,
    UsedFlag,
    avail_event_offset,
    split_sizes,
    used_event_offset,
)

__all__ = ("SplitRing",)

_NEXT = int(DescriptorFlag.NEXT)
_NO_INTERRUPT = int(AvailFlag.NO_INTERRUPT)
_NO_NOTIFY = int(UsedFlag.NO_NOTIFY)


class SplitRing:
    """A split virtqueue; see :class:`~pytest_virtio.ring.driver.DriverRing`. Its tokens are heads of chains.

    :param memory: the guest's RAM.
    :param areas: where the ring goes; it is zeroed.
    :param size: entries, a power of two.
    :param order: byte order of the ring itself; ``"big"`` for legacy devices of big-endian guests (2.7.3).
    :param event_idx: VIRTIO_F_EVENT_IDX was negotiated.
    :param in_order: VIRTIO_F_IN_ORDER was negotiated.
    :raises UsageError: the size is impossible or an area is not aligned.
    """

    def __init__(
        self,
        memory: Memory,
        areas: Areas,
        size: int,
        *,
        order: ByteOrder = "little",
        event_idx: bool = False,
        in_order: bool = False,
    ) -> None:
        check_areas(areas, SPLIT_ALIGNMENT)
        self.size, self.areas = size, areas
        self._memory, self._event_idx = memory, event_idx
        self._descriptor, self._element = SPLIT_DESCRIPTOR[order], USED_ELEMENT[order]
        self._load16, self._store16 = _halfwords(memory, order)
        # Taken from the left and given back on the right: chains that come back in order leave the free ones in the
        # order of the ring, as 2.7.5 wants it of in-order queues.
        self._free = deque(range(size))
        self._flight = account(in_order)
        self._avail = self._taken = 0
        self._interrupts = True
        for address, length in zip((areas.descriptors, areas.driver, areas.device), split_sizes(size), strict=True):
            memory.write(address, bytes(length))

    @property
    def free(self) -> int:
        """How many descriptors are not in use."""
        return len(self._free)

    def add(self, buffers: Sequence[Buffer], indirect_table: int | None = None) -> int:
        """Put a chain into the ring; see :meth:`DriverRing.add`."""
        writable = writable_bytes(buffers, self.size)
        rows = descriptor_rows(buffers)
        check_room(len(rows) if indirect_table is None else 1, len(self._free), self.size)
        if indirect_table is not None:
            self._memory.write(indirect_table, b"".join(self._linked(rows, range(len(rows)))))
            rows = [indirect_row(indirect_table, len(rows))]
        indices = tuple(islice(self._free, len(rows)))
        for index, descriptor in zip(indices, self._linked(rows, indices), strict=True):
            self._memory.write(self.areas.descriptors + DESCRIPTOR_SIZE * index, descriptor)
        self._stage(Chain(indices[0], indices, writable))
        for _ in indices:
            self._free.popleft()
        return indices[0]

    def publish(self) -> bool:
        """Make everything added visible; see :meth:`DriverRing.publish`."""
        first, added = self._avail, len(self._flight.staged)
        if not added:
            return False
        after = (first + added) & 0xFFFF
        self._store16(self.areas.driver + 2, after)
        self._avail = after
        self._flight.hand_over()
        if not self._event_idx:
            return not self._load16(self.areas.device) & _NO_NOTIFY
        # 2.7.10: when the entry that the device names is among those just written.
        event = self._load16(self.areas.device + avail_event_offset(self.size))
        return (event - first) & 0xFFFF < added

    def take_used(self) -> Used | None:
        """Return the next chain that the device has given back; see :meth:`DriverRing.take_used`."""
        if not self._flight.due and not self._look():
            return None
        chain, length = self._flight.take()
        self._free.extend(chain.descriptors)
        self._taken = (self._taken + 1) & 0xFFFF
        if self._event_idx:
            self._set_used_event()
        return Used(chain.token, length)

    def suppress_interrupts(self, suppress: bool) -> None:
        """Tell the device whether to leave interrupts out; see :meth:`DriverRing.suppress_interrupts`."""
        self._interrupts = not suppress
        if self._event_idx:
            # 2.7.7.1: flags stay 0.
            self._set_used_event()
        else:
            self._store16(self.areas.driver, _NO_INTERRUPT if suppress else 0)

    def notification(self) -> int:
        """Return the upper 16 bits of a notification with data: the available index (2.9)."""
        return self._avail

    def write_descriptor(self, index: int, address: int, length: int, flags: int, following: int = 0) -> None:
        """Write a descriptor by hand, however wrong; :meth:`expose` makes a chain of it.

        :param index: 0 to ``size`` - 1. :meth:`add` of a fresh ring begins at 0, and doesn't know about this one.
        :param following: the ``next`` field.
        :raises UsageError: there is no such descriptor, or a number doesn't fit its field.
        """
        if not 0 <= index < self.size:
            raise UsageError(f"the ring has descriptors 0 to {self.size - 1}, not {index}")
        descriptor = pack_descriptor(self._descriptor, address, length, flags, following)
        self._memory.write(self.areas.descriptors + DESCRIPTOR_SIZE * index, descriptor)

    def expose(self, head: int) -> None:
        """Put any number as a head into the available ring, as often as you like; the device sees it after
        :meth:`publish`. If it gives that back, :meth:`take_used` returns it as a token.

        :param head: 16 bits.
        """
        self._stage(Chain(head & 0xFFFF, (), 0, raw=True))

    def _stage(self, chain: Chain) -> None:
        slot = (self._avail + len(self._flight.staged)) & (self.size - 1)
        self._store16(self.areas.driver + 4 + 2 * slot, chain.token)
        self._flight.staged.append(chain)

    def _linked(self, rows: list[Row], indices: Sequence[int]) -> list[bytes]:
        """Make descriptors of a chain that goes through these indices of its table."""
        layout, last = self._descriptor, len(rows) - 1
        return [
            pack_descriptor(layout, address, length, flags, 0)
            if position == last
            else pack_descriptor(layout, address, length, flags | _NEXT, indices[position + 1])
            for position, (address, length, flags) in enumerate(rows)
        ]

    def _look(self) -> bool:
        """Read the next used element, if there is one, and note which chains are due by it."""
        index = self._load16(self.areas.device + 2)
        ready = (index - self._taken) & 0xFFFF
        if not ready:
            return False
        self._check_index(index, ready)
        slot = self._taken & (self.size - 1)
        address = self.areas.device + 4 + 8 * slot
        token, length = self._element.unpack(self._memory.read(address, 8))
        batch = self._flight.batch(token)
        if not 0 < batch <= ready:
            raise self._wrong_element(slot, address, token, batch, ready)
        self._flight.give_back(token, length, batch)
        return True

    def _check_index(self, index: int, ready: int) -> None:
        outstanding = len(self._flight)
        if ready > outstanding:
            last = (self._taken + outstanding) & 0xFFFF
            raise RingError(
                f"the used ring's idx has moved by {ready}, but the device has only {outstanding} chains",
                register=f"used.idx at {self.areas.device + 2:#x}",
                expected=f"{self._taken} to {last}" if outstanding else str(self._taken),
                seen=str(index),
            )

    def _wrong_element(self, slot: int, address: int, token: int, batch: int, ready: int) -> RingError:
        what = "the used ring names a chain that the device doesn't have"
        if batch:
            what = f"the used ring names a chain at the end of a batch of {batch}, but its idx has moved by {ready}"
        register = f"used.ring[{slot}].id at {address:#x}"
        return RingError(what, register=register, expected=self._flight.expected(), seen=str(token))

    def _set_used_event(self) -> None:
        # 2.7.7: the device interrupts when it writes this entry. To get no interrupt name the one before: that is
        # written already, and its number doesn't come again within 65535 entries.
        event = self._taken if self._interrupts else self._taken - 1
        self._store16(self.areas.driver + used_event_offset(self.size), event & 0xFFFF)


def _halfwords(memory: Memory, order: ByteOrder) -> tuple[Callable[[int], int], Callable[[int, int], None]]:
    """Return what loads and stores 16 bits in the ring's byte order, still in one access."""
    if order == "little":
        return memory.load16, memory.store16
    return (
        lambda address: _swapped(memory.load16(address)),
        lambda address, value: memory.store16(address, _swapped(value)),
    )


def _swapped(value: int) -> int:
    return (value << 8 | value >> 8) & 0xFFFF
