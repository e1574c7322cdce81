"""Every output at once, of guests and backends that say whatever they like: all stay valid and bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .conftest import Run
from .runner import commands

NASTY = b"\x1b]0;title\x07\x1b[2J\xff\xfe\xed\xa0\x80\xef\xbf\xbf\x00]]></failure><script>\n::error::x\n```\n"
MEGABYTES = 100
LIMIT = 1024 * 1024

CONFTEST = """
    import json

    def pytest_runtest_logreport(report):
        if hasattr(report, "virtio") and "PYTEST_XDIST_WORKER" not in os.environ:
            with open("report.json", "w", encoding="utf-8") as file:
                json.dump(report.virtio, file, ensure_ascii=False)
"""


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    return tmp_path / "summary.md"


@pytest.fixture
def talkative(tmp_path: Path) -> Path:
    """A backend that says nasty things, a hundred megabytes of them, and then serves."""
    said = tmp_path / "said"
    said.write_bytes(NASTY * (MEGABYTES * 1_000_000 // len(NASTY)))
    program = tmp_path / "talkative"
    program.write_text(f'#!/bin/sh\ncat {said} >&2\nexec qemu-storage-daemon "$@"\n')
    program.chmod(0o755)
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    return program


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_a_backend_that_says_too_much(
    run: Run, pytester: pytest.Pytester, summary: Path, talkative: Path, workers: tuple[str, ...]
) -> None:
    disk = f"driver=file,node-name=disk,filename={talkative.parent}/disk"
    result = run(f"""
        EXPORT = "type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=fd,addr.str={{fd}}"
        SERVER = Daemon([{str(talkative)!r}, "--blockdev", {disk!r}, "--export", EXPORT])

        @pytest.mark.virtio(VhostUserBlk(backend=SERVER))
        def test_red(virtio):
            assert 0, virtio["vublk0"].backend.stderr
    """, "--junitxml=junit.xml", *workers, conftest=CONFTEST)  # fmt: skip
    result.assert_outcomes(failed=1)
    _check(result, pytester, summary)
    assert "- vublk0 backend stderr -" in result.stdout.str()


def test_a_console_that_says_nasty_things(
    run: Run, pytester: pytest.Pytester, summary: Path, talking_rom: Callable[[bytes], Path]
) -> None:
    rom = talking_rom(NASTY * 200 + b"THE END")
    result = run(f"""
        from pytest_virtio.vm.deadline import Deadline

        @pytest.mark.virtio(Rng(), guest=Firmware(bios={str(rom)!r}, drives=frozenset()))
        def test_red(virtio):
            drain, log = virtio._running.qemu.child.drain, virtio.guest.console.log
            assert drain.wait(lambda: b"THE END" in log.since(0), Deadline.after(60))
            assert 0
    """, "--junitxml=junit.xml", conftest=CONFTEST)  # fmt: skip
    result.assert_outcomes(failed=1)
    _check(result, pytester, summary)
    assert "THE END" in result.stdout.str()


@pytest.mark.guest
def test_a_linux_guest_that_prints_to_its_console(run: Run, pytester: pytest.Pytester, summary: Path) -> None:
    result = run("""
        @pytest.mark.virtio(Rng(), guest="linux")
        def test_red(virtio):
            told = virtio.guest.run(r"printf '\\033[2J\\377]]><script>\\n::error::x\\n##[error]y\\n' | tee /dev/ttyS0")
            assert 0, told.output
    """, "--junitxml=junit.xml", conftest=CONFTEST)  # fmt: skip
    result.assert_outcomes(failed=1)
    _check(result, pytester, summary)


def _check(result: pytest.RunResult, pytester: pytest.Pytester, summary: Path) -> None:
    said = result.stdout.str()
    assert len(said) < LIMIT
    assert not any(character in said for character in "\x1b\x07\x00\ud800\uffff")
    (command,) = commands(result.outlines)
    assert command.properties["title"].endswith("::test_red")
    junit = pytester.path / "junit.xml"
    assert junit.stat().st_size < LIMIT
    assert len(ElementTree.parse(junit).findall(".//failure")) == 1
    shown = summary.read_bytes()
    assert len(shown) < LIMIT
    # What is before the fences is all that GitHub could take for HTML.
    assert b"<script" not in shown.partition(b"```")[0]
    report = (pytester.path / "report.json").read_text(encoding="utf-8")
    assert len(report) < LIMIT
    assert {section["title"] for section in json.loads(report)[0]} >= {"virtio: verdict", "reproduce"}
