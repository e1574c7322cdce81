"""Which heads a device holds, by what the avail and the used ring of a split virtqueue still remember.

Responsible for that judgement alone, and for making none that the rings do not prove; must not know how a ring is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ("IDX", "candidates", "held")

IDX = 0xFFFF
"""Indices are free-running numbers of 16 bits (virtio 1.3 sections 2.7.6 and 2.7.8)."""
_CANDIDATES = 64
"""How many heads are looked into, each in time that grows with the ring's size."""


def held(heads: Sequence[int], ids: Sequence[int], used_idx: int, count: int, room: int) -> list[int] | None:
    """The avail indices of the heads that the device took and has not given back, oldest first.

    :param heads: the avail ring, by slot.
    :param ids: the used ring, by slot.
    :param count: how many the device holds.
    :param room: how many entries before ``used_idx`` the avail ring still has.
    :return: None when the rings do not prove it.
    """
    if not room and len(set(heads)) == len(heads):
        # The driver has given away all the heads that there are, each once.
        return [used_idx + index & IDX for index in range(count)]
    avail, used = _laps(heads, ids, used_idx, room)
    if _is_first_lap(ids, used_idx, room):
        used = {index: id for index, id in used.items() if index >= -used_idx}
        found = _by_counting(avail, used, count)
    else:
        found = _proven(avail, used, count)
    return None if len(found) != count else [used_idx + index & IDX for index in sorted(found)]


def candidates(heads: Sequence[int], ids: Sequence[int], used_idx: int, count: int, room: int) -> list[int]:
    """The avail indices of all heads, of those that the avail ring remembers, which may be among those that the device
    holds, the newest first. Parameters are as for :func:`held`."""
    found = _unanswered(*_laps(heads, ids, used_idx, room), count)
    return [used_idx + index & IDX for index, _ in sorted(found, reverse=True)]


def _laps(heads: Sequence[int], ids: Sequence[int], used_idx: int, room: int) -> tuple[dict[int, int], dict[int, int]]:
    """Both rings by indices relative to ``used_idx``: avail's run from -room to beyond, used ones from -size to -1."""
    size = len(heads)
    avail = {index: heads[(used_idx + index & IDX) % size] for index in range(-room, size - room)}
    return avail, {index: ids[(used_idx + index & IDX) % size] for index in range(-size, 0)}


def _is_first_lap(ids: Sequence[int], used_idx: int, room: int) -> bool:
    """Whether both rings hold all their history: the slots to come have never been written."""
    return used_idx <= room and not any(ids[used_idx:])


def _by_counting(avail: dict[int, int], used: dict[int, int], count: int) -> list[int]:
    """With all history, a head is held that was made available once more often than it was used."""
    taken = {index: head for index, head in avail.items() if -len(used) <= index < count}
    more = Counter(taken.values())
    more.subtract(Counter(used.values()))
    latest = {head: index for index, head in sorted(taken.items())}
    return [latest[head] for head, times in more.items() if times == 1 and head in latest]


def _proven(avail: dict[int, int], used: dict[int, int], count: int) -> list[int]:
    """The taken entries whose heads can't have come back since."""
    latest_use = {head: index for index, head in sorted(used.items())}
    found = _unanswered(avail, used, count)
    if len(found) > _CANDIDATES:
        return []
    return [index for index, head in found if _came_later(index, latest_use.get(head), avail, used)]


def _unanswered(avail: dict[int, int], used: dict[int, int], count: int) -> list[tuple[int, int]]:
    """The latest entry of each head whose latest use may have been of an earlier one."""
    latest_use = {head: index for index, head in sorted(used.items())}
    latest = {head: index for index, head in sorted(avail.items()) if index < count}
    # What was used at an index was made available before one so high, so the use came later.
    return [(index, head) for head, index in latest.items() if index > latest_use.get(head, -len(used) - 1)]


def _came_later(index: int, use: int | None, avail: dict[int, int], used: dict[int, int]) -> bool:
    """Whether a head was made available, at ``index``, after its latest use.

    Were that use of it, everything used from then on would have been available by then or have been made so after
    ``index``; a head that was used more often in that time has not, so that use was of an earlier time.
    """
    since = Counter(head for where, head in used.items() if use is None or where > use)
    again = Counter(head for where, head in avail.items() if where > index)
    return any(times - 1 > again[head] for head, times in since.items())
