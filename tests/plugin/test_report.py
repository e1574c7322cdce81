"""The report of a failing test: what it shows, for which VMs, and that it never stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pytest_virtio.plugin import reports

from .conftest import Run

FAILING = """
    @firmware_blk
    def test_red(virtio):
        assert "red" == "green"
"""


def test_it_follows_the_tests_own_failure(run: Run) -> None:
    result = run(FAILING)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "E       AssertionError: assert 'red' == 'green'",
        "* virtio: verdict *",
        "blk0: DRIVER_OK: the driver finished its set-up",
        "QEMU *, machine q35, pci, accelerator *",
        "* virtio: blk0 *",
        "/machine/peripheral/blk0/virtio-backend:",
        "  device_name: *virtio-blk*",
        "*VIRTIO_CONFIG_S_DRIVER_OK",
        "  Guest features:",
        "*VIRTIO_BLK_F_SEG_MAX",
        "  queue_index: *0",
        "* guest console *",
        "*SeaBIOS*",
        "* qemu stderr *",
        "(empty)",
        "* reproduce *",
        "  -device virtio-blk-pci,id=blk0,*",
        "FAILED *::test_red - AssertionError: assert 'red' == 'green'",
    ])  # fmt: skip


@pytest.mark.parametrize(("style", "shown"), [("short", True), ("native", True), ("long", True), ("no", False)])
def test_any_traceback_style_will_do(run: Run, style: str, *, shown: bool) -> None:
    result = run(FAILING, f"--tb={style}")
    result.assert_outcomes(failed=1)
    assert ("virtio: verdict" in result.stdout.str()) is shown


def test_without_failure_there_is_none(run: Run) -> None:
    result = run("""
        @firmware_blk
        def test_green(virtio):
            pass

        @firmware_blk
        def test_skipped(virtio):
            pytest.skip("not today")

        @pytest.mark.xfail
        @firmware_blk
        def test_xfail(virtio):
            assert 0

        def test_in_block(virtio_factory):
            with virtio_factory(Blk(), guest="firmware"):
                pytest.xfail("known")
    """, "-rA")  # fmt: skip
    result.assert_outcomes(passed=1, skipped=1, xfailed=2)
    result.stdout.no_fnmatch_line("*virtio: verdict*")


def test_it_is_taken_before_the_exception_ends_the_vm(run: Run) -> None:
    result = run("""
        def test_red(virtio_factory):
            with virtio_factory(Blk(), guest="firmware"):
                raise OSError("mine")
    """)  # fmt: skip
    result.stdout.fnmatch_lines(["E  * OSError: mine", "blk0: DRIVER_OK: *", "  queue_index: *0"])
    result.stdout.no_fnmatch_line("*VM is gone*")


def test_a_failure_without_traceback_has_it_too(run: Run) -> None:
    result = run("""
        @firmware_blk
        def test_red(virtio):
            pytest.fail("in short", pytrace=False)
    """)  # fmt: skip
    result.stdout.fnmatch_lines(["in short", "* virtio: verdict *", "FAILED *::test_red - Failed: in short"])


def test_an_expected_exception_takes_its_report_along(run: Run) -> None:
    result = run("""
        def test_red(virtio_factory):
            with pytest.raises(OSError), virtio_factory(Blk(), guest="firmware"):
                raise OSError
            assert 0, "another matter"

        def test_later():
            assert 0, "yet another"
    """)  # fmt: skip
    result.assert_outcomes(failed=2)
    result.stdout.no_fnmatch_line("*virtio: verdict*")


def test_an_exception_raised_from_it_has_it(run: Run) -> None:
    result = run("""
        def test_red(virtio_factory):
            try:
                with virtio_factory(Blk(), guest="firmware"):
                    raise OSError("cause")
            except OSError:
                raise ExceptionGroup("several", [ValueError("one")])
    """)  # fmt: skip
    result.stdout.fnmatch_lines(["* virtio: verdict *", "blk0: DRIVER_OK: *"])


def test_several_vms_are_numbered(run: Run) -> None:
    result = run("""
        @firmware_blk
        def test_red(virtio, virtio_factory):
            with virtio_factory(Rng(), guest="firmware"), virtio_factory(Balloon(), boot=False):
                assert 0
    """)  # fmt: skip
    result.stdout.fnmatch_lines([
        "* virtio: balloon0 (VM 1 of 3) *", "* virtio: rng0 (VM 2 of 3) *", "* virtio: blk0 (VM 3 of 3) *",
    ])  # fmt: skip


SHARED = """
    @pytest.fixture(scope="module")
    def server(virtio_factory):
        with virtio_factory(Rng(), boot=False) as virtio:
            yield {"inside": virtio}

    @pytest.fixture(scope="module")
    def client(server):
        return object()
