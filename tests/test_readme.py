"""The README's first screen is true: its test fails with the report that it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_virtio.spec.devices import DEVICE_TYPES

# Set when a driver is made.
INSTANCE = {"pages", "ports"}
README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


def block(language: str) -> str:
    """The first of them."""
    return blocks(language)[0]


def test_the_report_is_the_one_that_is_shown(inner_runs: pytest.Pytester) -> None:
    inner_runs.makepyfile(test_net=block("python"))
    result = inner_runs.runpytest_subprocess("-p", "no:hypothesispytest")
    result.assert_outcomes(failed=1)
    shown = [line for line in block("text").splitlines() if line.strip() not in ("", "…")]
    # What differs from machine to machine and from QEMU to QEMU: paths, versions, times, who answered.
    stable = [_folded(line) for line in shown if not re.match(r"QEMU |E +source: |\[ |/usr/bin/", line)]
    printed = [_folded(line) for line in result.stdout.lines]
    missing = [line for line in stable if not any(_shows(line, whole) for whole in printed)]
    assert missing == []


def _folded(line: str) -> str:
    return re.sub(r"\s+", " ", line).strip()


def _shows(line: str, whole: str) -> bool:
    """Whether the README's line is the printed one, or with an ellipsis its beginning."""
    return whole.startswith(line.rstrip("…").strip()) if line.endswith("…") else line == whole


def test_the_tests_of_the_scripted_guest_are_green(inner_runs: pytest.Pytester) -> None:
    tests = [text for text in blocks("python")[1:] if "@pytest.mark.virtio(" in text and "def test_" in text]
    # The third wants its baseline.
    assert len(tests) == 3
    inner_runs.makepyfile("import pytest\nfrom pytest_virtio import *\n\n" + "\n\n".join(tests))
    inner_runs.runpytest_subprocess("-p", "no:hypothesispytest", "--virtio-baseline=new").assert_outcomes(passed=3)


def test_every_option_is_listed_and_no_other(pytestconfig: pytest.Config) -> None:
    from pytest_virtio.plugin.options import Settings

    listed = {name.replace("-", "_") for name in re.findall(r"`--virtio-(\w+(?:-\w+)*)", README.read_text())}
    assert listed == set(Settings._fields) | {"baseline_prune"}


def test_every_verb_in_the_table_of_drivers_is_there() -> None:
    from pytest_virtio.guest.scripted.drivers import console, driver_class, scsi_unit, vsock

    ids = {"9p": 9, "mem, pmem": 24, **{t.name: t.id for t in DEVICE_TYPES.values()}}
    parts = [console.Port, scsi_unit.ScsiUnit, vsock.Connection]
    rows = re.findall(
        r"^\| ([a-z0-9, ]+) \| (.*`.*) \|$", README.read_text().partition("## The scripted guest")[2], re.MULTILINE
    )
    assert len(rows) == 14
    for name, verbs in rows:
        owners = [driver_class(ids[name]), *parts]
        for verb in re.findall(r"\b[a-z_0-9]+\b", " ".join(re.findall(r"`([^`]*)`", verbs))):
            assert verb == "0" or any(hasattr(owner, verb) for owner in owners) or verb in INSTANCE, (name, verb)
