"""The benchmarks run: what they measure is not asserted, but that they still fit the code is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "benchmarks" / "run.py"


@pytest.mark.guest
def test_each_boot_is_measured(tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    command: list[str | Path] = [sys.executable, RUN, "boot", "--pairs", "1", "--json", report]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(report.read_text())["figures"][0]["name"] == "boot"
