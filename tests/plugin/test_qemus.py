"""Several QEMUs in one run: every virtio test on each, and an id that says which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_virtio.errors import UsageError
from pytest_virtio.plugin.options import GivenQemu
from pytest_virtio.plugin.qemus import ids

from .conftest import Run

RNG = """
    rng = pytest.mark.virtio(Rng())

    @rng
    def test_one(virtio): pass
"""
NOWHERE = "--virtio-qemu=/nonexistent/qemu"


@pytest.fixture
def twice(program: Path, tmp_path: Path) -> tuple[str, str]:
    """Options for the run's own QEMU under two labels and paths."""
    link = tmp_path / "qemu"
    link.symlink_to(program)
    return f"--virtio-qemu=new={program}", f"--virtio-qemu=old={link}"


@pytest.fixture
def names(run: Run) -> Callable[..., list[str]]:
    """Runs tests that must all pass, on several QEMUs, and gives their names in order."""

    def names(tests: str, *arguments: str, conftest: str = "") -> list[str]:
        result = run(tests, "-v", *arguments, conftest=conftest)
        assert result.ret == 0, result.stdout.str()
        lines = [line for line in result.stdout.lines if " PASSED" in line]
        return [line.split()[0].partition("::")[2] for line in lines]

    return names


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["/a=7.2.22", "/b=10.0.2"], ["qemu-7.2", "qemu-10.0"]),
        (["/a=10.0.2", "/b=10.0.13", "/c=7.2.22"], ["qemu-10.0.2", "qemu-10.0.13", "qemu-7.2"]),
        (["/a=10.0.2", "mine:/b=10.0.2"], ["qemu-10.0", "mine"]),
        (["qemu-10.0:/a=7.2.22", "/b=10.0.2"], ["qemu-10.0", "qemu-10.0.2"]),
        (["qemu-11.1=", "/b=7.2.22"], ["qemu-11.1", "qemu-7.2"]),
    ],
)
def test_ids(given: list[str], expected: list[str]) -> None:
    qemus, version = _known(given)
    assert ids(qemus, version) == expected


@pytest.mark.parametrize("given", [["/a=10.0.2", "/b=10.0.2"], ["qemu-10.0.2:/a=7.2.0", "/b=10.0.2", "/c=10.0.1"]])
def test_those_that_can_not_be_told_apart(given: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^/a and /b are both qemu-10\.0\.2 .*--virtio-qemu=LABEL=PATH$"):
        ids(*_known(given))


def _known(given: list[str]) -> tuple[list[GivenQemu], Callable[[str], str | None]]:
    """From texts such as ``LABEL:PROGRAM=VERSION``."""
    named = [text.rpartition("=")[0].rpartition(":") for text in given]
    versions = {name[2]: text.rpartition("=")[2] or None for name, text in zip(named, given, strict=True)}
    return [GivenQemu(program, label) for label, _, program in named], versions.__getitem__


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", "a"], "virtio-qemu 'a' is given twice: to run on it twice, write LABEL=PATH"),
        (["x=a", "x=b"], "virtio-qemu 'x' is given twice: to run on it twice, write LABEL=PATH"),
        (["x="], "virtio-qemu 'x=': PATH or LABEL=PATH is expected"),
        (["=a"], "virtio-qemu '=a': PATH or LABEL=PATH is expected"),
        ([""], "virtio-qemu '': PATH or LABEL=PATH is expected"),
    ],
)
def test_what_can_not_be_is_refused_before_collection(run_dry: Run, given: list[str], message: str) -> None:
    result = run_dry(RNG, *(f"--virtio-qemu={qemu}" for qemu in given))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


def test_every_virtio_test_runs_on_each(names: Callable[..., list[str]], twice: tuple[str, str]) -> None:
    tests = f"""{RNG}
    @pytest.fixture(scope="module")
    def shared(virtio_factory):
        with virtio_factory(Rng()) as virtio:
            yield virtio

    booted = set()

    def test_first(shared):
        booted.add(shared.vm.pid)

    @pytest.mark.parametrize("number", [1, 2])
    def test_second(shared, number):
        booted.add(shared.vm.pid)

    class TestMarked:
        @pytest.mark.usefixtures("virtio_qemu")
        def test_late(self, request):
            request.getfixturevalue("virtio_factory")

    def test_other():
        assert len(booted) == 2
    """
    each = ["test_one[{}]", "test_first[{}]", "test_second[1-{}]", "test_second[2-{}]", "TestMarked::test_late[{}]"]
    expected = [name.format(label) for label in ("new", "old") for name in each]
    assert names(tests, *twice) == [*expected, "test_other"]
    assert names(tests, *twice, "-k", "old and not late") == expected[5:9]


def test_one_has_no_id(names: Callable[..., list[str]], twice: tuple[str, str]) -> None:
    assert names(RNG, twice[0]) == ["test_one"]


def test_ids_are_shown_and_nothing_is_chosen_when_tests_are_only_collected(run: Run, twice: tuple[str, str]) -> None:
    result = run(RNG, *twice, "--collect-only", "-q")
    result.stdout.re_match_lines([r".*\.py::test_one\[new\]", r".*\.py::test_one\[old\]"], consecutive=True)
    result.stdout.no_fnmatch_line("virtio: *")


