"""The sides of a negotiation, in words.

Responsible for a table and a line of facts; must not say whose fault a difference is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from pytest_virtio.model.negotiation import FeatureNegotiation
from pytest_virtio.render.text import safe

__all__ = ("backend_facts", "negotiation")

_SIDES: Final = {
    "device": "offered",
    "driver": "acknowledged",
    "backend offers": "backend_offers",
    "backend told": "backend_told",
}
_CELLS: Final = {True: "yes", False: "no", None: "?"}


def negotiation(rows: Iterable[FeatureNegotiation]) -> Iterator[str]:
    """Yield an aligned table: feature, device, driver, backend offers, backend told; then whose doing it is
    that QEMU does not see it, if it is the test's, and QEMU's property, if known.

    A side that tells of no feature, as the backend where there is none, has no column; what is not told is ``?``.
    """
    found = list(rows)
    sides = {title: side for title, side in _SIDES.items() if any(getattr(row, side) is not None for row in found)}
    table = [("feature", *sides, ""), *(_cells(row, sides.values()) for row in found)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table if found else ():
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cells(row: FeatureNegotiation, sides: Iterable[str]) -> tuple[str, ...]:
    notes = ["(masked by the test)"] if row.masked else []
    notes += [f"(property {safe(row.option)})"] if row.option else []
    return safe(row.feature), *(_CELLS[getattr(row, side)] for side in sides), " ".join(notes)


def backend_facts(rows: Iterable[FeatureNegotiation], features: Iterable[str]) -> Iterator[str]:
    """Yield a line that says which of some features the vhost backend offers and was told of; none if nobody tells.

    :param rows: all of the device.
    :param features: full names.
    """
    found, wanted = list(rows), set(features)
    facts = [
        f"{verb} {_some(row.feature for row in found if row.feature in wanted and getattr(row, side))}"
        for verb, side in (("offers", "backend_offers"), ("was told", "backend_told"))
        if any(getattr(row, side) is not None for row in found)
    ]
    if facts:
        yield "backend: " + ", ".join(facts)


def _some(features: Iterable[str]) -> str:
    return " and ".join(map(safe, features)) or "none of these"
