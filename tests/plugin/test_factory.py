"""``virtio_factory``: blocks, what leaves them, and that nothing outlives them."""

from __future__ import annotations

import psutil
import pytest

from .conftest import Run


def _qemus() -> list[psutil.Process]:
    """Living QEMUs of this process; a shared Linux guest may be one of them."""
    return [child for child in psutil.Process().children(recursive=True) if child.name().startswith("qemu")]


def test_several_vms_at_a_time(run: Run) -> None:
    run("""
        def test_two(virtio_factory):
            with virtio_factory(Blk(), guest="firmware") as one, virtio_factory(Rng(), boot=False) as two:
                assert one.vm.pid != two.vm.pid
                assert "rng0" not in one and "rng0" in two
            assert not one.vm.running and not two.vm.running
    """).assert_outcomes(passed=1)  # fmt: skip


def test_a_block_is_one_vm(run: Run) -> None:
    run("""
        def test_again(virtio_factory):
            block = virtio_factory(Rng(), boot=False)
            with block as first:
                with pytest.raises(UsageError, match="runs already"):
                    block.__enter__()
                assert first.vm.running
            with block as second:
                assert second is not first
    """).assert_outcomes(passed=1)  # fmt: skip


@pytest.mark.parametrize("leaving", ["KeyboardInterrupt", "pytest.exit.Exception('enough')"])
@pytest.mark.parametrize("where", ["body", "fixture", "boot"])
def test_what_ends_the_run_ends_the_vm_without_a_report(run: Run, where: str, leaving: str) -> None:
    before = _qemus()
    result = run(
        f"""
        @pytest.fixture
        def server(virtio_factory, monkeypatch):
            if {where!r} == "boot":
                def interrupt(self):
                    raise {leaving}
                monkeypatch.setattr("pytest_virtio.launch.RunningVm.await_ready", interrupt)
            with virtio_factory(Rng(), boot=False) as virtio:
                monkeypatch.setattr(type(virtio), "report", None)
                if {where!r} == "fixture":
                    raise {leaving}
                yield virtio

        def test_left(server):
            raise {leaving}

        def test_never():
            pass
    """,
        "-p", "no:faulthandler",
    )  # fmt: skip
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes()
    assert _qemus() == before


def test_a_missing_qemu_is_an_error_or_a_skip(run: Run) -> None:
    tests = """
        @firmware_blk
        def test_mark(virtio): pass

        @pytest.fixture(scope="module")
        def server(virtio_factory):
            with virtio_factory(Rng(), boot=False) as virtio:
                yield virtio

        def test_fixture(server): pass

        def test_body(virtio_factory):
            with virtio_factory(Rng(), boot=False): pass
    """
    result = run(tests, "--virtio-qemu=/nonexistent/qemu")
    result.assert_outcomes(errors=2, failed=1)
    result.stdout.fnmatch_lines([
        "virtio: QEMU '/nonexistent/qemu' is not there.*",
        "ERROR *::test_mark - MissingError: QEMU '/nonexistent/qemu' is not there.*",
    ])  # fmt: skip
    result = run(tests, "--virtio-qemu=/nonexistent/qemu", "--virtio-missing=skip", "-rs")
    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines(["SKIPPED * test_*.py:*: QEMU '/nonexistent/qemu' is not there.*"])
    result.stdout.no_fnmatch_line("*factory.py*")


def test_a_qemu_that_refuses_says_why(run: Run) -> None:
    result = run("""
        @pytest.mark.virtio(Rng(), boot=False, args=["-nonsense"])
        def test_red(virtio): pass
    """)  # fmt: skip
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([
        '>   @pytest.mark.virtio(Rng(), boot=False, args=[[]"-nonsense"])',
        "E   *QemuExitedError: QEMU ended (exit code 1) during *; its stderr:",
        "E   *-nonsense: invalid option",
    ])  # fmt: skip


def test_a_stalled_device_is_reported_while_it_stands(run: Run) -> None:
    result = run("""
        @pytest.mark.virtio(Blk(), guest=Firmware(drives=frozenset({"blk"})))
        def test_fine(virtio): pass

        @pytest.mark.virtio(Rng(), guest=Firmware(drives=frozenset({"rng"})), timeout=3)
        def test_stalled(virtio): pass
    """)  # fmt: skip
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([
        "E  *DeviceStalledError: not at DRIVER_OK within 3 s: rng0 stands at *",
        "rng0: *",
        "* reproduce *",
    ])  # fmt: skip