def test_the_ini_file_takes_one_a_line(run: Run, pytester: pytest.Pytester, tmp_path: Path, program: Path) -> None:
    (pytester.path / "builds").mkdir()
    (pytester.path / "builds" / "qemu").symlink_to(program)
    pytester.makeini(f"[pytest]\nvirtio_qemu =\n    mine=builds/qemu\n    {program}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_ADDOPTS")
        result = run(RNG, "-v")
    result.assert_outcomes(passed=2)
    result.stdout.re_match_lines([r".*::test_one\[mine\] PASSED.*", r".*::test_one\[qemu-\d+\.\d+\] PASSED.*"])


def test_two_of_one_version_need_labels(run: Run, pytester: pytest.Pytester, program: Path) -> None:
    link = pytester.path / "qemu"
    link.symlink_to(program)
    result = run(RNG, f"--virtio-qemu={program}", f"--virtio-qemu={link}")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"{program} and {link} are both qemu-* to test ids: write --virtio-qemu=LABEL=PATH"])
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize(("arguments", "outcomes"), [((), {"errors": 1}), (("--virtio-missing=skip",), {"skipped": 1})])
def test_one_that_is_missing_leaves_the_others_alone(
    run: Run, program: Path, arguments: tuple[str, ...], outcomes: dict[str, int]
) -> None:
    result = run(RNG, f"--virtio-qemu={program}", NOWHERE, "-v", *arguments)
    result.assert_outcomes(passed=1, **outcomes)
    result.stdout.fnmatch_lines([
        "virtio: QEMU *, accelerator *",
        "virtio: QEMU '/nonexistent/qemu' is not there.*",
        r"*::test_one[[]qemu-*.*] PASSED*",
        r"*::test_one[[]/nonexistent/qemu] *",
    ])  # fmt: skip


def test_each_that_is_selected_is_told_of(run: Run, twice: tuple[str, str]) -> None:
    result = run(RNG, *twice, NOWHERE, "-k", "new")
    result.assert_outcomes(passed=1, deselected=2)
    result.stdout.no_fnmatch_line("*/nonexistent/*")


def test_the_authors_own_choice_is_not_repeated(names: Callable[..., list[str]]) -> None:
    several = ("--virtio-qemu=a=/never/looked/at", "--virtio-qemu=b=/nor/this")
    test = "def test_it(virtio_qemu): assert virtio_qemu in ('mine', 'yours')"
    fixture = """
        @pytest.fixture(scope="session"{parameters})
        def virtio_qemu(request):
            return getattr(request, "param", "mine")
    """
    assert names(test, *several, conftest=fixture.format(parameters="")) == ["test_it"]
    assert names(fixture.format(parameters="") + "\n" + " " * 8 + test, *several) == ["test_it"]
    parameters = ", params=['mine', 'yours']"
    assert names(test, *several, conftest=fixture.format(parameters=parameters)) == ["test_it[mine]", "test_it[yours]"]
    marked = "@pytest.mark.parametrize('virtio_qemu', ['mine'], indirect={indirect}, scope='session')\n"
    hook = "def pytest_generate_tests(metafunc): metafunc.parametrize('virtio_qemu', ['yours'])"
    for indirect in (True, False):
        assert names(marked.format(indirect=indirect) + test, *several, conftest="") == ["test_it[mine]"]
    assert names(f"{hook}\n{test}", *several) == ["test_it[yours]"]


def test_what_overrides_ours_and_asks_for_it_is_repeated(names: Callable[..., list[str]]) -> None:
    test = "def test_it(virtio_qemu): assert virtio_qemu in ('/a.sh', '/b.sh')"
    conftest = """
        @pytest.fixture
        def virtio_qemu(virtio_qemu):
            return virtio_qemu + ".sh"
    """
    several = ("--virtio-qemu=a=/a", "--virtio-qemu=b=/b")
    assert names(test, *several, conftest=conftest) == ["test_it[a]", "test_it[b]"]


def test_one_that_asks_too_late_is_told_what_to_do(run: Run, twice: tuple[str, str]) -> None:
    result = run("""
        import unittest

        def test_late(request):
            request.getfixturevalue("virtio_factory")

        @pytest.mark.usefixtures("virtio_factory")
        class TestUnit(unittest.TestCase):
            def test_case(self): pass
    """, *twice)  # fmt: skip
    result.assert_outcomes(failed=1, errors=1)
    said = 'E  *UsageError: --virtio-qemu was given several times*usefixtures("virtio_qemu")*a single --virtio-qemu'
    result.stdout.fnmatch_lines([said, ">*request.getfixturevalue*", said])


def test_a_unittest_class_runs_on_one(run: Run) -> None:
    run("""
        import unittest

        @pytest.mark.usefixtures("virtio")
        @pytest.mark.virtio(Rng())
        class TestUnit(unittest.TestCase):
            def test_case(self): pass
    """).assert_outcomes(passed=1)  # fmt: skip


def test_xdist_workers_agree_on_the_ids(run: Run, twice: tuple[str, str]) -> None:
    result = run(RNG, *twice, NOWHERE, "-n", "2", "-v")
    result.assert_outcomes(passed=2, errors=1)
    for name in ("new", "old", "/nonexistent/qemu"):
        result.stdout.fnmatch_lines([f"*::test_one[[]{name}]*"])


def test_without_the_plugin_nothing_of_it_is_in_the_way(run_dry: Run) -> None:
    run_dry("def test_green(): pass", "-p", "no:virtio", "-W", "ignore").assert_outcomes(passed=1)
