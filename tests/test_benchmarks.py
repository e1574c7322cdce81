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
    assert measured(tmp_path, "boot")[0] == "boot"


@pytest.mark.qemu
def test_each_backend_is_measured(tmp_path: Path) -> None:
    first, *_, split, packed = measured(tmp_path, "backends")
    assert first == "backends: qemu-storage-daemon to DRIVER_OK"
    assert (split, packed) == ("backends: a look at a split ring", "backends: a look at a packed ring")


def measured(directory: Path, name: str) -> list[str]:
    """The names of the figures."""
    report = directory / "figures.json"
    command: list[str | Path] = [sys.executable, RUN, name, "--pairs", "1", "--json", report]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return [figure["name"] for figure in json.loads(report.read_text())["figures"]]
