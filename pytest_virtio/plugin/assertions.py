"""What a plain ``assert`` on features shows when it fails.

Responsible for handing such a comparison to ``render``; must not know what the words are.
"""

from __future__ import annotations

import sys

import pytest

__all__ = ("pytest_assertrepr_compare",)


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """Explain a failed comparison with a ``Features``; leave all others to pytest."""
    # Nobody holds a Features before its module is loaded, and loading it here would cost every failing test.
    features = sys.modules.get("pytest_virtio.model.features")
    if features is None or (not isinstance(left, features.Features) and not isinstance(right, features.Features)):
        return None
    from pytest_virtio.render import compare_features

    return [f"features: {op}", *compare_features(op, left, right)]
