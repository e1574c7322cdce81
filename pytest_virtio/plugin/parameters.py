"""What a test is called whatever it runs on: its name, and the variants that its author made of it.

Responsible for telling his parameters from those that the command line gave the test, and for leaving out versions of
QEMU and kernels, which are what a test is run against. Must not know what the name is for. The only module that takes a
test's id apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

__all__ = ("name_of", "variant")

_QEMU, _MATRIX = "virtio_qemu", "virtio_variant"


def name_of(item: pytest.Item) -> str:
    """``"TestMq.test_offload"``: without parameters and file."""
    classes = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
    return ".".join([*classes, getattr(item, "originalname", None) or item.name])


def variant(item: pytest.Item) -> str:
    """The part of the test's id that its author's parameters make: ``"mtu9000-pci"``; ``""`` without any."""
    call = getattr(item, "callspec", None)
    if call is None:
        return ""
    groups = _groups(item, call.params)
    if len(groups) != len(call._idlist):
        # One that is hidden from ids; which it is, nothing tells.
        return str(call.id)
    return "-".join(part for names, id in zip(groups, call._idlist, strict=True) for part in _parts(names, id, call))


def _groups(item: pytest.Item, params: dict[str, Any]) -> list[tuple[str, ...]]:
    """The names that one id stands for, in the order of ids: ``parametrize("a,b", …)`` gives two names one id."""
    together = {name: names for mark in item.iter_markers("parametrize") for names in (_names(mark),) for name in names}
    return list(dict.fromkeys(together.get(name, (name,)) for name in params))


def _names(mark: pytest.Mark) -> tuple[str, ...]:
    given = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
    names = given.split(",") if isinstance(given, str) else given
    return tuple(name.strip() for name in names if name.strip())


def _parts(names: tuple[str, ...], id: str, call: Any) -> Iterator[str]:
    if names == (_MATRIX,):
        yield from (point.id for point in call.params[_MATRIX] if point.authors and point.axis != "kernel")
    elif names != (_QEMU,):
        yield id
