"""What may be said of the witness on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_virtio import Delay, Drop, Rewrite, UsageError, VhostUserBlk, Wire
from pytest_virtio.declare.wire import Mask


@pytest.mark.parametrize(
    "said",
    [
        lambda: Wire(Delay("GET_CONFIG", 1)),  # type: ignore[arg-type]
        lambda: Wire({True}),
        lambda: Wire(mask={1.5}),  # type: ignore[arg-type]
        lambda: Wire(faults=Drop("GET_CONFIG")),  # type: ignore[arg-type]
        lambda: VhostUserBlk(wire=Wire(faults=("GET_CONFIG",))),  # type: ignore[arg-type]
    ],
)
def test_what_is_neither_mask_nor_fault_is_refused(said: Any) -> None:
    with pytest.raises(UsageError, match=r"^Wire\("):
        said()


@pytest.mark.parametrize(
    "said",
    [
        lambda: VhostUserBlk(wire="yes"),  # type: ignore[arg-type]
        lambda: VhostUserBlk(mask=5),  # type: ignore[arg-type]
        lambda: VhostUserBlk(mask=[None]),  # type: ignore[list-item]
        lambda: Rewrite("SET_VRING_KICK", 5),  # type: ignore[arg-type]
    ],
)
def test_what_means_nothing_is_refused(said: Any) -> None:
    with pytest.raises(UsageError, match="expected"):
        said()


def test_masks_join() -> None:
    device = VhostUserBlk(wire=Wire({"A"}, [Drop("GET_CONFIG")]), mask=["B"])
    assert device.backend.wire == Wire(frozenset({"A", "B"}), [Drop("GET_CONFIG")])  # type: ignore[union-attr]


@pytest.mark.parametrize("mask", ["A", ["A"], ("A",), {"A"}, frozenset({"A"})])
def test_one_takes_what_the_other_takes(mask: Mask) -> None:
    of_wire, of_device = Wire(mask=mask), VhostUserBlk(mask=mask).backend.wire  # type: ignore[union-attr]
    assert of_wire.masked == of_device.masked == {"A"}  # type: ignore[union-attr]
