"""A virtqueue decoded from guest RAM, by somebody who is neither its driver nor its device.

Responsible for what split and packed rings share: what must be told beforehand, the protocol by which RAM is read, and
bounds. It must not know who tells, nor where RAM comes from. RAM is hostile: whatever stands there, decoding ends after
a bounded number of steps, reads nothing but the ring and its tables, and does not raise; what is wrong is said in
``faults``. Whether the buffers themselves lie in RAM is not judged: a device may well reach memory that we can't.
"""

from __future__ import annotations

from pytest_virtio.model.ring import Ring, RingElement
from pytest_virtio.ring.decode_packed import decode as decode_packed
from pytest_virtio.ring.decode_split import decode as decode_split
from pytest_virtio.ring.decode_split import decode_slot as decode_split_slot
from pytest_virtio.ring.told import ReadableMemory, Told
from pytest_virtio.spec.ring import MAX_SIZE

__all__ = ("ReadableMemory", "Told", "decode", "decode_slot")


def decode(memory: ReadableMemory, told: Told) -> Ring:
    """Decode a ring. It never raises.

    Which elements are in flight follows from what both rings remember, the last ``num`` elements. Where that does not
    tell, a fault says how many are. What no ring can tell: whether the device has held an element for longer, while it
    gave back others that all had the same head.
    """
    if not 0 < told.num <= MAX_SIZE:
        return told.ring(faults=(f"num is {told.num}: a ring has 1 to {MAX_SIZE} entries",))
    return decode_packed(memory, told) if told.packed else decode_split(memory, told)


def decode_slot(memory: ReadableMemory, told: Told, slot: int) -> tuple[Ring, RingElement | None]:
    """Decode a split ring, and the chain whose head stands in a slot of the avail ring, whatever has become of it.

    :param slot: modulo ``num``. The element is None where the ring can't be read; one that is neither pending nor known
        to be in flight is ``outstanding`` here.
    """
    return decode_split_slot(memory, told, slot) if 0 < told.num <= MAX_SIZE else (decode(memory, told), None)
