"""A ring in a few lines: an idle one in one, and whatever is in it safe to print."""

from __future__ import annotations

from pytest_virtio import render
from pytest_virtio.model.queue import VirtioRingDesc
from pytest_virtio.model.ring import Ring, RingElement


def ring(*elements: RingElement, **fields: object) -> Ring:
    known: dict[str, object] = {"avail_idx": 520, "used_idx": 515, "desc": 1, "avail": 2, "used": 3, **fields}
    return Ring(name="virtio-blk", queue_index=0, packed=False, num=256, elements=elements, source="test", **known)  # type: ignore[arg-type]


def test_an_idle_ring_takes_a_line() -> None:
    idle = ring(avail_idx=515)
    assert list(render.ring_picture(idle)) == ["  ring (split, 256 entries): avail_idx 515, used_idx 515, idle"]
    (unread,) = render.ring_picture(ring(avail_idx=None, used_idx=None, faults=()))
    assert unread.endswith("entries): idle")
    assert not any("idle" in line for line in render.ring_picture(ring()))
    assert not any("idle" in line for line in render.ring_picture(ring(avail_idx=None, faults=("not read",))))


def test_one_in_flight_that_the_rings_no_longer_tell() -> None:
    perhaps = RingElement(head=0, slot=7, state="candidate", descs=(VirtioRingDesc(0x1000, 16, frozenset()),))
    known = ring(avail_idx=516, last_avail_idx=516, untold=1, candidates=(perhaps,))
    assert list(render.ring_picture(known)) == [
        "  ring (split, 256 entries): avail_idx 516, last_avail_idx 516, used_idx 515, "
        "1 in flight (which one the rings no longer tell)",
        "    perhaps: head 0 in slot 7: 0x1000+16",
    ]
    more, *_ = render.ring_picture(ring(untold=5))
    assert more.endswith("5 in flight or pending (which ones the rings no longer tell)")


def test_what_is_outstanding_is_shown_and_the_rest_counted() -> None:
    descs = (VirtioRingDesc(0x1000, 16, frozenset({"next"})), VirtioRingDesc(0x2000, 512, frozenset({"write"})))
    flight = [RingElement(head=n, slot=n, state="in_flight", descs=descs, indirect=not n) for n in range(6)]
    pending = RingElement(head=9, slot=9, state="pending", faults=("next is 300",))
    assert list(render.ring_picture(ring(*flight, pending, no_notify=True, faults=("used \x1b[31m",)))) == [
        "  ring (split, 256 entries): avail_idx 520, used_idx 515, the device wants no kicks, 6 in flight, 1 pending",
        "    in flight: head 0 in slot 0 (indirect): 0x1000+16, 0x2000+512 write",
        *(f"    in flight: head {n} in slot {n}: 0x1000+16, 0x2000+512 write" for n in (1, 2, 3)),
        "    and 2 more in flight",
        "    pending: head 9 in slot 9: -",
        "      wrong: next is 300",
        "    wrong: used \\x1b[31m",
    ]
