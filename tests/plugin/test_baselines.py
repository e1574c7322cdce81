"""Baselines: the three modes, what belongs to which file, unused ones, and who writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_virtio.baseline.store import read, write

from .conftest import Run

PLAIN = """
    @pytest.mark.virtio(Net(mrg_rxbuf=os.environ.get("MRG_RXBUF", "on")), Rng())
    def test_net(virtio):
        virtio.assert_baseline()
"""


@pytest.fixture
def baselines(pytester: pytest.Pytester) -> Path:
    return pytester.path / "__virtio__"


@pytest.fixture
def suite(run: Run, pytester: pytest.Pytester) -> Run:
    """Runs the same file of tests again and again, by one name."""

    def again(tests: str, *arguments: str, conftest: str = "") -> pytest.RunResult:
        result = run(tests, "-p", "no:cacheprovider", *arguments, conftest=conftest)
        # As pytester names a file.
        assert not list(pytester.path.rglob("*.tmp"))
        return result

    return again


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*.toml"))


def new(suite: Run, tests: str, *arguments: str) -> pytest.RunResult:
    return suite(tests, "--virtio-baseline=new", *arguments)


def test_a_missing_one_fails_and_says_how_to_make_it(suite: Run, baselines: Path) -> None:
    result = suite(PLAIN)
    result.assert_outcomes(failed=1)
    module = "test_a_missing_one_fails_and_says_how_to_make_it"
    result.stdout.fnmatch_lines(
        [
            f"E *VirtioAssertionError: no baseline yet: there is no __virtio__/{module}/test_net.toml",
            f"E *to make it: pytest --virtio-baseline=new {module}.py::test_net",
        ]
    )
    assert not baselines.exists()


def test_made_checked_changed_and_accepted(suite: Run, baselines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = new(suite, PLAIN)
    made.assert_outcomes(passed=1)
    module = "test_made_checked_changed_and_accepted"
    made.stdout.fnmatch_lines(["*= virtio baselines =*", f"written: __virtio__/{module}/test_net.toml (new)"])
    (file,) = baselines.rglob("*.toml")
    before = file.read_text()
    green = suite(PLAIN)
    green.assert_outcomes(passed=1)
    assert "virtio baselines" not in green.stdout.str()

    monkeypatch.setenv("MRG_RXBUF", "off")
    red = suite(PLAIN, "--virtio-baseline=new")
    red.assert_outcomes(failed=1)
    red.stdout.fnmatch_lines(
        [
            "E *VirtioAssertionError: net0: VIRTIO_NET_F_MRG_RXBUF lost: QEMU offers it no more",
            "E *to accept it in *: pytest --virtio-baseline=update *.py::test_net",
            "FAILED *::test_net - net0: VIRTIO_NET_F_MRG_RXBUF lost: QEMU offers it no more",
        ]
    )
    assert file.read_text() == before
    accepted = suite(PLAIN, "--virtio-baseline=update")
    accepted.assert_outcomes(passed=1)
    accepted.stdout.fnmatch_lines([f"written: __virtio__/{module}/test_net.toml (1 change)"])
    assert set(before.splitlines()) - set(file.read_text().splitlines()) == {'VIRTIO_NET_F_MRG_RXBUF = "negotiated"'}
    suite(PLAIN).assert_outcomes(passed=1)


def test_what_has_not_changed_is_not_touched(suite: Run, baselines: Path) -> None:
    new(suite, PLAIN)
    (file,) = baselines.rglob("*.toml")
    other = re.sub(r"^qemu_build = .*", 'qemu_build = "another"', file.read_text(), flags=re.MULTILINE)
    assert other != file.read_text()
    write(file, other)
    suite(PLAIN, "--virtio-baseline=update").assert_outcomes(passed=1)
    assert file.read_text() == other


def test_allowances_are_shown_and_kept(suite: Run, baselines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new(suite, PLAIN)
    (file,) = baselines.rglob("*.toml")
    allowance = '\n[[allow]]\ndevice = "net0"\nwhat = "MRG_RXBUF"\nreason = "old QEMUs"\n'
    whole = file.read_text().replace("\n# What this", f"{allowance}\n# What this")
    write(file, whole)
    monkeypatch.setenv("MRG_RXBUF", "off")
    for mode in ("check", "update"):
        result = suite(PLAIN, f"--virtio-baseline={mode}")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(
            ["*= virtio baselines =*", "__virtio__/*/test_net.toml:", "*VIRTIO_NET_F_MRG_RXBUF*(allowed: old QEMUs)"]
        )
        assert file.read_text() == whole
    other = PLAIN.replace("Net(", "Net(host_mtu=1400, ")
    suite(other, "--virtio-baseline=update").assert_outcomes(passed=1)
    assert read(file).allowances
    assert "host_mtu" not in file.read_text()
    assert "mtu = 1400" in file.read_text()


def test_the_allowance_of_an_accepted_removal_goes_with_it(suite: Run, baselines: Path) -> None:
    new(suite, PLAIN)
    (file,) = baselines.rglob("*.toml")
    allowances = "".join(
        f'\n[[allow]]\ndevice = "{id}"\nwhat = "queues"\nreason = "of {id}"\n' for id in ("rng0", "net0")
    )
    write(file, file.read_text().replace("\n# What this", f"{allowances}\n# What this"))
    without = PLAIN.replace(", Rng()", "")
    accepted = suite(without, "--virtio-baseline=update")
    accepted.assert_outcomes(passed=1)
    accepted.stdout.fnmatch_lines(
        [
            "__virtio__/*/test_net.toml:",
            "  [[][[]allow]] of rng0 left out, for the VM has it no more: of rng0",
            "written: *",
        ]
    )
    assert [allowance.device for allowance in read(file).allowances] == ["net0"]
    suite(without).assert_outcomes(passed=1)


def test_one_device_has_its_table_in_the_same_file(suite: Run, baselines: Path) -> None:
    one = PLAIN.replace("virtio.assert", 'virtio["rng0"].assert')
    new(suite, one)
    (file,) = baselines.rglob("*.toml")
    assert list(read(file).profile.devices) == ["rng0"]
    suite(one).assert_outcomes(passed=1)
    other = suite(one.replace("rng0", "net0"))
    other.assert_outcomes(failed=1)
    other.stdout.fnmatch_lines(["E *no baseline of net0 is in __virtio__/*", "E *--virtio-baseline=new *"])
    new(suite, one.replace("rng0", "net0")).assert_outcomes(passed=1)
    assert sorted(read(file).profile.devices) == ["net0", "rng0"]
    suite(PLAIN).assert_outcomes(passed=1)
    gone = suite(PLAIN.replace(", Rng()", ""))
    gone.stdout.fnmatch_lines(["E *rng0: *the VM does not have it any more*"])


def test_two_profiles_of_a_device_need_names(suite: Run, baselines: Path) -> None:
    twice = """
        def test_net(virtio_factory):
            for size in (64, 128):
                with virtio_factory(Rng(), Blk(queue_size=size)) as virtio:
                    virtio["rng0"].assert_baseline()
                    virtio.assert_baseline(NAME)
    """
    result = new(suite, twice.replace("NAME", ""))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *UsageError: blk0: this test has asserted another profile by this name already*"])
    new(suite, twice.replace("NAME", "f'of {size}'")).assert_outcomes(passed=1)
    assert [Path(file).name for file in files(baselines)] == [
        "test_net.toml",
        "test_net@of 128.toml",
        "test_net@of 64.toml",
    ]
    assert read(next(baselines.rglob("*64.toml"))).profile.devices["blk0"].queues[0].size == 64


@pytest.mark.parametrize(
    ("first", "second", "stranger"),
    [("a", "b", "blk0, rng0"), ("a", 'b["blk0"]', "blk0"), ('a["rng0"]', "b", "rng0")],
    ids=["both", "one-after", "one-before"],
)
def test_two_vms_need_names(suite: Run, baselines: Path, first: str, second: str, stranger: str) -> None:
    tests = f"""
        def test_it(virtio_factory):
            with virtio_factory(Rng()) as a, virtio_factory(Blk()) as b:
                {first}.assert_baseline()
                {second}.assert_baseline(NAME)
    """
    result = new(suite, tests.replace("NAME", ""))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E *UsageError: {stranger}: this test has asserted another profile*one VM*a name*"])
    new(suite, tests.replace("NAME", "'b'")).assert_outcomes(passed=1)
    suite(tests.replace("NAME", "'b'")).assert_outcomes(passed=1)


def test_only_the_authors_variants_are_in_the_name(suite: Run, baselines: Path, program: Path) -> None:
    tests = """
        @pytest.fixture(params=["slow", "fast"])
        def speed(request):
            return request.param

        class TestRng:
            @pytest.mark.virtio(Rng())
            @pytest.mark.parametrize("a, b", [(1, 2)], ids=["one/two"])
            def test_it(self, virtio, speed, a, b):
                virtio.assert_baseline()

            @pytest.mark.virtio(Rng())
            @pytest.mark.parametrize("virtio_qemu", [QEMU], indirect=True)
            def test_other(self, virtio):
                virtio.assert_baseline()
    """.replace("QEMU", repr(str(program)))
    result = new(suite, tests, f"--virtio-qemu=x={program}", f"--virtio-qemu=y={program}")
    result.assert_outcomes(passed=5)
    assert [Path(file).name for file in files(baselines)] == [
        "TestRng.test_it[fast-one%2Ftwo].toml",
        "TestRng.test_it[slow-one%2Ftwo].toml",
        "TestRng.test_other.toml",
    ]


@pytest.mark.skipif(not hasattr(pytest, "HIDDEN_PARAM"), reason="of pytest 8.4")
def test_a_hidden_parameter_lets_no_version_into_the_name(suite: Run, baselines: Path, program: Path) -> None:
    tests = """
        @pytest.mark.virtio(Rng())
        @pytest.mark.parametrize("a", [pytest.param(1, id=pytest.HIDDEN_PARAM)])
        @pytest.mark.parametrize("b", ["c"])
        def test_it(virtio, a, b):
            virtio.assert_baseline()

        @pytest.mark.virtio(Rng(), matrix={"transport": ["pci"]})
        @pytest.mark.parametrize("a", [pytest.param(1, id=pytest.HIDDEN_PARAM)])
        def test_other(virtio, a):
            virtio.assert_baseline()
    """
    qemus = (f"--virtio-qemu=x={program}", f"--virtio-qemu=y={program}")
    new(suite, tests, *qemus, "--virtio-matrix=cpus=1").assert_outcomes(passed=4)
    assert [Path(file).name for file in files(baselines)] == ["test_it[c].toml", "test_other[pci].toml"]


SIDES = """
    @pytest.mark.virtio()
    def test_it(virtio_factory, virtio_qemu, request):
        sizes = os.environ["SIZES"].split(",")
        with virtio_factory(Blk(queue_size=int(sizes[request.node.callspec.indices["virtio_qemu"]]))) as virtio:
            virtio.assert_baseline()