"""


def test_a_shared_vm_is_shown_with_the_tests_that_use_it(run: Run) -> None:
    result = run(SHARED + """
    def test_direct(server):
        assert 0, "direct"

    def test_other():
        assert 0, "other"

    def test_indirect(client):
        assert 0, "indirect"

    def test_dynamic(request):
        request.getfixturevalue("client")
        assert 0, "dynamic"
    """)  # fmt: skip
    assert _by_test(result.stdout.str()) == {
        "test_direct": True,
        "test_other": False,
        "test_indirect": True,
        "test_dynamic": True,
    }


def _by_test(output: str) -> dict[str, bool]:
    parts: dict[str, bool] = {}
    name = ""
    for line in output.splitlines():
        if line.startswith("___") and "test_" in line:
            name = line.strip("_ ")
            parts[name] = False
        elif "virtio: rng0" in line:
            parts[name] = True
    return parts


def test_a_fixture_that_fails_shows_it_with_every_test(run: Run) -> None:
    result = run("""
        @pytest.fixture(scope="module")
        def server(virtio_factory):
            with virtio_factory(Rng(), boot=False) as virtio:
                raise RuntimeError("no server")

        def test_one(server): pass
        def test_two(server): pass
    """)  # fmt: skip
    result.assert_outcomes(errors=2)
    assert result.stdout.str().count("- virtio: rng0 -") == 2


def test_a_killed_qemu_is_told_of(run: Run) -> None:
    result = run("""
        @firmware_blk
        def test_red(virtio):
            os.kill(virtio.vm.pid, signal.SIGKILL)
            virtio["blk0"].status()
    """)  # fmt: skip
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "E  * QEMU ended (killed by SIGKILL) during *; it*",
        "the VM is gone: QEMU ended (killed by SIGKILL)",
        "* virtio: blk0 *",
        "no answer: QEMU has ended",
        "* reproduce *",
        "FAILED *::test_red - QemuExitedError: QEMU ended *",
    ])  # fmt: skip


def test_a_stopped_qemu_is_told_of_in_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "REPORT_SECONDS", 0.5)
    result = run("""
        @pytest.mark.virtio(Blk(), Rng(), guest="firmware")
        def test_red(virtio):
            os.kill(virtio.vm.pid, signal.SIGSTOP)
            assert 0, "my own"
    """)  # fmt: skip
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "E  * my own",
        "QEMU's process is stopped by a signal (SIGSTOP, SIGTSTP) or a debugger: it answers nothing",
        "blk0: no answer: *: no answer within 0.* s*",
        "rng0: no answer: *: no answer within 0.* s*",
        "* reproduce *",
    ])  # fmt: skip


def test_a_fault_in_the_report_leaves_the_failure_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("pytest_virtio.render.findings.virtio_status", fail)
    result = run(FAILING)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "E  *assert 'red' == 'green'",
        "blk0: DRIVER_OK: *",
        "this part of the report failed, which is a bug of pytest-virtio: KeyError('ours')",
        "* reproduce *",
    ])  # fmt: skip


def test_a_nasty_console_is_harmless(run: Run, talking_rom: Callable[[bytes], Path], pytester: pytest.Pytester) -> None:
    rom = talking_rom(b"\x1b[31mred\x07 \xff\xfe ]]> </failure> \x00 \xef\xbf\xbe THE END")
    result = run(f"""
        from pytest_virtio.vm.deadline import Deadline

        @pytest.mark.virtio(Rng(), guest=Firmware(bios={str(rom)!r}, drives=frozenset()))
        def test_red(virtio):
            drain, log = virtio._running.qemu.child.drain, virtio.guest.console.log
            assert drain.wait(lambda: b"THE END" in log.since(0), Deadline.after(30))
            assert 0
    """, "--junitxml=junit.xml")  # fmt: skip
    shown = r"\x1b[31mred\x07 \xff\xfe ]]> </failure> \x00 \ufffe THE END"
    assert shown in result.stdout.str()
    failure = ElementTree.parse(pytester.path / "junit.xml").find(".//failure")
    assert failure is not None
    assert shown in (failure.text or "")
    assert failure.get("message") == "assert 0"


def test_junit_has_the_sections(run: Run, pytester: pytest.Pytester) -> None:
    run("""
        @firmware_blk
        def test_red(virtio):
            virtio["blk0"].assert_negotiated("VIRTIO_BLK_F_MQ")

        @firmware_blk
        def test_in_short(virtio):
            pytest.fail("in short", pytrace=False)
    """, "--junitxml=junit.xml")  # fmt: skip
    failures = ElementTree.parse(pytester.path / "junit.xml").findall(".//failure")
    assert all("virtio: verdict" in (failure.text or "") for failure in failures)
    first_lines = [str(failure.get("message")).partition("\n")[0] for failure in failures]
    assert first_lines == [
        "blk0: VIRTIO_BLK_F_MQ not negotiated: not offered by the device (property num-queues=1)",
        "Failed: in short",
    ]


def test_a_time_limit_in_the_report_leaves_the_failure_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest-timeout raises this from a signal handler, wherever the test is."""

    def fail(*_: object) -> None:
        pytest.fail("Timeout >1.0s")

    monkeypatch.setattr("pytest_virtio.handle.dump.report", fail)
    result = run(FAILING)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E  *assert 'red' == 'green'"])
    result.stdout.no_fnmatch_line("*Timeout*")


