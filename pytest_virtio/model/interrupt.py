"""How a device reaches the driver: INTx, MSI-X or an MMIO device's line, and how far an interrupt has come.

Responsible for the facts and their names; must not know how they were read, nor decide who is stuck.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ("Interrupt", "Intx", "MmioInterrupt", "Msix")

Told = Iterator[tuple[str, object]]


@dataclass(frozen=True, slots=True)
class Intx:
    """The function's pin, for all its queues and for changes of its configuration (PCI 3.0 section 6.2.3).

    :param asserted: nobody has read the ISR status since the device interrupted; also while ``disabled``.
    :param disabled: by the driver, in the command register.
    """

    asserted: bool
    disabled: bool = False

    @property
    def untaken(self) -> bool:
        """The device has interrupted, and nobody has taken it yet."""
        return self.asserted

    def told(self) -> Told:
        """Yield the facts by name."""
        yield "INTx asserted", self.asserted
        yield "INTx disabled by the driver", self.disabled


@dataclass(frozen=True, slots=True)
class Msix:
    """A message of its own, or shared with other queues (PCI 3.0 section 6.8.2).

    :param vector: None if the driver mapped none: the device can't interrupt.
    :param masked: by the driver, in the vector's entry; likewise ``function_masked`` all vectors at once.
    :param pending: the device would have interrupted, and was masked.
    """

    vector: int | None
    masked: bool = False
    function_masked: bool = False
    pending: bool = False

    @property
    def untaken(self) -> bool:
        """The device has interrupted, and nobody has taken it yet. Of a message that was sent nothing tells."""
        return self.pending

    def told(self) -> Told:
        """Yield the facts by name."""
        yield "MSI-X vector", "none" if self.vector is None else self.vector
        yield "MSI-X masked", self.masked
        yield "MSI-X function masked", self.function_masked
        yield "MSI-X pending", self.pending


@dataclass(frozen=True, slots=True)
class MmioInterrupt:
    """An MMIO device's line (virtio 1.3 section 4.2.2).

    :param used_buffer: bit 0 of InterruptStatus: nobody has acknowledged that a buffer of some queue was used.
    """

    used_buffer: bool

    @property
    def untaken(self) -> bool:
        """The device has interrupted, and nobody has taken it yet."""
        return self.used_buffer

    def told(self) -> Told:
        """Yield the facts by name."""
        yield "InterruptStatus used buffer", self.used_buffer


Interrupt = Intx | Msix | MmioInterrupt
