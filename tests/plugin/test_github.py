"""On GitHub: the job's summary, annotations, and reports that give the runner no command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_virtio.plugin import github
from pytest_virtio.render import FailedTest, job_summary

from .conftest import Run
from .runner import Command, commands

TESTS = """
    @pytest.mark.virtio(Blk())
    def test_green(virtio): pass

    @pytest.mark.virtio(Blk())
    def test_red(virtio):
        virtio["blk0"].assert_negotiated("VIRTIO_BLK_F_MQ")

    @pytest.mark.virtio(Blk())
    @pytest.mark.parametrize("value", ["50%, a:b"])
    def test_words(virtio, value):
        pytest.fail("100%:\\n::warning::x, y\\n ##[add-mask]z", pytrace=False)

    def test_other(): assert 0
"""
VERDICT = "blk0: VIRTIO_BLK_F_MQ not negotiated: not offered by the device (property num-queues=1)"


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    return path


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_each_failed_virtio_test_is_annotated(
    run: Run, summary: Path, pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    result = run(TESTS, *workers)
    red, words = sorted(commands(result.outlines), key=lambda command: command.properties["title"])
    assert "assert_negotiated" in _line(pytester, red)
    assert red.message.startswith(VERDICT)
    name = red.properties["file"]
    assert words.properties == {
        "file": name,
        "line": words.properties["line"],
        "title": f"{name}::test_words[50%, a:b]",
    }
    assert words.message == "Failed: 100%:\n::warning::x, y\n ##[add-mask]z"


def test_the_file_is_named_from_the_repositorys_root(
    run: Run, summary: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path.parent))
    red, _ = commands(run(TESTS).outlines)
    assert red.properties["file"].startswith(f"{pytester.path.name}/test_")
    monkeypatch.setenv("GITHUB_WORKSPACE", "/somewhere/else")
    red, _ = commands(run(TESTS).outlines)
    assert red.properties["file"].startswith("test_")


def test_a_failure_elsewhere_is_annotated_at_the_test(run: Run, summary: Path, pytester: pytest.Pytester) -> None:
    (command,) = commands(run("""
        @pytest.mark.virtio(Blk())
        def test_red(virtio):
            import json
            json.loads("{")
    """).outlines)  # fmt: skip
    # The decorator's line, where Python has the test begin.
    assert "@pytest.mark.virtio" in _line(pytester, command)
    assert "JSONDecodeError" in command.message


def test_ten_are_annotated_and_the_rest_is_counted(run: Run, summary: Path) -> None:
    result = run("""
        @pytest.fixture(scope="module")
        def shared(virtio_factory):
            with virtio_factory(Rng(), boot=False) as virtio: yield virtio

        @pytest.mark.parametrize("n", range(12))
        def test_red(shared, n): assert 0
    """)  # fmt: skip
    assert len(commands(result.outlines)) == github.ANNOTATIONS
    result.stdout.fnmatch_lines(["virtio: 2 more failed tests have no annotation: *"])
    assert summary.read_text().count("<details>") == 12


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_all_that_a_fixtures_failure_fails_are_annotated(run: Run, summary: Path, workers: tuple[str, ...]) -> None:
    """The VM is gone when the second test is told of it."""
    result = run("""
        @pytest.fixture(scope="module")
        def shared(virtio_factory):
            with virtio_factory(Rng(), boot=False): assert 0

        def test_a(shared): pass
        def test_b(shared): pass
    """, *workers)  # fmt: skip
    result.assert_outcomes(errors=2)
    assert len(commands(result.outlines)) == 2
    assert summary.read_text().count("<details>") == 2


def test_deselected_tests_are_no_reports(run: Run, summary: Path) -> None:
    result = run(TESTS, "-k", "green")
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=1, deselected=3)
    assert "<code>1 passed</code>" in summary.read_text()


def test_a_directorys_name_makes_no_virtio_test(
    run_dry: Run, pytester: pytest.Pytester, summary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = pytester.mkdir("virtio")
    (place / "test_it.py").write_text("def test_red(): assert 0\n")
    result = run_dry("", "virtio")
    result.assert_outcomes(failed=1)
    assert not commands(result.outlines)
    assert not summary.exists()


def _line(pytester: pytest.Pytester, command: Command) -> str:
    text = (pytester.path / command.properties["file"]).read_text()
    return text.splitlines()[int(command.properties["line"]) - 1]


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_the_summary(run: Run, summary: Path, workers: tuple[str, ...]) -> None:
    summary.write_text("another's\n")
    run(TESTS, *workers)
    text = summary.read_text()
    assert text.startswith("another's\n## virtio tests\n\n<code>1 passed, 3 failed</code>\n\n* <code>QEMU ")
    assert text.count("\n* <code>") == 1
    assert "guest scripted" in text
    assert f"<code>{_encoded(VERDICT)}</code> |\n" in text
    assert text.count("<details><summary>") == text.count("</details>") == 2
    assert "- virtio: blk0 -" in text


def _encoded(text: str) -> str:
    return "".join(f"&#{ord(c)};" if c in "_:.=" else c for c in text)


def test_without_virtio_tests_or_github_there_is_nothing(
    run_dry: Run, run: Run, summary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_dry("def test_other(): assert 0")
    assert not commands(result.outlines)
    result.stdout.no_fnmatch_line("*stop-commands*")
    monkeypatch.delenv("GITHUB_ACTIONS")
    run(TESTS).stdout.no_fnmatch_line("*stop-commands*")
    assert not summary.exists()


@pytest.mark.parametrize("path", ["/nonexistent/summary.md", "/", ""])
def test_without_a_file_a_line_says_so(run: Run, summary: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", path)
    result = run(TESTS)
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(["virtio: no job summary: *"])
    assert len(commands(result.outlines)) == 2


def test_no_console_gives_commands(run: Run, summary: Path, talking_rom: Callable[[bytes], Path]) -> None:
    rom = talking_rom(
        b"\n::error::one\r\n  ::add-mask::e\nx ##[warning]two\n::stop-commands::three\n```\n</details>THE END"
    )
    result = run(f"""
        from pytest_virtio.vm.deadline import Deadline

        @pytest.mark.virtio(Rng(), guest=Firmware(bios={str(rom)!r}, drives=frozenset()))
        def test_red(virtio):
            drain, log = virtio._running.qemu.child.drain, virtio.guest.console.log
            assert drain.wait(lambda: b"THE END" in log.since(0), Deadline.after(30))
            print(log.since(0).decode())
            pytest.fail(log.since(0).decode(), pytrace=False)
    """)  # fmt: skip
    (command,) = commands(result.outlines)
    assert command.properties["title"].endswith("::test_red")
    # The runner without the word that stops it, to see that there was something to stop.
    assert len(commands(line for line in result.outlines if "stop-commands" not in line)) > 3
    fences = [line for line in summary.read_text().splitlines() if line.startswith("```")]
    assert (fences[0], {*fences[1:-1]}, fences[-1]) == ("````text", {"```"}, "````")


FAILED = FailedTest(
    "test_a.py::test[x|y]", "a|b `c` <script>alert(1)</script> [x](y) **z** @me &lt; http://x www.x.y", "text"
)


def test_words_in_lines_are_literal() -> None:
    text = job_summary("1 failed\n# x", ["QEMU\n* <b>"], [FAILED], 1 << 20)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.count("|") for line in table] == [3, 3, 3]
    for active in ("<script>", "`c`", "[x]", "**", "@", "&lt;", "://", "www.", "<b>", "\n#  x", "\n* <b"):
        assert active not in text


def test_a_report_ends_where_it_ends() -> None:
    nasty = "\n````\n</details>\n\x1b[31m\udc80 `````` \n``````\nx"
    text = job_summary("", [], [FailedTest("a", "b", nasty)], 1 << 20)
    text.encode()
    assert text.count("\n```````") == 2
    assert "\x1b" not in text


@pytest.mark.parametrize("count", [1, 40, 2000])
@pytest.mark.parametrize("word", ["x", "é", "\U0001f980", "*"])
def test_it_fits_and_says_what_is_missing(word: str, count: int) -> None:
    failed = [FailedTest(f"test_{n}", word * 500, word * 100_000) for n in range(count)]
    text = job_summary("totals", ["QEMU"] * 1000, failed, 1 << 20)
    assert len(text.encode()) <= 1 << 20
    assert "and 950 more lines" in text
    if count > 20:
        assert f"and {count - text.count('<details>')} more reports, left out" in text


def test_where_there_is_no_room_there_is_none() -> None:
    assert job_summary("totals", [], [FAILED], 100) == job_summary("totals", [], [FAILED], -5) == ""
