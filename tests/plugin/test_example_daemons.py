"""The examples of daemons, as in somebody's own repository: a gate, so that no daemon is no green."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("missing", "example"), [("error", "net"), ("error", "passt"), ("error", "vsock"), ("skip", "passt")]
)
def test_without_the_daemon(
    inner_runs: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, missing: str, example: str
) -> None:
    shutil.copy(EXAMPLES / f"test_vhost_user_{example}.py", inner_runs.path)
    monkeypatch.setenv("PATH", str(inner_runs.mkdir("nothing")))
    outcomes = inner_runs.runpytest(f"--virtio-missing={missing}").parseoutcomes()
    assert outcomes
    assert outcomes.keys() <= ({"skipped"} if missing == "skip" else {"errors", "failed"})
