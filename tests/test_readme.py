"""The README's first screen is true: its test fails with the report that it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def block(language: str) -> str:
    """The first fenced block of a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.guest
def test_the_report_is_the_one_that_is_shown(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_net=block("python"))
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest")
    result.assert_outcomes(failed=1)
    shown = [line for line in block("text").splitlines() if line.strip() not in ("", "…")]
    # What differs from machine to machine: paths, versions, times.
    stable = [line for line in shown if not re.match(r"QEMU |\[ |/usr/bin/", line)]
    printed = {re.sub(r"\s+", " ", line).strip().rstrip("…").strip() for line in result.stdout.lines}
    missing = [line for line in stable if re.sub(r"\s+", " ", line).strip().rstrip("…").strip() not in printed]
    assert missing == []


def test_every_option_is_listed_and_no_other(pytestconfig: pytest.Config) -> None:
    from pytest_virtio.plugin.options import Settings

    listed = set(re.findall(r"`--virtio-(\w+)", README.read_text()))
    assert listed == set(Settings._fields)
