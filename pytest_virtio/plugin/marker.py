"""The marker: how the marks on a test, its class and its module become one declaration.

Responsible for the merge (keywords and axes of the matrix from all, the closest wins; devices from the closest that
names any); must not know what the keywords mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from pytest_virtio.errors import UsageError

__all__ = ("Marked", "marked", "pytest_runtest_setup")

_MATRIX = "matrix"


class Marked(NamedTuple):
    """What the marks on one test say together."""

    devices: Sequence[object]
    options: dict[str, Any]
    matrix: dict[str, object]
    """The values of each axis that is varied, as the author wrote them; none of these is among the options."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a test whose own mark declares devices and that takes no fixture to boot them: it would pass unseen.

    Marks of classes and modules are left alone, for not each of their tests need have a VM.

    :raises UsageError: naming the fixture.
    """
    declares = any(mark.name == "virtio" and mark.args for mark in item.own_markers)
    if declares and not {"virtio", "virtio_devices", "virtio_factory"} & set(getattr(item, "fixturenames", ())):
        raise UsageError("the virtio mark boots nothing by itself: take the `virtio` fixture, def test_x(virtio)")
    varies = any(mark.name == "virtio" and _MATRIX in mark.kwargs for mark in item.own_markers)
    if varies and "virtio" not in getattr(item, "fixturenames", ()):
        raise UsageError("only the `virtio` fixture boots what a matrix says: take it, def test_x(virtio)")


def marked(node: pytest.Item) -> Marked:
    """Merge the ``virtio`` marks of a test. A keyword replaces an axis of that name which a farther mark varies, and
    the other way round.

    :raises UsageError: for a keyword that the marker does not take, or that one mark both sets and varies.
    """
    from pytest_virtio.declare.spec import check_keywords

    closest_first = list(node.iter_markers("virtio"))
    options: dict[str, Any] = {}
    matrix: dict[str, object] = {}
    for mark in reversed(closest_first):
        check_keywords(mark.kwargs, _MATRIX)
        own = {name: value for name, value in mark.kwargs.items() if name != _MATRIX}
        axes = _axes(mark.kwargs.get(_MATRIX, {}), own)
        options = {name: value for name, value in options.items() if name not in axes} | own
        matrix = {axis: values for axis, values in matrix.items() if axis not in own} | axes
    devices = next((mark.args for mark in closest_first if mark.args), ())
    return Marked(devices, options, matrix)


def _axes(matrix: object, own: Mapping[str, object]) -> dict[str, object]:
    """The axes of one mark.

    :param own: its other keywords.
    """
    if not isinstance(matrix, Mapping):
        raise UsageError(f'matrix={matrix!r}: axes and their values are expected: {{"transport": ["pci", "mmio"]}}')
    for name in own:
        if name in matrix:
            raise UsageError(f"matrix: {name}= is set by the same mark: leave it to one of them")
    return dict(matrix)
