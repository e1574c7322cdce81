"""What a test is called whatever it runs on: its name, and the variants that its author made of it.

Responsible for telling his parameters from those that the command line gave the test, and for leaving out versions of
QEMU and kernels, which are what a test is run against. Must not know what the name is for. The only module that takes a
test's id apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
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
    named = zip(_named(item, call), call._idlist, strict=True)
    return "-".join(part for names, id in named for part in _parts(names, id, call))


def _named(item: pytest.Item, call: Any) -> list[tuple[str, ...]]:
    """The names that each part of the id stands for; none for a part of which nothing tells what it stands for."""
    groups = _groups(item, call.params)
    if len(groups) == len(call._idlist):
        return groups
    # The author has hidden one from ids, any of his. Ours never are, and come last.
    ours = list(takewhile(lambda names: _is_ours(names, call), reversed(groups)))
    return [()] * (len(call._idlist) - len(ours)) + ours[::-1]


def _is_ours(names: tuple[str, ...], call: Any) -> bool:
    from pytest_virtio.plugin.options import GivenQemu

    return names == (_MATRIX,) or (names == (_QEMU,) and isinstance(call.params[_QEMU], GivenQemu))


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
