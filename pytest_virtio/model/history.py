"""The history of a device status: its steps, whose they are, and how often the last driver began.

Responsible for the values and for pure judgements on them; must not know how the steps were recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from pytest_virtio.spec.status import INITIALISATION_ORDER, status_names

__all__ = ("History", "StatusStep", "finished", "passes_of_last_driver")


@dataclass(frozen=True, slots=True)
class StatusStep:
    """The device status became another, or was reset with the machine.

    :param seconds: since the machine was there (its power-on reset); in a polled history since the first look.
    :param value: the status, 8 bits.
    :param by_machine: a reset that came with the machine's or the bus's, and not by a driver's write.
    """

    seconds: float
    value: int
    by_machine: bool = False

    @property
    def status(self) -> frozenset[str]:
        """The names of the bits that are set; unknown bits stand together as one hexadecimal number."""
        return status_names(self.value)

    @property
    def driver_ok(self) -> bool:
        """A driver finished its set-up, and neither side gave up."""
        return "DRIVER_OK" in self.status and not self.status & {"FAILED", "NEEDS_RESET"}

    def __str__(self) -> str:
        """``0.0312 s: ACKNOWLEDGE DRIVER``: the bits in the order in which a driver sets them, others behind."""
        known = [flag.name for flag in INITIALISATION_ORDER if flag.name in self.status]
        names = [*known, *sorted(self.status.difference(known))]
        return f"{self.seconds:.4f} s: {' '.join(names) or ('machine reset' if self.by_machine else 'reset')}"


@dataclass(frozen=True, slots=True)
class History(Sequence[StatusStep]):
    """The steps of a device status, oldest first. Writes that change nothing are no steps.

    NEEDS_RESET, and a FEATURES_OK that the device refuses, are QEMU's doing: their step has the time at which they
    were seen.

    :param steps: the last of them.
    :param source: by which way they were recorded: ``"trace events"``, with more words once QEMU has ended and they
        can't be compared with the status; or ``"polling…"`` with the reason, where steps between two looks are missed.
    :param dropped: how many older steps are not kept.
    :param full: the log was full: newer steps are not known.
    """

    steps: tuple[StatusStep, ...]
    source: str
    dropped: int = 0
    full: bool = False

    @overload
    def __getitem__(self, index: int) -> StatusStep: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[StatusStep, ...]: ...
    def __getitem__(self, index: int | slice) -> StatusStep | tuple[StatusStep, ...]:
        return self.steps[index]

    def __len__(self) -> int:
        return len(self.steps)

    def __str__(self) -> str:
        """A line for each step, between lines that say what is missing, and one with the source."""
        older = [f"({self.dropped} older steps are not kept)"] if self.dropped else []
        newer = ["(the log is full: newer steps are not known)"] if self.full else []
        return "\n".join([*older, *map(str, self.steps), *newer, f"source: {self.source}"])

    @property
    def polled(self) -> bool:
        """Whether steps may be missing because the status was only looked at now and then."""
        return self.source.startswith("polling")

    @property
    def drivers(self) -> tuple[tuple[StatusStep, ...], ...]:
        """The steps of each driver that wrote the status: firmware, kernel and a user-space driver take a device one
        after the other, and each begins with a reset. One that begins anew is here again."""
        return tuple(steps for steps in self.groups if any(step.value for step in steps))

    @property
    def groups(self) -> tuple[tuple[StatusStep, ...], ...]:
        """All steps, from each reset to before the next one; also resets that no driver followed."""
        groups: list[list[StatusStep]] = []
        for step in self.steps:
            if not step.value or not groups:
                groups.append([])
            groups[-1].append(step)
        return tuple(tuple(group) for group in groups)

    @property
    def last(self) -> tuple[StatusStep, ...]:
        """The steps of the last driver, also when the device was reset after it; empty when there was none."""
        return self.drivers[-1] if self.drivers else ()


def finished(steps: Sequence[StatusStep]) -> bool:
    """Whether a driver reached DRIVER_OK in these steps, and did not give the device up."""
    return any("DRIVER_OK" in step.status for step in steps) and "FAILED" not in steps[-1].status


def passes_of_last_driver(history: History, *, alone: bool) -> tuple[tuple[StatusStep, ...], ...]:
    """The passes that the last driver made since the machine was reset, oldest first: each from a reset on.

    A pass that ended before DRIVER_OK belongs to the driver that began anew after it. One that reached DRIVER_OK was
    another driver's: firmware hands over to a kernel like that. A guest that only acknowledges the device makes none.

    :param alone: whether nothing but that driver runs in the guest; then all passes are its own.
    """
    passes: list[tuple[StatusStep, ...]] = []
    for steps in reversed(history.drivers):
        if passes and (passes[0][0].by_machine or (finished(steps) and not alone)):
            break
        if any("DRIVER" in step.status for step in steps):
            passes.insert(0, steps)
    return tuple(passes)
