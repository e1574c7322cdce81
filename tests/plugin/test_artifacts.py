"""--virtio-artifacts: what is kept, of which tests, where, and what happens when it can't be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_virtio import render
from pytest_virtio.artifact import codec, store
from pytest_virtio.plugin import artifacts

from .conftest import Run

FILES = {"test.json", "report.txt", "models.json", "profile.toml", "qemu.stderr", "qmp.jsonl", "command.sh"}
TESTS = """
    @firmware_blk
    def test_red(virtio):
        virtio["blk0"].assert_negotiated("VIRTIO_BLK_F_MQ")

    @firmware_blk
    def test_green(virtio):
        pass

    def test_other():
        assert 0
"""


@pytest.fixture
def kept(pytester: pytest.Pytester) -> Path:
    """Where the inner run is told to keep artefacts."""
    return pytester.path / "kept"


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _only(directory: Path) -> Path:
    (found,) = directory.iterdir()
    return found


def _about(directory: Path) -> Any:
    return json.loads((directory / "test.json").read_text())


def test_a_failing_tests_files(run: Run, kept: Path) -> None:
    result = run(TESTS, "--virtio-artifacts=kept")
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines([f"virtio: artefacts of 1 test: pytest-virtio show {kept}"])
    test = _only(kept)
    assert test.name.endswith(".py.test_red")
    assert set(_names(test)) == FILES | {"console.log"}
    about = _about(test)
    assert about["test"].endswith("::test_red")
    assert (about["when"], about["outcome"]) == ("call", "failed")
    assert about["words"].startswith("blk0: VIRTIO_BLK_F_MQ not negotiated")
    assert "SeaBIOS" in (test / "console.log").read_text()
    report = (test / "report.txt").read_text()
    assert "assert_negotiated" in report
    assert "virtio: verdict" in report
    findings = codec.models_from_json((test / "models.json").read_text())
    for line in (*render.verdict(findings), *render.device_findings(findings.devices["blk0"])):
        assert line in report
    assert "-device virtio-blk-pci,id=blk0" in (test / "command.sh").read_text()
    said = codec.transcript_from_json((test / "qmp.jsonl").read_text().splitlines())
    assert {entry["from"] for entry in said} == {"plugin", "QEMU"}


def test_without_the_option_nothing_is_kept_or_collected(run: Run, pytester: pytest.Pytester) -> None:
    before = set(pytester.path.iterdir())
    result = run(TESTS, "--virtio-artifacts-keep=all", "-p", "no:cacheprovider", conftest="""
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_logreport(report):
            assert not hasattr(report, "virtio_artifacts")
    """)  # fmt: skip
    result.assert_outcomes(failed=2, passed=1)
    new = {path.name for path in set(pytester.path.iterdir()) - before}
    assert {name for name in new if not name.startswith("test_")} <= {"conftest.py", "tox.ini", "__pycache__"}


def test_those_of_tests_that_pass_on_request(run: Run, kept: Path) -> None:
    run(TESTS, "--virtio-artifacts=kept", "--virtio-artifacts-keep=all").assert_outcomes(failed=2, passed=1)
    green, red = sorted(kept.iterdir())
    assert _about(green)["outcome"] == "passed"
    assert set(_names(green)) == FILES - {"report.txt"} | {"console.log"}
    assert codec.models_from_json((green / "models.json").read_text()).devices["blk0"].status
    assert _about(red)["outcome"] == "failed"


def test_the_ini_files_directory_is_beside_it(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nvirtio_artifacts = below/kept\nvirtio_artifacts_keep = failed")
    run(TESTS)
    assert len(_names(pytester.path / "below" / "kept")) == 1


def test_every_phase_and_every_vm_has_its_own(run: Run, kept: Path) -> None:
    result = run("""
        @pytest.fixture
        def dies(virtio):
            yield
            raise OSError("teardown")

        @pytest.mark.virtio(Rng())
        @pytest.mark.parametrize("odd", ["a/b", "a:b"])
        def test_red(dies, odd, virtio_factory):
            with virtio_factory(Balloon(), boot=False), virtio_factory(Net(), boot=False):
                assert 0
    """, "--virtio-artifacts=kept")  # fmt: skip
    result.assert_outcomes(failed=2, errors=2)
    tests = {(_about(test)["test"].partition("[")[2], _about(test)["when"]): test for test in kept.iterdir()}
    assert set(tests) == {(id, when) for id in ("a/b]", "a:b]") for when in ("call", "teardown")}
    assert not any(set(test.name) & set('":<>|*?\\/') for test in tests.values())
    call = tests["a:b]", "call"]
    assert _names(call) == ["report.txt", "test.json", "vm-1", "vm-2", "vm-3"]
    models = [codec.models_from_json((call / f"vm-{n}" / "models.json").read_text()) for n in (1, 2, 3)]
    assert [list(findings.devices) for findings in models] == [["net0"], ["balloon0"], ["rng0"]]
    report = (call / "report.txt").read_text()
    assert "virtio: net0 (VM 1 of 3)" in report
    assert _names(tests["a:b]", "teardown"]) == ["report.txt", "test.json"]


def test_a_vm_that_did_not_start_leaves_the_failure(run: Run, kept: Path) -> None:
    run("""
        @pytest.mark.virtio(Rng(), boot=False, args=["-nonsense"])
        def test_red(virtio): pass
    """, "--virtio-artifacts=kept").assert_outcomes(errors=1)  # fmt: skip
    test = _only(kept)
    assert _names(test) == ["report.txt", "test.json"]
    assert _about(test)["when"] == "setup"
    assert "-nonsense: invalid option" in (test / "report.txt").read_text()


def test_a_strict_xpass_is_a_failure(run: Run, kept: Path) -> None:
    result = run("""
        @pytest.mark.xfail(strict=True, reason="known")
        @firmware_blk
        def test_red(virtio): pass

        @pytest.mark.xfail(strict=True)
        def test_other(): pass
    """, "--virtio-artifacts=kept")  # fmt: skip
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*- virtio: verdict -*", "blk0: *", "FAILED *::test_red - [[]XPASS(strict)[]] known"])
    test = _only(kept)
    assert set(_names(test)) == FILES | {"console.log"}
    assert (_about(test)["outcome"], _about(test)["words"]) == ("failed", "[XPASS(strict)] known")


def test_a_daemons_wire_words_and_vhost_side(run: Run, kept: Path) -> None:
    run("""
        @pytest.mark.virtio(VhostUserBlk(wire=True))
        def test_red(virtio):
            assert 0
    """, "--virtio-artifacts=kept")  # fmt: skip
    test = _only(kept)
    assert set(_names(test)) == FILES | {"scripted-guest.txt", "backend-vublk0.stderr", "wire-vublk0.jsonl"}
    assert "qemu-storage-daemon" in (test / "backend-vublk0.stderr").read_text()
    messages = list(codec.wire_messages_from_json((test / "wire-vublk0.jsonl").read_text().splitlines()))
    device = codec.models_from_json((test / "models.json").read_text()).devices["vublk0"]
    assert device.wire is not None
    assert device.wire.count == len(messages)
    assert "SET_VRING_KICK" in {message.name for message in messages}
    assert device.wire.told.queues[0].started
    assert device.queues[0].vhost is not None
    assert device.queues[0].vhost.num == 128


def test_a_killed_qemu(run: Run, kept: Path) -> None:
    run("""
        @firmware_blk
        def test_red(virtio):
            os.kill(virtio.vm.pid, signal.SIGKILL)
            virtio["blk0"].status()
    """, "--virtio-artifacts=kept")  # fmt: skip
    findings = codec.models_from_json((_only(kept) / "models.json").read_text())
    assert findings.state == ("the VM is gone: QEMU ended (killed by SIGKILL)",)
    assert findings.devices["blk0"].no_answer == "QEMU has ended"


def test_a_nasty_console_is_harmless(run: Run, kept: Path, talking_rom: Callable[[bytes], Path]) -> None:
    rom = talking_rom(b"\x1b[31mred\x07 \xff\xfe ]]> <script> \x00 THE END")
    run(f"""
        from pytest_virtio.vm.deadline import Deadline

        @pytest.mark.virtio(Rng(), guest=Firmware(bios={str(rom)!r}, drives=frozenset()))
        def test_red(virtio):
            drain, log = virtio._running.qemu.child.drain, virtio.guest.console.log
            assert drain.wait(lambda: b"THE END" in log.since(0), Deadline.after(30))
            assert 0, "mine \\x1b[31m"
    """, "--virtio-artifacts=kept")  # fmt: skip
    test = _only(kept)
    assert (test / "console.log").read_text() == r"\x1b[31mred\x07 \xff\xfe ]]> <script> \x00 THE END"
    for file in test.iterdir():
        assert not {"\x1b", "\x07", "\x00"} & set(file.read_text())


def test_xdist_workers_bring_them_home(run: Run, kept: Path) -> None:
    result = run(TESTS, "--virtio-artifacts=kept", "-n", "2")
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines([f"virtio: artefacts of 1 test: pytest-virtio show {kept}"])
    assert set(_names(_only(kept))) == FILES | {"console.log"}


def test_workers_elsewhere_bring_them_home(run: Run, kept: Path, pytester: pytest.Pytester) -> None:
    elsewhere = pytester.mkdir("elsewhere")
    here = pytester.makepyfile("")
    result = run(TESTS, "--virtio-artifacts=kept", "-d", f"--tx=popen//chdir={elsewhere}", f"--rsyncdir={here}")
    result.assert_outcomes(failed=2, passed=1)
    assert set(_names(_only(kept))) == FILES | {"console.log"}
    assert not list(elsewhere.rglob("models.json"))


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_file_in_the_place_of_the_directory_is_refused_at_once(
    run_dry: Run, pytester: pytest.Pytester, where: str
) -> None:
    (pytester.path / "file").touch()
    result = run_dry(TESTS, f"--virtio-artifacts={where}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([
        f"ERROR: virtio-artifacts {pytester.path / where}: {pytester.path / 'file'} is no directory: name a directory *"
    ])  # fmt: skip


def test_a_full_disk_is_told_of_and_loses_no_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write", full)
    result = run(TESTS, "--virtio-artifacts=kept")
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines([
        "virtio: the artefacts of *::test_red are not all written: [[]Errno 28] No space left on device",
        "FAILED *::test_red - blk0: VIRTIO_BLK_F_MQ not negotiated*",
    ])  # fmt: skip


def test_a_file_that_cannot_be_made_says_so_in_its_place(run: Run, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(codec, "models_to_json", fail)
    run(TESTS, "--virtio-artifacts=kept").assert_outcomes(failed=2, passed=1)
    assert (_only(kept) / "models.json").read_text() == "this file could not be made: KeyError('ours')\n"
    assert "SeaBIOS" in (_only(kept) / "console.log").read_text()


def test_a_run_without_vms_makes_no_directory(run_dry: Run, kept: Path) -> None:
    run_dry("def test_red(): assert 0", "--virtio-artifacts=kept").assert_outcomes(failed=1)
    assert not kept.exists()


def test_the_files_of_a_test_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "TOTAL_LIMIT", 10 + artifacts.FAILURE_LIMIT + artifacts.CAPTURED_LIMIT)
    first, second = artifacts.bounded([{"a": "1234é", "b": "éàè"}, {"c": "1"}])
    assert first == {"a": "1234é", "b": artifacts._TOO_MUCH}
    assert second == {"c": artifacts._TOO_MUCH}


def test_the_report_has_what_was_captured(run: Run, kept: Path) -> None:
    run("""
        import logging

        @pytest.fixture
        def loud():
            print("from the fixture")

        @firmware_blk
        def test_red(loud, virtio):
            print("a\x1b[31m line")
            logging.warning("a warning")
            assert 0
    """, "--virtio-artifacts=kept")  # fmt: skip
    report = (_only(kept) / "report.txt").read_text()
    _, reproduce, captured = report.partition("- reproduce -")
    assert reproduce
    for title, text in (("stdout setup", "from the fixture"), ("stdout call", r"a\x1b[31m line"), ("log call", "")):
        assert f" Captured {title} -------" in captured
        assert text in captured.partition(f" Captured {title} ")[2]
    assert "a warning" in captured


def test_the_reports_text_is_bounded_in_bytes() -> None:
    report = pytest.TestReport("a", ("a", 1, "a"), {}, "failed", "begin" + "é\x1b\U0010fffe" * (4 << 20), "call")
    report.sections = [("a\x1b" * 10_000, "\x00é" * (1 << 20) + "end")] * 100
    text = artifacts._text(report)
    assert len(render.written(text)) <= artifacts.FAILURE_LIMIT + artifacts.CAPTURED_LIMIT
    assert len(render.written(text)) > artifacts.FAILURE_LIMIT + artifacts.CAPTURED_LIMIT // 2
    assert text.startswith("begin")
    assert text.endswith("end")
    report.outcome, report.longrepr = "passed", None
    assert artifacts._text(report) == ""
