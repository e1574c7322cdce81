"""Missing features and compared sets of them, in words.

Responsible for saying at whose door a missing feature lies; must not decide that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Final

from pytest_virtio.errors import UnknownNameError
from pytest_virtio.model.features import Features
from pytest_virtio.model.verdict import Fault, FeatureFault, missing_features
from pytest_virtio.render.text import safe

__all__ = ("compare_features", "comparison_verdict", "feature_faults")

_FAULT_WORDS: Final = {
    Fault.NOT_OFFERED: "not offered by the {offerer}",
    Fault.NOT_ACKNOWLEDGED: "offered, not acknowledged by the driver",
    Fault.MASKED_BY_BACKEND: "not offered by the {offerer}: masked by the vhost backend, which lacks it too",
    Fault.MASKED_BY_TEST: "not offered by the {offerer}: masked by the test itself (mask=)",
    Fault.TOO_EARLY: "offered; the driver has not written its features yet",
}


def feature_faults(faults: Iterable[FeatureFault], offerer: str = "device") -> Iterator[str]:
    """Yield a line for each missing feature that says at whose door it lies.

    :param offerer: who offers these features, as in :attr:`FeatureNames.title`.
    """
    for fault in faults:
        option = f" (property {safe(fault.property)})" if fault.property else ""
        yield f"{safe(fault.feature)}: {_FAULT_WORDS[fault.fault].format(offerer=offerer)}{option}"


def compare_features(op: str, left: object, right: object) -> Iterator[str]:
    """Yield lines that say why a comparison with a ``Features`` failed; none for operands it knows nothing of.

    :param op: one of ``== != <= >= < > in`` and ``not in``.
    :param left: the left operand.
    :param right: the right one; at least one of the two should be a ``Features``.
    :raise UnknownNameError: the other operand holds a name that such a device can't have.
    """
    if op in ("in", "not in") and isinstance(right, Features):
        yield from _compare_member(op, left, right)
    elif isinstance(left, AbstractSet) and isinstance(right, AbstractSet):
        features = left if isinstance(left, Features) else right
        if isinstance(features, Features):
            yield from _compare_sets(op, left, right, features)


def comparison_verdict(op: str, left: object, right: object) -> str:
    """The first reason why a comparison with a ``Features`` failed and how many more there are; "" if none is known.

    :param op: as for :func:`compare_features`.
    :raise UnknownNameError: the other operand holds a name that such a device can't have.
    """
    reasons: list[str] = []
    if op in ("in", "not in") and isinstance(right, Features):
        name = right.feature_names.name(right.feature_names.bit(left))
        reasons = _absences(right, [name]) if op == "in" else [f"{name} is there, but unwanted"]
    elif isinstance(left, AbstractSet) and isinstance(right, AbstractSet):
        features = left if isinstance(left, Features) else right
        if isinstance(features, Features):
            lacks_left = _reasons(left, right, features) if op in (">=", ">", "==") else []
            reasons = lacks_left or (_reasons(right, left, features) if op in ("<=", "<", "==") else [])
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return reasons[0] + more if reasons else ""


def _compare_member(op: str, feature: object, features: Features) -> Iterator[str]:
    bit = features.feature_names.bit(feature)
    if op == "in":
        yield from feature_faults(missing_features(features, [bit]), features.feature_names.title)
    else:
        acknowledged = "offered and acknowledged" if features.offered is not None else "offered"
        yield f"{features.feature_names.name(bit)}: {acknowledged}"


def _compare_sets(op: str, left: AbstractSet[Any], right: AbstractSet[Any], features: Features) -> Iterator[str]:
    if left == right:
        names = left if isinstance(left, Features) else features
        yield f"both sides are {names!r}"
        return
    if op in (">=", ">", "=="):
        yield from _lacks("left", left, right, features)
    if op in ("<=", "<", "=="):
        yield from _lacks("right", right, left, features)


def _lacks(side: str, holder: AbstractSet[Any], wanted: AbstractSet[Any], features: Features) -> Iterator[str]:
    """Yield what one side of a comparison lacks of the other, with the reason if that side is a ``Features``."""
    missing = _missing(holder, wanted, features)
    if not missing:
        return
    yield f"the {side} side lacks {len(missing)}:"
    if isinstance(holder, Features):
        lines = feature_faults(_faults(holder, missing), holder.feature_names.title)
    else:
        lines = iter(missing)
    yield from (f"  {line}" for line in lines)


def _reasons(holder: AbstractSet[Any], wanted: AbstractSet[Any], features: Features) -> list[str]:
    """A sentence for each feature that one side lacks of the other; what such a device can't have comes last."""
    missing = _missing(holder, wanted, features)
    if not isinstance(holder, Features):
        return [f"{name} is there, but unexpected" for name in missing]
    own = [name for name in missing if _is_own(name, holder)]
    foreign = sorted(set(missing) - set(own))
    title = holder.feature_names.title
    return [*_absences(holder, own), *(f"{name} missing: no feature of the {title}" for name in foreign)]


def _absences(holder: Features, missing: Iterable[str]) -> list[str]:
    lines = feature_faults(missing_features(holder, missing), holder.feature_names.title)
    return [line.replace(": ", " missing: ", 1) for line in lines]


def _missing(holder: AbstractSet[Any], wanted: AbstractSet[Any], features: Features) -> list[str]:
    here, there = _names(holder, features), _names(wanted, features)
    return [name for name in there if name not in here]


def _names(side: AbstractSet[Any], features: Features) -> tuple[str, ...]:
    return side.names if isinstance(side, Features) else Features.of(side, features.feature_names).names


def _faults(holder: Features, missing: Iterable[str]) -> Iterator[FeatureFault]:
    for name in missing:
        if _is_own(name, holder):
            yield from missing_features(holder, [name])
        else:
            yield FeatureFault(name, Fault.NOT_OFFERED)


def _is_own(name: str, features: Features) -> bool:
    """Whether it is no name of the other side's device type alone."""
    try:
        features.feature_names.bit(name)
    except UnknownNameError:
        return False
    return True
