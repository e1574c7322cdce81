"""A whole run: what it costs when no VM is asked for, what is said once, and what xdist brings home."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from pytest_virtio.introspect import probe

from .conftest import Run

HEADER = "virtio: QEMU *"


def test_without_a_virtio_test_nothing_starts_and_no_cache_is_read(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile("""
        import subprocess, sys

        def test_green(): pass

        def test_untouched():
            ours = {name for name in sys.modules if name.startswith("pytest_virtio.")}
            assert not ours & {"pytest_virtio." + room for room in ("vm", "launch", "handle", "cache")}
            assert not {"qemu", "psutil", "pexpect"} & sys.modules.keys()
    """)  # fmt: skip
    nowhere = pytester.path / "a-file"
    nowhere.write_text("no directory")
    monkeypatch.setenv("PYTEST_VIRTIO_CACHE", str(nowhere))
    monkeypatch.setenv("PATH", "")
    result = pytester.run(sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "-p", "no:xdist")
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line(HEADER)


TESTS = """
    @firmware_blk
    def test_green(virtio): pass

    @firmware_blk
    def test_red(virtio):
        virtio["blk0"].assert_negotiated("VIRTIO_BLK_F_MQ")

    @firmware_blk
    def test_red_too(virtio):
        assert 0

    def test_other(): pass
"""


@pytest.mark.parametrize("arguments", [("--collect-only",), ("-k", "other")])
def test_collecting_says_and_starts_nothing(
    run_dry: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    result = run_dry(TESTS, *arguments)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("virtio: *")


def test_what_was_chosen_is_said_once(run: Run, program: Path) -> None:
    result = run(TESTS)
    result.assert_outcomes(passed=2, failed=2)
    host = f"virtio: host {platform.system()} {platform.release()} *"
    result.stdout.fnmatch_lines(["collected 4 items", f"virtio: QEMU * ({program}), accelerator *: *", host])
    assert result.stdout.str().count("virtio: QEMU") == 1


def test_a_qemu_that_a_fixture_chooses_is_told_of_at_the_end(run: Run, program: Path) -> None:
    result = run(TESTS, "-k", "green", "--virtio-qemu=/never/looked/at", conftest=f"""
        @pytest.fixture(scope="session")
        def virtio_qemu():
            return {str(program)!r}
    """)  # fmt: skip
    result.assert_outcomes(passed=1, deselected=3)
    result.stdout.no_fnmatch_line("*/never/looked/at*")
    result.stdout.fnmatch_lines(["*test_*.py . *", "virtio: QEMU *, accelerator *: *"])


def test_xdist_brings_header_and_reports_home(pytester: pytest.Pytester, run: Run) -> None:
    conftest = """
        def pytest_runtest_logreport(report):
            if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
                sections = [section["title"] for section in report.virtio[0]]
                print("BROUGHT", report.location[2], sections, report.virtio[0][1]["data"]["guest_features"])
    """
    result = run(TESTS, "-n", "2", "-s", conftest=conftest)
    result.assert_outcomes(passed=2, failed=2)
    assert result.stdout.str().count("virtio: QEMU") == 1
    assert result.stdout.str().count("- virtio: blk0 -") == 2
    titles = ["virtio: verdict", "virtio: blk0", "guest console", "qemu stderr", "reproduce"]
    features = ["VIRTIO_BLK_F_SEG_MAX", "VIRTIO_BLK_F_BLK_SIZE", "VIRTIO_F_VERSION_1"]
    for name in ("test_red", "test_red_too"):
        assert f"BROUGHT {name} {titles} {features}" in result.stdout.str()
    result.stdout.fnmatch_lines(["FAILED *::test_red - blk0: VIRTIO_BLK_F_MQ not negotiated: *"])


def test_an_unusable_cache_is_no_internal_error(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nowhere = tmp_path / "a-file"
    nowhere.write_text("no directory")
    monkeypatch.setenv("PYTEST_VIRTIO_CACHE", str(nowhere))
    result = run(TESTS, "-k", "green", "--virtio-accel=tcg")
    result.stdout.no_fnmatch_line("INTERNALERROR*")
    result.stdout.fnmatch_lines(["virtio: *"])


def test_a_qemu_that_is_none_is_looked_at_once(run_dry: Run, pytester: pytest.Pytester) -> None:
    asked = pytester.path / "asked"
    fake = pytester.path / "qemu"
    fake.write_text(f"#!/bin/sh\necho x >> {asked}\necho rubbish; exit 1\n")
    fake.chmod(0o755)
    result = run_dry(TESTS, f"--virtio-qemu={fake}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert asked.read_text() == "x\n"


def test_a_qemu_that_the_status_query_kills_is_asked_in_another_way(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTEST_VIRTIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(probe, "_probe", lambda program: "killed by SIGABRT")
    run("""
        @pytest.mark.virtio(Blk())
        def test_green(virtio):
            status = virtio["blk0"].status()
            assert status.source != "x-query-virtio-status"
            assert "DRIVER_OK" in status.status and "VIRTIO_BLK_F_FLUSH" in status.guest_features
    """).assert_outcomes(passed=1)
