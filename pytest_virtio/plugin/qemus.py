"""Several QEMUs in one run: which tests run on each, and what their ids call them.

Responsible for telling the tests that run on what was given from those whose author has chosen a QEMU; must not know
how a version is found out. The only module that looks at a test's fixture definitions and parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio.errors import UsageError
from pytest_virtio.plugin.options import GivenQemu, given_qemus

__all__ = ("authors", "id_of", "ids", "is_open", "is_ours", "known_for", "side_of", "takes_the_runs")

_NAME = "virtio_qemu"
_OURS = "pytest_virtio."

Definitions = Mapping[str, Sequence[pytest.FixtureDef[Any]]]


def ids(given: Sequence[GivenQemu], version: Callable[[str], str | None]) -> list[str]:
    """What test ids call these QEMUs: its label, ``qemu-10.0``, or ``qemu-10.0.2`` where there are two of 10.0.

    One without a version is not there: it keeps the name that it was given by.

    :param version: of a program, ``"10.0.2"``; None if it can't be had.
    :raises UsageError: for two that can't be told apart.
    """
    known = [None if qemu.label else version(qemu.program) for qemu in given]
    short = [_id(qemu, found and found.rpartition(".")[0]) for qemu, found in zip(given, known, strict=True)]
    full = [_id(qemu, found) for qemu, found in zip(given, known, strict=True)]
    chosen = [one if short.count(one) == 1 else other for one, other in zip(short, full, strict=True)]
    for name in chosen:
        same = [qemu.program for qemu, its in zip(given, chosen, strict=True) if its == name]
        if len(same) > 1:
            raise UsageError(f"{' and '.join(same)} are both {name} to test ids: write --virtio-qemu=LABEL=PATH")
    return chosen


def _id(qemu: GivenQemu, version: str | None) -> str:
    return qemu.label or (f"qemu-{version}" if version else qemu.program)


def authors(axis: object) -> tuple[GivenQemu, ...]:
    """The QEMUs of a marker's matrix: a list of what ``--virtio-qemu`` takes, or a mapping of labels to that.

    :raises UsageError: for another form.
    """
    if axis is None:
        return ()
    if isinstance(axis, Mapping):
        axis = [f"{label}={program}" for label, program in axis.items()]
    if not isinstance(axis, list | tuple) or not axis:
        raise UsageError(f"matrix: qemu: a list of QEMUs is expected: {[axis]!r}")
    try:
        return given_qemus([str(qemu) for qemu in axis])
    except pytest.UsageError as error:
        raise UsageError(f"matrix: {error}") from None


def is_open(metafunc: pytest.Metafunc) -> bool:
    """Whether a test takes the run's QEMU and is not parametrised by another."""
    chosen = any(_NAME in call.params for call in metafunc._calls)
    return not chosen and is_ours(metafunc.definition, _NAME)


def side_of(item: pytest.Item, given: Sequence[GivenQemu]) -> int | None:
    """Which of the run's QEMUs a test is on, from 0; None where its author has chosen one."""
    parameter = _parameter(item)
    return given.index(parameter) if isinstance(parameter, GivenQemu) and parameter in given else None


def id_of(item: pytest.Item) -> str:
    """What the id of a test that was parametrised by QEMU here calls it: it comes last."""
    name: str = item.callspec._idlist[-1]  # type: ignore[attr-defined]  # of a function that has parameters
    return name


def takes_the_runs(item: pytest.Item) -> bool:
    """Whether a test runs on what was given for the run, as far as its author lets pytest see."""
    return is_ours(item, _NAME)


def known_for(item: pytest.Item, given: Sequence[GivenQemu]) -> str | Path | None:
    """The QEMU that a test is to run on; None where that is not settled."""
    found = _parameter(item) or (given[0] if len(given) == 1 else None)
    return found.program if isinstance(found, GivenQemu) else found


def is_ours(test: pytest.Item, name: str) -> bool:
    """Whether a test takes a fixture of ours, or one that overrides it and asks for ours."""
    definitions: Definitions = getattr(getattr(test, "_fixtureinfo", None), "name2fixturedefs", {})
    for definition in reversed(definitions.get(name, ())):
        if definition.func.__module__.startswith(_OURS):
            return True
        if name not in definition.argnames:
            break
    return False


def _parameter(item: pytest.Item) -> GivenQemu | str | Path | None:
    found: GivenQemu | str | Path | None = getattr(getattr(item, "callspec", None), "params", {}).get(_NAME)
    return found
