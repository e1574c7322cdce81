"""The marker: how the marks on a test, its class and its module become one declaration.

Responsible for the merge (keywords from all, the closest wins; devices from the closest that names any); must not
know what the keywords mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from pytest_virtio.errors import UsageError

__all__ = ("Marked", "marked", "pytest_runtest_setup")


class Marked(NamedTuple):
    """What the marks on one test say together."""

    devices: Sequence[object]
    options: dict[str, Any]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a test whose own mark declares devices and that takes no fixture to boot them: it would pass unseen.

    Marks of classes and modules are left alone, for not each of their tests need have a VM.

    :raises UsageError: naming the fixture.
    """
    declares = any(mark.name == "virtio" and mark.args for mark in item.own_markers)
    if declares and not {"virtio", "virtio_devices", "virtio_factory"} & set(getattr(item, "fixturenames", ())):
        raise UsageError("the virtio mark boots nothing by itself: take the `virtio` fixture, def test_x(virtio)")


def marked(node: pytest.Item) -> Marked:
    """Merge the ``virtio`` marks of a test.

    :raises UsageError: for a keyword that the marker does not take.
    """
    from pytest_virtio.declare.spec import check_keywords

    closest_first = list(node.iter_markers("virtio"))
    options: dict[str, Any] = {}
    for mark in reversed(closest_first):
        check_keywords(mark.kwargs)
        options |= mark.kwargs
    devices = next((mark.args for mark in closest_first if mark.args), ())
    return Marked(devices, options)
