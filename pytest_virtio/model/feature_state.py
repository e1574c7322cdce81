"""What the sides made of a feature, in words: the same words in a committed baseline and in a difference.

Responsible for these words alone. They are part of the files that users commit: another wording is another schema of
:mod:`pytest_virtio.baseline.codec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from types import MappingProxyType
from typing import Final

from pytest_virtio.model.profile import FeatureProfile

__all__ = ("FEATURE_STATES", "feature_state")

_NEGOTIATION: Final = {
    (True, True): "negotiated",
    (True, False): "offered",
    (True, None): "offered, driver untold",
    (False, True): "acknowledged, not offered",
    (False, False): "not offered",
    (False, None): "not offered, driver untold",
}
_BACKEND: Final = {None: "", True: ", backend offers", False: ", backend lacks"}

_WORDS: Final = {
    FeatureProfile(offered, acknowledged, backend): words + suffix
    for ((offered, acknowledged), words), (backend, suffix) in product(_NEGOTIATION.items(), _BACKEND.items())
}

FEATURE_STATES: Final[Mapping[str, FeatureProfile]] = MappingProxyType(
    {words: state for state, words in _WORDS.items()}
)
"""Every state that a feature can be in, by its words."""


def feature_state(feature: FeatureProfile) -> str:
    """Say it: ``"negotiated"``; ``"offered"``, but not acknowledged; ``"not offered, backend offers"`` …"""
    return _WORDS[feature]
