"""PCI functions as QEMU tells of them.

Responsible for the facts; must not know JSON, nor how a function is reached.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("PciFunction",)


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
