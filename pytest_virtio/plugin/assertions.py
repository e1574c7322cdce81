"""What a plain ``assert`` on features shows when it fails.

Responsible for handing such a comparison to ``render`` and for putting the verdict first, since that line is what
pytest's summary shows; must not know how a comparison is worded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_virtio.model.features import Features

__all__ = ("pytest_assertrepr_compare",)


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """Explain a failed comparison with a ``Features``; leave all others to pytest."""
    # Nobody holds a Features before its module is loaded, and loading it here would cost every failing test.
    module = sys.modules.get("pytest_virtio.model.features")
    if module is None or not any(isinstance(side, module.Features) for side in (left, right)):
        return None
    from pytest_virtio.render import compare_features

    lines = list(compare_features(op, left, right))
    return [_verdict(op, left, right, module.Features) or f"features: {op}", *lines] if lines else None


def _verdict(op: str, left: Any, right: Any, kind: type[Features]) -> str:
    """What is missing or too much, the first of it by name; "" if neither is."""
    if op in ("in", "not in") and isinstance(right, kind):
        name = right.feature_names.name(right.feature_names.bit(left))
        return _missing([name], right) if op == "in" else f"{name} is there, but unwanted"
    for holder, wanted, when in ((left, right, (">=", ">", "==")), (right, left, ("<=", "<", "=="))):
        if op in when and isinstance(holder, AbstractSet) and isinstance(wanted, AbstractSet):
            said = _lacking(holder, wanted, kind)
            if said:
                return said
    return ""


def _lacking(holder: AbstractSet[Any], wanted: AbstractSet[Any], kind: type[Features]) -> str:
    if isinstance(holder, kind):
        return _missing(_named(wanted, holder) - set(holder), holder)
    if isinstance(wanted, kind):
        return _listed([name for name in wanted if name not in _named(holder, wanted)], "is there, but unexpected")
    return ""


def _missing(names: Iterable[str], features: Features) -> str:
    """Say at whose door the first missing one lies."""
    from pytest_virtio.model.verdict import missing_features
    from pytest_virtio.render import feature_faults

    own = [name for name in names if _is_own(name, features)]
    faults = list(feature_faults(missing_features(features, own), features.feature_names.title))
    others = sorted(set(names) - set(own))
    why = [line.replace(": ", " missing: ", 1) for line in faults]
    return _more([*why, *(f"{name} missing: no feature of the {features.feature_names.title}" for name in others)])


def _listed(names: list[str], what: str) -> str:
    return _more([f"{name} {what}" for name in names])


def _more(sentences: list[str]) -> str:
    if not sentences:
        return ""
    return sentences[0] + (f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else "")


def _named(side: AbstractSet[Any], features: Features) -> set[str]:
    if isinstance(side, type(features)):
        return set(side)
    return {features.feature_names.name(features.feature_names.bit(which)) for which in side}


def _is_own(name: str, features: Features) -> bool:
    from pytest_virtio.errors import UnknownNameError

    try:
        features.feature_names.bit(name)
    except UnknownNameError:
        return False
    return True
