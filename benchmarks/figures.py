"""What a benchmark finds: samples taken side by side, their medians and quartiles, and the table of them.

Responsible for the arithmetic and for how a figure is shown; must not know how anything is measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

__all__ = ("Figure", "Spread", "difference", "plain", "ratio", "single", "table")

HEAD = ("figure", "value [quartiles]", "aim", "met", "of least", "with the plugin", "baseline", "n")


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some samples with its quartiles."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Of at least one sample."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0], 1)
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high, len(samples))

    def text(self, unit: str) -> str:
        """``4.21 s [4.18 4.30]``"""
        return f"{_rounded(self.median, unit)} {unit} [{_rounded(self.low, unit)} {_rounded(self.high, unit)}]"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    :param value: what is held against the aim, one for each pair of repetitions, in ``unit``: ``"x"`` is a ratio.
    :param ours: the samples with the plugin, in ``sample_unit``.
    :param baseline: the samples without it; empty where there is nothing to compare.
    :param aim: the most that ``value`` should be; None where no aim is set.
    :param notes: what else is worth knowing, a line each.
    """

    name: str
    value: tuple[float, ...]
    unit: str
    ours: tuple[float, ...]
    baseline: tuple[float, ...]
    sample_unit: str
    aim: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def verdict(self) -> str:
        """Whether the median meets the aim, and whether the quartiles leave that open."""
        if self.aim is None:
            return "-"
        spread = Spread.of(self.value)
        word = "yes" if spread.median <= self.aim else "no"
        return f"{word} (within the spread)" if spread.low <= self.aim < spread.high else word

    @property
    def of_least(self) -> float:
        """What the least samples of both sides give: a machine that others use too adds to time, and takes none off."""
        if not self.baseline:
            return min(self.ours)
        ours, bare = min(self.ours), min(self.baseline)
        return ours / bare if self.unit == "x" else ours - bare


def ratio(name: str, ours: Sequence[float], baseline: Sequence[float], unit: str, aim: float | None = None) -> Figure:
    """``ours`` in multiples of ``baseline``, pair by pair: what slows the machine down slows both of a pair."""
    value = tuple(a / b for a, b in zip(ours, baseline, strict=True))
    return Figure(name, value, "x", tuple(ours), tuple(baseline), unit, aim)


def difference(
    name: str, ours: Sequence[float], baseline: Sequence[float], unit: str, aim: float | None = None
) -> Figure:
    """What ``ours`` is more than ``baseline``, pair by pair."""
    value = tuple(a - b for a, b in zip(ours, baseline, strict=True))
    return Figure(name, value, unit, tuple(ours), tuple(baseline), unit, aim)


def single(name: str, samples: Sequence[float], unit: str, aim: float | None, notes: Iterable[str]) -> Figure:
    """Samples that are a cost in themselves."""
    return Figure(name, tuple(samples), unit, tuple(samples), (), unit, aim, tuple(notes))


def table(figures: Iterable[Figure]) -> str:
    """The figures in columns, and their notes below."""
    shown = list(figures)
    rows = [HEAD, *map(_row, shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *(f"{f.name}: {note}" for f in shown for note in f.notes)])


def plain(figure: Figure) -> dict[str, object]:
    """The figure as JSON has it: its samples, and what the table shows of them."""
    shown = {"spread": asdict(Spread.of(figure.value)), "of_least": figure.of_least, "verdict": figure.verdict}
    return asdict(figure) | shown


def _row(figure: Figure) -> tuple[str, ...]:
    value = Spread.of(figure.value)
    return (
        figure.name,
        value.text(figure.unit),
        "-" if figure.aim is None else f"<= {figure.aim:g} {figure.unit}",
        figure.verdict,
        f"{_rounded(figure.of_least, figure.unit)} {figure.unit}",
        Spread.of(figure.ours).text(figure.sample_unit),
        Spread.of(figure.baseline).text(figure.sample_unit) if figure.baseline else "-",
        str(value.count),
    )


def _rounded(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit in ("s", "x") else f"{value:.1f}"
