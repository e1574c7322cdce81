"""What plugin tests share: a test file in a directory of its own, run by pytest within pytest."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent

import pytest

from pytest_virtio.provision.releases import find_release

Run = Callable[..., pytest.RunResult]

HEAD = """
import os
import pytest
import signal
from pytest_virtio import *

firmware_blk = pytest.mark.virtio(Blk(), guest="firmware")
"""


@pytest.fixture
def releases() -> None:
    """QEMUs by the names of their releases, beside that which the run is on."""
    missing = [name for name in ("qemu-7.2", "qemu-10.0", "qemu-11.1") if find_release(name) is None]
    if missing:
        pytest.skip(f"not built: pytest-virtio image build {' '.join(missing)}")


@pytest.fixture
def run(inner_runs: pytest.Pytester, run_dry: Run) -> Run:
    """Runs pytest in this process on a file with the given tests; ``conftest`` is one's text."""
    return run_dry


@pytest.fixture
def run_dry(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same for tests that start no QEMU, and are not repeated for each."""
    # Summaries are cut to the terminal's width.
    monkeypatch.setenv("COLUMNS", "300")

    def run_tests(tests: str, *arguments: str, conftest: str = "") -> pytest.RunResult:
        if conftest:
            pytester.makeconftest(HEAD + dedent(conftest))
        pytester.makepyfile(HEAD + dedent(tests))
        if not (pytester.path / "tox.ini").exists():
            # Else the checkout's counts, where temporary files are below that.
            pytester.makeini("[pytest]")
        # hypothesis loads all of itself at the end of each run.
        return pytester.runpytest_inprocess("-p", "no:hypothesispytest", *arguments, no_reraise_ctrlc=True)

    return run_tests
