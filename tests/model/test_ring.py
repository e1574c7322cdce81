"""What a ring comes to."""

from __future__ import annotations

import pytest

from pytest_virtio.model.ring import Ring, RingElement

PENDING = RingElement(head=1, slot=1, state="pending")
USED = RingElement(head=2, slot=2, state="used")


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"avail_idx": 2, "used_idx": 65534}, 4),
        ({"avail_idx": 2, "used_idx": 65534, "faults": ("moved",)}, 4),
        ({"packed": True, "used_idx": 7}, 0),
        ({"packed": True, "used_idx": 7, "elements": (PENDING, USED)}, 1),
        # Of a packed ring the rest may be known by number only, and is outstanding all the same.
        ({"packed": True, "used_idx": 7, "untold": 2}, 2),
        ({"packed": True, "faults": ("positions are not told",)}, None),
    ],
)
def test_count(fields: dict[str, object], count: int | None) -> None:
    place: dict[str, object] = {"num": 8, "desc": 1, "avail": 2, "used": 3, "packed": False, **fields}
    assert Ring(name="virtio-blk", queue_index=0, source="test", **place).count == count  # type: ignore[arg-type]
