"""``--virtio-lint``: a test that passed fails for what its VMs' drivers and devices break."""

from __future__ import annotations

import pytest

BREAKS = "virtio.guest.driver('rng0').reset().acknowledge().set_status(0x81)"
FAILED = "rng0: the driver gave the device up: status ACKNOWLEDGE, FAILED (virtio 1.3 section 2.1)"
TESTS = f"""
    import pytest
    from pytest_virtio import Rng

    @pytest.mark.virtio(Rng())
    def test_conforms(virtio):
        pass

    @pytest.mark.virtio(Rng())
    def test_breaks(virtio):
        {BREAKS}

    def test_breaks_in_a_block(virtio_factory):
        with virtio_factory(Rng()) as virtio:
            {BREAKS}

    @pytest.mark.virtio(Rng())
    def test_fails_anyway(virtio):
        {BREAKS}
        assert False, "its own words"

    @pytest.mark.virtio(Rng())
    def test_ends_its_vm(virtio):
        {BREAKS}
        virtio.close()
"""


@pytest.mark.qemu
def test_lint(inner_runs: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    inner_runs.makepyfile(TESTS)
    result = inner_runs.runpytest_subprocess("--virtio-lint", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=3)
    result.stdout.fnmatch_lines_random(
        [
            f"FAILED *::test_breaks - --virtio-lint: {FAILED}",
            f"FAILED *::test_breaks_in_a_block - --virtio-lint: {FAILED}",
            "FAILED *::test_fails_anyway - AssertionError: its own words*",
        ]
    )
    assert result.stdout.str().count("virtio: rng0") == 3


@pytest.mark.qemu
def test_without_it(inner_runs: pytest.Pytester) -> None:
    inner_runs.makepyfile(TESTS)
    inner_runs.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=4, failed=1)