"""


@pytest.mark.parametrize(
    ("sizes", "xdist"),
    [("64,128", ()), ("32,64", ()), ("64,32", ()), ("64,32", ("-n2", "-p", "xdist"))],
    ids=["both-write", "first-equals", "second-equals", "xdist"],
)
def test_two_tests_that_would_make_different_ones_of_a_file(
    suite: Run, baselines: Path, program: Path, monkeypatch: pytest.MonkeyPatch, sizes: str, xdist: tuple[str, ...]
) -> None:
    qemus = (f"--virtio-qemu=x={program}", f"--virtio-qemu=y={program}", *xdist)
    monkeypatch.setenv("SIZES", "32,32")
    new(suite, SIDES, *qemus).assert_outcomes(passed=2)
    monkeypatch.setenv("SIZES", sizes)
    result = suite(SIDES, "--virtio-baseline=update", *qemus)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.re_match_lines(
        [r".*test_it\.toml: .*::test_it\[[xy]\] and .*::test_it\[[xy]\] have asserted different profiles of blk0 in.*"]
    )
    # One that both agree on is accepted.
    monkeypatch.setenv("SIZES", "16,16")
    suite(SIDES, "--virtio-baseline=update", *qemus).assert_outcomes(passed=2)
    suite(SIDES, *qemus).assert_outcomes(passed=2)
    (file,) = baselines.rglob("*.toml")
    assert read(file).profile.devices["blk0"].queues[0].size == 16


@pytest.mark.parametrize("xdist", [(), ("-n2", "-p", "xdist")], ids=["alone", "xdist"])
def test_sides_may_differ_in_what_is_allowed(
    suite: Run, baselines: Path, program: Path, monkeypatch: pytest.MonkeyPatch, xdist: tuple[str, ...]
) -> None:
    tests = SIDES.replace("Blk(", "Net(host_mtu=int(os.environ['MTU']), rx_")
    qemus = (f"--virtio-qemu=x={program}", f"--virtio-qemu=y={program}", *xdist)
    monkeypatch.setenv("SIZES", "256,256")
    monkeypatch.setenv("MTU", "1400")
    new(suite, tests, *qemus).assert_outcomes(passed=2)
    (file,) = baselines.rglob("*.toml")
    allowance = '\n[[allow]]\ndevice = "net0"\nwhat = "queues"\nreason = "of y"\n'
    write(file, file.read_text().replace("\n# What this", f"{allowance}\n# What this"))
    monkeypatch.setenv("SIZES", "256,512")
    monkeypatch.setenv("MTU", "1300")
    suite(tests, "--virtio-baseline=update", *qemus).assert_outcomes(passed=2)
    suite(tests, *qemus).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("end", "how"),
    [("raise ValueError", "failed"), ("pytest.skip()", "was skipped"), ("pytest.xfail()", "is expected to fail")],
)
@pytest.mark.parametrize("in_fixture", [False, True])
def test_what_a_failing_test_asserts_is_not_accepted(
    suite: Run, baselines: Path, end: str, how: str, in_fixture: bool
) -> None:
    tests = """
        @pytest.fixture
        def asserted(virtio):
            if IN_FIXTURE:
                virtio.assert_baseline()

        @pytest.mark.virtio(Rng())
        def test_it(virtio, asserted):
            if not IN_FIXTURE:
                virtio.assert_baseline()
            END
    """.replace("IN_FIXTURE", str(in_fixture))
    result = new(suite, tests.replace("END", end))
    result.stdout.fnmatch_lines([f"not written: __virtio__/*/test_it.toml: the test {how}"])
    assert files(baselines) == []
    new(suite, tests.replace("END", "pass")).assert_outcomes(passed=1)
    assert len(files(baselines)) == 1


def test_a_broken_file(suite: Run, baselines: Path) -> None:
    new(suite, PLAIN)
    (file,) = baselines.rglob("*.toml")
    broken = file.read_text()[:300]
    file.write_text(broken)
    for mode in ("check", "new", "update"):
        red = suite(PLAIN, f"--virtio-baseline={mode}")
        red.assert_outcomes(failed=1)
        red.stdout.fnmatch_lines(["E *test_net.toml: *: rm *test_net.toml && pytest --virtio-baseline=new *::test_net"])
        assert file.read_text() == broken
    file.unlink()
    new(suite, PLAIN)
    suite(PLAIN).assert_outcomes(passed=1)


def test_the_command_boots_the_same_vms(suite: Run, program: Path) -> None:
    options = (
        f"--virtio-qemu=x={program}",
        "--virtio-qemu",
        f"y={program}",
        "--virtio-accel=tcg",
        "--virtio-timeout=50",
    )
    red = suite(PLAIN, *options, "--virtio-matrix=packed=on")
    said = f"--virtio-qemu=x={program} --virtio-qemu=y={program} --virtio-accel=tcg --virtio-matrix=packed=on"
    red.stdout.fnmatch_lines([f"E *to make it: pytest --virtio-baseline=new {said} '*::test_net[[]packed-on-x]'"])


def test_a_place_that_can_not_be_written(suite: Run, baselines: Path) -> None:
    baselines.write_text("in the way")
    result = new(suite, PLAIN)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_net.toml: it can't be written: *"])
    assert "INTERNALERROR" not in result.stdout.str()


TWO = """
    @pytest.mark.virtio(Rng())
    def test_one(virtio):
        virtio.assert_baseline()

    @pytest.mark.virtio(Rng())
    def test_two(virtio):
        BODY
