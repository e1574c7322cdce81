"""The axes of a matrix: what is varied, by which values, and what test ids call these.

Responsible for the forms that the marker's ``matrix=`` and ``--virtio-matrix`` take, and for refusing others; must not
know tests, nor which properties a device has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from pytest_virtio.errors import UnknownNameError, UsageError

__all__ = ("KEYWORDS", "Axes", "Point", "Variant", "authors_axes", "given_axis", "id_of", "value_in", "variants")

KEYWORDS = ("machine", "transport", "guest", "kernel", "cpus", "memory")
"""Axes that are no device property, in the order in which ids name them."""

_SETTLED = ("args", "boot", "timeout", "stall", "devices")
"""What a marker takes, or might be thought to take, that a matrix doesn't vary."""

_LISTED = "a list, or a mapping of labels to values, is expected"


class Point(NamedTuple):
    """One value of an axis."""

    axis: str
    """One of :data:`KEYWORDS`, or a device property with ``_`` for ``-``; ``net0.mrg_rxbuf`` is that of one device."""
    value: Any
    id: str
    """What test ids call it: letters, digits, ``.``, ``_``, ``+`` and ``-``, which ``-k`` and file names can take."""
    authors: bool
    """Whether the test's author has varied it; the run's option has otherwise."""


Variant = tuple[Point, ...]
"""One point on each axis: one run of a test."""

Axes = Mapping[str, tuple[Point, ...]]


def authors_axes(matrix: Mapping[str, object]) -> dict[str, tuple[Point, ...]]:
    """What a marker's ``matrix=`` says, but for its QEMUs.

    :raises UsageError: for what is no axis, has no values, or has values that ids can't tell apart.
    """
    return {_known(axis): _points(_known(axis), values, True) for axis, values in matrix.items() if axis != "qemu"}


def given_axis(text: str, beside: Path | None = None) -> tuple[Point, ...]:
    """What one ``--virtio-matrix`` says: ``transport=pci,mmio``.

    :param beside: the directory that a kernel's path is relative to; the current one by default.
    :raises UsageError: as :func:`authors_axes`, and for another form.
    """
    axis, equals, values = text.partition("=")
    listed = [value.strip() for value in values.split(",")]
    if not equals or not all(listed):
        raise UsageError(f"{text!r}: AXIS=VALUE,VALUE is expected: transport=pci,mmio")
    if axis.strip() == "qemu":
        many = " ".join(f"--virtio-qemu={value}" for value in listed)
        raise UsageError(f"{text!r}: the QEMUs of a run are given by {many}")
    return _points(_known(axis.strip()), listed, False, beside)


def variants(axes: Axes) -> list[Variant]:
    """All combinations, each in the order in which ids name the axes: :data:`KEYWORDS`, then properties as given."""
    order = [*(axis for axis in KEYWORDS if axis in axes), *(axis for axis in axes if axis not in KEYWORDS)]
    return list(product(*(axes[axis] for axis in order)))


def id_of(points: Iterable[Point]) -> str:
    """What a test's id calls these points."""
    return "-".join(point.id for point in points)


def value_in(variant: Variant, axis: str, otherwise: Any) -> Any:
    """The variant's value on an axis, if it is one of the variant's."""
    return next((point.value for point in variant if point.axis == axis), otherwise)


def _known(axis: object) -> str:
    """The axis by its one spelling."""
    if not isinstance(axis, str) or axis in _SETTLED or not re.fullmatch(r"([A-Za-z][\w.-]*\.)?[A-Za-z][\w-]*", axis):
        raise UnknownNameError("axis of the matrix", str(axis), (*KEYWORDS, "qemu"), "Device properties are axes too.")
    device, dot, name = axis.rpartition(".")
    return f"{device}{dot}{name.replace('-', '_')}"


def _points(axis: str, values: object, authors: bool, beside: Path | None = None) -> tuple[Point, ...]:
    if isinstance(values, Mapping):
        labelled = [(str(label), value) for label, value in values.items()]
    elif isinstance(values, Sequence) and not isinstance(values, str):
        labelled = [_labelled(axis, value) for value in values]
    else:
        raise UsageError(f"matrix: {axis}: {_LISTED}: {[values]!r}")
    if not labelled:
        raise UsageError(f"matrix: {axis} has no values: {_LISTED}")
    points = tuple(Point(axis, _value(axis, value, beside), _id(axis, label), authors) for label, value in labelled)
    _refuse_alike(points)
    return points


def _labelled(axis: str, value: object) -> tuple[str, object]:
    """The value with what it is called where no mapping labels it."""
    if axis != "kernel":
        return _name(value), value
    label, equals, path = str(value).partition("=")
    if equals and "/" not in label:
        return label, path
    return Path(str(value)).name, value


def _name(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    # A guest with settings is called by its kind, as one without.
    return str(value) if isinstance(value, str | int | Path) else type(value).__name__.lower()


def _value(axis: str, value: object, beside: Path | None) -> object:
    if axis not in KEYWORDS and not isinstance(value, str | int | Path):
        raise UsageError(f"matrix: {axis}: {value!r}: a device property is a string, a number, a truth value or a path")
    if axis == "kernel":
        path = Path(str(value)).expanduser()
        return (beside / path if beside else path).absolute()
    # The option has only texts.
    return int(value) if axis == "cpus" and isinstance(value, str) and value.isdecimal() else value


def _id(axis: str, label: str) -> str:
    """Made of what ``-k`` takes and what a file of that name may have on any system."""
    called = re.sub(r"[^A-Za-z0-9._+-]+", "_", label).strip("_")
    if not called:
        raise UsageError(f"matrix: {axis}: {label!r} has nothing that a test id can be made of: write {{label: value}}")
    return called if axis in ("machine", "transport", "guest", "kernel") else f"{axis}-{called}"


def _refuse_alike(points: Sequence[Point]) -> None:
    ids = [point.id for point in points]
    twice = next((point for point in points if ids.count(point.id) > 1), None)
    if twice is not None:
        raise UsageError(f"matrix: {twice.axis} has two values that test ids call {twice.id!r}: write {{label: value}}")
