"""The second monitor: whether there is one, and that it answers while a test sits in the debugger."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugin.conftest import HEAD, Run

INFO = [str(Path(sys.executable).parent / "pytest-virtio"), "info"]


@pytest.mark.qemu
def test_without_it_nothing_listens(run: Run) -> None:
    result = run(
        """
        @pytest.mark.virtio(Rng())
        def test_it(virtio):
            assert virtio.vm.monitor is None
            assert "monitor.sock" not in virtio.vm.command_line
            assert "second monitor" not in virtio.dump()
        """
    )
    result.assert_outcomes(passed=1)


@pytest.mark.qemu
def test_the_report_prints_its_path(run: Run) -> None:
    result = run(
        """
        @pytest.mark.virtio(Rng())
        def test_it(virtio):
            assert virtio.vm.monitor.is_socket()
            assert virtio.vm.monitor.parent.stat().st_mode & 0o777 == 0o700
            print("it is", virtio.vm.monitor)
            assert 0
        """,
        "--virtio-monitor",
    )
    (path,) = (line.split()[-1] for line in result.outlines if line.startswith("it is"))
    result.stdout.fnmatch_lines(["*- second monitor -*", f"pytest-virtio info {path}"])
    assert not Path(path).exists()


@pytest.mark.qemu
@pytest.mark.parametrize("length", [80, 200])
def test_it_answers_by_a_path_longer_than_an_address(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    deep = tmp_path / ("d" * length)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr("tempfile.tempdir", None)
    run(
        f"""
        import subprocess

        @pytest.mark.virtio(Rng())
        def test_it(virtio):
            assert {str(deep)!r} in str(virtio.vm.monitor)
            said = subprocess.run([*{INFO!r}, virtio.vm.monitor], capture_output=True, text=True, timeout=60)
            assert "rng0: DRIVER_OK" in said.stdout, said.stderr
        """,
        "--virtio-monitor",
    ).assert_outcomes(passed=1)
    assert not list(deep.iterdir())


@pytest.mark.qemu
def test_one_that_is_gone_is_not_named(run: Run) -> None:
    result = run(
        """
        def test_block(virtio_factory):
            with virtio_factory(Rng()):
                assert 0

        @pytest.mark.virtio(Rng())
        def test_qemu(virtio):
            os.kill(virtio.vm.pid, signal.SIGKILL)
            virtio["rng0"].status()
        """,
        "--virtio-monitor",
    )
    result.assert_outcomes(failed=2)
    assert result.stdout.str().count("- virtio: verdict -") == 2
    result.stdout.no_fnmatch_line("*second monitor*")


@pytest.mark.qemu
def test_it_may_stand_in_the_ini_file(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nvirtio_monitor = yes")
    test = """
    @pytest.mark.virtio(Rng())
    def test_it(virtio):
        assert virtio.vm.monitor
    """
    run(test).assert_outcomes(passed=1)


@pytest.mark.qemu
def test_it_answers_while_a_test_sits_in_the_debugger(
    inner_runs: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the VM itself answers is the same as before."""
    pytest.importorskip("pexpect")
    inner_runs.makepyfile(
        HEAD
        + """
@pytest.mark.virtio(Rng(), Blk())
def test_it(virtio):
    before = virtio["rng0"].status()
    assert 0
"""
    )
    child = inner_runs.spawn_pytest(shlex.join(["-p", "no:hypothesispytest", "--pdb"]), expect_timeout=60)
    child.expect(r"second monitor -+\s+pytest-virtio info (\S+)")
    assert isinstance(child.match, re.Match)
    path = child.match[1].decode()
    child.expect(r"\(Pdb\)")
    said = subprocess.run([*INFO, path], capture_output=True, text=True, timeout=60, env=os.environ, check=False)
    assert said.returncode == 0, said.stderr
    assert "rng0: DRIVER_OK: the driver finished its set-up" in said.stdout
    child.sendline("p before == virtio['rng0'].status()")
    child.expect("True")
    child.sendline("q")
    child.wait()
