"""Workers elsewhere: what they find out comes to the controller, which writes it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .conftest import Run
from .runner import commands

TESTS = """
    @pytest.mark.virtio(Blk())
    def test_green(virtio):
        assert "elsewhere" in os.getcwd()

    @pytest.mark.virtio(VhostUserBlk(), guest="firmware")
    def test_red(virtio):
        virtio["vublk0"].assert_negotiated("VIRTIO_BLK_F_ZONED")
"""

CONFTEST = """
    import json

    def pytest_runtest_logreport(report):
        if hasattr(report, "virtio") and "PYTEST_XDIST_WORKER" not in os.environ:
            with open("report.json", "w", encoding="utf-8") as file:
                json.dump(report.virtio, file)
"""


@pytest.mark.filterwarnings("ignore:.*rsync.*:DeprecationWarning")
def test_workers_in_another_directory(
    run: Run, pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    pytester.makeini("[pytest]")
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    where = ("--dist", "load", "--tx", f"2*popen//chdir={elsewhere}", "--rsyncdir", str(pytester.path))
    result = run(
        TESTS, str(pytester.path), *where, "--junitxml=junit.xml", "-o", "junit_family=xunit1", conftest=CONFTEST
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*- virtio: vublk0 -*", "virtio: QEMU *, accelerator *"])
    assert (elsewhere / pytester.path.name).is_dir()
    (command,) = commands(result.outlines)
    file = pytester.path / command.properties["file"]
    assert "assert_negotiated" in file.read_text()
    assert command.message.startswith("vublk0: VIRTIO_BLK_F_ZONED")
    assert summary.read_text().count("<details>") == 1
    properties = {entry.get("name"): entry.get("value") for entry in _case(pytester, "test_red").iter("property")}
    assert str(properties["virtio.backend.vublk0"]).startswith("qemu-storage-daemon ")
    assert json.loads((pytester.path / "report.json").read_text())[0][0]["title"] == "virtio: verdict"


def _case(pytester: pytest.Pytester, name: str) -> ElementTree.Element:
    root = ElementTree.parse(pytester.path / "junit.xml").getroot()
    return next(case for case in root.iter("testcase") if case.get("name") == name)


def test_many_workers_do_not_collide(run: Run, pytester: pytest.Pytester) -> None:
    result = run("""
        @pytest.mark.parametrize("n", range(12))
        @pytest.mark.virtio(Blk(), Rng(), VhostUserBlk())
        def test_green(virtio, n):
            driver = virtio.guest.driver("blk0")
            driver.write(0, bytes([n]) * 512)
            assert driver.read(0, 512) == bytes([n]) * 512
    """, "-n", "4", "--junitxml=junit.xml")  # fmt: skip
    result.assert_outcomes(passed=12)
    assert result.stdout.str().count("virtio: QEMU") == 1


def test_workers_with_an_empty_cache_fill_it_once(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTEST_VIRTIO_CACHE", str(tmp_path / "cache"))
    result = run("""
        @pytest.mark.parametrize("n", range(4))
        @pytest.mark.virtio(Blk())
        def test_green(virtio, n): pass
    """, "-n", "4")  # fmt: skip
    result.assert_outcomes(passed=4)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".json"]