def test_the_vm_still_runs_in_the_debugger(pytester: pytest.Pytester, run: Run) -> None:
    run(
        """
        @firmware_blk
        def test_red(virtio):
            virtio["nope"]
    """,
        "--co",
    )
    child = pytester.spawn_pytest("--pdb -p no:hypothesispytest -p no:xdist", expect_timeout=30)
    child.expect("virtio: verdict")
    child.expect("Pdb")
    child.sendline("p virtio.vm.running")
    child.expect("True")
    child.sendline("q")
    child.expect("1 failed")
    child.close()


def test_a_ring_that_stands_still_is_told_first_and_shown(run: Run) -> None:
    result = run("""
        @pytest.mark.virtio(VhostUserBlk())
        def test_red(virtio):
            daemon = virtio._running.backends["vublk0"].child
            os.kill(daemon.pid, signal.SIGSTOP)
            while not daemon.stopped:
                pass
            virtio.guest.driver("vublk0").submit(0, 0, writable=[512])
            assert 0, "my own"
    """)  # fmt: skip
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "* virtio: verdict *",
        "vublk0: its backend is stopped by a signal *",
        "vublk0.request0: the vhost backend's process is stopped: it serves nothing",
        "  backend stopped, *",
        "* virtio: vublk0 *",
        "queue 0, request0:",
        "  ring (split, * entries): avail_idx 1, *1 in flight or pending",
        "    in flight or pending: head *+512 write, *",
        "  device_name: *",
    ])  # fmt: skip


def test_a_device_that_stalled_shows_how_it_got_there(run: Run) -> None:
    result = run("""
        @pytest.mark.virtio(Rng(driver=None))
        def test_red(virtio):
            virtio.guest.driver("rng0").reset().acknowledge().driver()
            assert 0, "my own"
    """)  # fmt: skip
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["rng0: DRIVER: *", "* virtio: rng0 *", "history: *DRIVER*", "  device_name: *"])