"""
ASSERTS = TWO.replace("BODY", "virtio.assert_baseline()")


def test_unused_ones(suite: Run, baselines: Path) -> None:
    new(suite, ASSERTS)
    orphan = baselines / "test_gone" / "test_old.toml"
    write(orphan, next(baselines.rglob("*.toml")).read_text())
    silent = TWO.replace("BODY", "pass")
    result = suite(silent)
    result.stdout.fnmatch_lines(
        [
            "*= virtio baselines =*",
            "unused: __virtio__/test_gone/test_old.toml",
            "unused: __virtio__/test_unused_ones/test_two.toml",
            "no test asserts these any more: pytest --virtio-baseline-prune, with the same tests, removes them",
        ]
    )
    assert len(files(baselines)) == 3
    removed = suite(silent, "--virtio-baseline-prune")
    removed.stdout.fnmatch_lines(["removed: __virtio__/test_gone/test_old.toml", "removed: *test_two.toml"])
    assert [Path(file).name for file in files(baselines)] == ["test_one.toml"]


@pytest.mark.parametrize(
    ("body", "arguments", "why"),
    [
        ("pass", ["-k", "one"], "-k"),
        ("pass", ["-m", "not other"], "-m"),
        ("pass", ["--deselect", "test_a_narrowed_run.py::test_two"], "--deselect"),
        ("pass", ["--lf"], "--lf"),
        ("pass", ["test_a_narrowed_run.py::test_one"], "a node id"),
        ("pass", ["--setup-only"], "--setup-only"),
        ("pass", ["--setup-plan"], "--setup-plan, --setup-only"),
        ("pass", ["--collect-only"], "--collect-only"),
        ("raise ValueError", ["-x"], "not all tests ran"),
    ],
    ids=["k", "m", "deselect", "lf", "node-id", "setup-only", "setup-plan", "collect-only", "x"],
)
def test_a_narrowed_run(suite: Run, baselines: Path, body: str, arguments: list[str], why: str, run: Run) -> None:
    new(suite, ASSERTS)
    silent = run(TWO.replace("BODY", body), *arguments)
    assert "virtio baselines" not in silent.stdout.str()
    result = run(TWO.replace("BODY", body), "--virtio-baseline-prune", *arguments)
    result.stdout.fnmatch_lines([f"nothing removed: the selection was narrowed ({why})"])
    assert len(files(baselines)) == 2


@pytest.mark.parametrize("body", ["pytest.skip('today')", "pytest.xfail('today')", "raise ValueError"])
def test_who_did_not_come_to_asserting(suite: Run, baselines: Path, body: str) -> None:
    new(suite, ASSERTS)
    result = suite(TWO.replace("BODY", body), "--virtio-baseline-prune")
    assert "virtio baselines" not in result.stdout.str()
    assert len(files(baselines)) == 2


def test_who_never_ran(suite: Run, baselines: Path) -> None:
    """Whatever ends a test after its setup, without a word of its body."""
    new(suite, ASSERTS)
    conftest = """
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(item, nextitem):
            from _pytest.runner import call_and_report
            call_and_report(item, "setup")
            call_and_report(item, "teardown", nextitem=nextitem)
            return True
    """
    suite(ASSERTS, "--virtio-baseline-prune", conftest=conftest)
    assert len(files(baselines)) == 2


def test_a_skipped_test_of_a_base_class_in_another_module(
    suite: Run, baselines: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        base="""
            import os
            import pytest

            class Base:
                def test_inherited(self, virtio):
                    if "SKIP" in os.environ:
                        pytest.skip("today")
                    virtio.assert_baseline()
        """
    )
    pytester.syspathinsert()
    tests = """
        from base import Base

        @pytest.mark.virtio(Rng())
        class TestD(Base):
            pass

        def test_other():
            pass
    """
    new(suite, tests)
    monkeypatch.setenv("SKIP", "1")
    suite(tests, "--virtio-baseline-prune").assert_outcomes(passed=1, skipped=1)
    assert [Path(file).name for file in files(baselines)] == ["TestD.test_inherited.toml"]


@pytest.mark.parametrize("length", [100, 130, 150])
def test_a_skipped_test_with_a_long_name(suite: Run, baselines: Path, length: int) -> None:
    tests = f"""
        @pytest.mark.virtio(Rng())
        @pytest.mark.parametrize("a", ["{"x" * 20}"])
        def test_{"o" * length}(virtio, a):
            BODY
    """
    new(suite, tests.replace("BODY", "virtio.assert_baseline()"))
    suite(tests.replace("BODY", "pytest.skip('today')"), "--virtio-baseline-prune").assert_outcomes(skipped=1)
    assert len(files(baselines)) == 1
    suite(tests.replace("BODY", "pass"), "--virtio-baseline-prune").assert_outcomes(passed=1)
    assert files(baselines) == []


@pytest.mark.parametrize("narrowed", [False, True])
def test_under_xdist_the_controller_writes(
    suite: Run, baselines: Path, pytester: pytest.Pytester, narrowed: bool
) -> None:
    conftest = """
        def pytest_collection_modifyitems(config, items):
            if NARROWED and hasattr(config, "workerinput"):
                config.hook.pytest_deselected(items=[items.pop()])
    """.replace("NARROWED", str(narrowed))
    arguments = ("-n2", "-p", "xdist", "--virtio-baseline=new")
    result = suite(ASSERTS, *arguments, conftest=conftest)
    result.assert_outcomes(passed=1 if narrowed else 2)
    result.stdout.fnmatch_lines(["written: __virtio__/*/test_one.toml (new)"])
    for path in baselines.rglob("*.toml"):
        write(path.with_name("test_old.toml"), path.read_text())
    again = suite(ASSERTS, *arguments, conftest=conftest)
    assert ("unused: " in again.stdout.str()) is not narrowed


def test_who_has_no_test_has_no_baseline(suite: Run) -> None:
    tests = """
        @pytest.mark.virtio(Rng())
        def test_it(virtio):
            with pytest.raises(UsageError, match="name=3: a text is expected"):
                virtio.assert_baseline(3)
            from pytest_virtio.handle import Virtio
            with pytest.raises(NotSupportedError, match="was not booted by virtio or virtio_factory"):
                Virtio(virtio._running).assert_baseline()
    """
    suite(tests).assert_outcomes(passed=1)


def test_a_fixture_of_wider_scope(suite: Run, baselines: Path) -> None:
    """The baseline is the running test's, whoever's the VM is."""
    tests = """
        @pytest.fixture(scope="module")
        def vm(virtio_factory):
            with virtio_factory(Rng()) as virtio:
                virtio.assert_baseline("booted")
                yield virtio

        def test_one(vm):
            vm.assert_baseline()

        def test_two(vm):
            vm.assert_baseline()
    """
    new(suite, tests).assert_outcomes(passed=2)
    names = [Path(file).name for file in files(baselines)]
    assert names == ["test_one.toml", "test_one@booted.toml", "test_two.toml"]
    suite(tests).assert_outcomes(passed=2)


def test_a_run_without_baselines_says_nothing(run_dry: Run) -> None:
    result = run_dry("def test_it(): pass", "--virtio-baseline-prune")
    result.assert_outcomes(passed=1)
    assert "virtio baselines" not in result.stdout.str()


def test_a_mode_that_there_is_not(run_dry: Run) -> None:
    result = run_dry("def test_it(): pass", "-o", "virtio_baseline=refresh")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*virtio_baseline = refresh: one of check, update, new is expected"])
