"""How far a ring has gone on: counts over many laps of an index, and how long it has stood still.

Responsible for arithmetic on indices that run over 16 bits and on packed rings, which have none (virtio 1.3 sections
2.7.8, 2.8.1); must not know where a ring lies, when it is looked at, nor what its buffers mean.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_virtio.spec.ring import DESCRIPTOR_SIZE

__all__ = ("LONGEST_STEP", "Counter", "PackedUsed", "Stillness", "distance")

LONGEST_STEP = 0x8000
"""A step that is longer goes backwards: an index that was looked at in time has not gone half a round."""

_AVAIL_AT, _USED_AT = 14, 15
"""The bytes of a packed descriptor whose highest bits are VIRTQ_DESC_F_AVAIL and VIRTQ_DESC_F_USED (2.8.1, 2.8.13)."""
_HIGHEST = b"\x80"


def distance(since: int, to: int) -> int:
    """How far it is from one 16-bit index to another, forwards."""
    return to - since & 0xFFFF


class Counter:
    """Counts what an index has gone on since the counter was made; look before it has gone half a round.

    :param read: gives the index as it is now, 16 bits.
    """

    def __init__(self, read: Callable[[], int]) -> None:
        self._read, self._last = read, read()
        self.total = 0
        self.restarts = 0
        """How often the ring was made anew."""

    def look(self, longest: int = LONGEST_STEP) -> int:
        """Take in how far the index is now, and return the total.

        :param longest: what it can have gone on at the most since the last look; what is further away is a ring that
            was made anew, and began at 0.
        """
        index = self._read()
        step = distance(self._last, index)
        if step > longest:
            self.restarts += 1
            step = index
        self._last = index
        self.total += step
        return self.total

    def restart(self, read: Callable[[], int]) -> None:
        """Count on in a ring that has come in the place of this one, from its beginning."""
        self._read, self._last = read, 0
        self.restarts += 1


class PackedUsed:
    """A used index for a packed ring: how many used descriptors were seen, modulo 2**16, from those on that stand in
    the ring at the beginning: of one in its first lap that is all. Each is one buffer, or the last of several with
    VIRTIO_F_IN_ORDER (2.8.9).

    What the driver has overwritten between two looks is not seen: look before the device has gone around the ring, less
    the longest chain, for a chain's end is not known and counts as the way to the next. In a lap,
    used descriptors are those whose two marks both equal its wrap counter; of earlier laps none is left that does, for
    the driver has written every descriptor once in between.

    Where to begin shows in the ring: VIRTQ_DESC_F_AVAIL of a descriptor is the wrap counter of whoever wrote it last,
    driver or device, so it changes where the driver is; and the last used descriptor before that is the device's last.
    Behind that there may be more of its chain, which is no matter: nothing there will be used.

    :param read: gives the descriptor ring.
    :param size: its entries.
    """

    def __init__(self, read: Callable[[], bytes], size: int) -> None:
        self._read, self._size, self._mask = read, size, int.from_bytes(_HIGHEST * size, "little")
        self._position, self._wrap, self._count = self._begin()

    def __call__(self) -> int:
        """Look at the ring; the index."""
        ring = self._read()
        used, unused = self._marks(ring)
        if self._untouched(ring, self._size - 1):
            # The first lap: the marks of what nobody has written mean nothing.
            unused = 0
            if not self._wrap or (self._position and self._untouched(ring, self._position - 1)):
                # But we were further: the driver has made the ring anew.
                self._position, self._wrap = 0, True
        in_lap, in_next = (used, unused) if self._wrap else (unused, used)
        ahead, behind = in_lap >> 8 * self._position, in_next & _below(self._position)
        self._count += ahead.bit_count() + behind.bit_count()
        if behind:
            self._position, self._wrap = _end(behind), not self._wrap
        else:
            self._position += _end(ahead)
        return self._count & 0xFFFF

    def _untouched(self, ring: bytes, position: int) -> bool:
        """Whether no driver has written a descriptor since the ring was zeroed."""
        return not any(ring[DESCRIPTOR_SIZE * position : DESCRIPTOR_SIZE * (position + 1)])

    def _marks(self, ring: bytes) -> tuple[int, int]:
        """Descriptors with both marks set, and with neither: a byte's highest bit for each, so that a ring is a number
        and one look takes no loop."""
        avail = int.from_bytes(ring[_AVAIL_AT::DESCRIPTOR_SIZE], "little")
        used = int.from_bytes(ring[_USED_AT::DESCRIPTOR_SIZE], "little")
        return avail & used & self._mask, ~(avail | used) & self._mask

    def _begin(self) -> tuple[int, bool, int]:
        """A position behind the last used descriptor and before the next, the wrap counter of its lap, and how many
        used descriptors there are."""
        ring = self._read()
        both, neither = self._marks(ring)
        if self._untouched(ring, self._size - 1):
            return _end(both), True, both.bit_count()
        avail = int.from_bytes(ring[_AVAIL_AT::DESCRIPTOR_SIZE], "little") & self._mask
        lap = bool(avail & _HIGHEST[0])
        others = avail ^ (self._mask if lap else 0)
        driver = (others & -others).bit_length() // 8 - 1 if others else self._size
        here, before = (both, neither) if lap else (neither, both)
        of_lap, of_last = here & _below(driver), before & ~_below(driver)
        count = of_lap.bit_count() + of_last.bit_count()
        if of_lap:
            return _end(of_lap), lap, count
        if of_last:
            return _end(of_last), not lap, count
        # All are the device's.
        return (driver, not lap, 0) if others else (0, lap, 0)


def _below(position: int) -> int:
    return (1 << 8 * position) - 1


def _end(marks: int) -> int:
    """The position after the last that is marked; 0 if none is."""
    return marks.bit_length() // 8


class Stillness:
    """How long a ring has stood still with something that the device has to give back."""

    def __init__(self) -> None:
        self._since, self._used = 0.0, -1

    def look(self, now: float, used: int, outstanding: bool) -> float:
        """Take in how the ring stands; for how long it was seen to stand so with something to do. When that came is
        not known: a look may be late by seconds, so the first that sees it counts.

        :param now: seconds on some clock.
        """
        if not outstanding:
            self._used = -1
        elif used != self._used:
            self._since, self._used = now, used
        return now - self._since if outstanding else 0.0
