"""PCI functions as QEMU tells of them.

Responsible for the facts; must not know JSON, nor how a function is reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ("PciBar", "PciFunction")


@dataclass(frozen=True, slots=True)
class PciBar:
    """A base address register."""

    number: int
    space: Literal["memory", "io"]
    address: int | None
    """None while it is not decoded."""
    size: int = 0


@dataclass(frozen=True, slots=True)
class PciFunction:
    """One function on a PCI bus."""

    bus: int
    slot: int
    function: int
    qdev_id: str
    """The id of the QEMU device; ``""`` if it has none."""
    vendor: int
    device: int
    pin: int
    """Interrupt pin: 0 none, 1 INTA … 4 INTD."""
    behind: int | None
    """The slot of the bridge on bus 0 that it is behind; None on bus 0 itself."""
    is_bridge: bool
    bars: tuple[PciBar, ...] = ()

    def bar(self, number: int) -> PciBar | None:
        """A BAR by its number."""
        return next((found for found in self.bars if found.number == number), None)

    def address_of(self, bar: int) -> int | None:
        """Where a BAR is; None if there is none of this number, or it is not decoded."""
        return next((found.address for found in self.bars if found.number == bar), None)
