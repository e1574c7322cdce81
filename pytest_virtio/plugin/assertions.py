"""What a plain ``assert`` on features shows when it fails.

Responsible for handing such a comparison to ``render`` and for putting the verdict first, since that line is what
pytest's summary shows; must not know how a comparison is worded.
"""

from __future__ import annotations

import sys

import pytest

__all__ = ("pytest_assertrepr_compare",)


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """Explain a failed comparison with a ``Features``; leave all others to pytest."""
    # Nobody holds a Features before its module is loaded, and loading it here would cost every failing test.
    module = sys.modules.get("pytest_virtio.model.features")
    if module is None or not any(isinstance(side, module.Features) for side in (left, right)):
        return None
    from pytest_virtio.render import compare_features, comparison_verdict

    lines = list(compare_features(op, left, right))
    return [comparison_verdict(op, left, right) or f"features: {op}", *lines] if lines else None
