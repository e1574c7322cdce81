"""Options and their ini twins, marks and the fixtures to override: what is declared at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_virtio.plugin.axes import Point
from pytest_virtio.plugin.options import GivenQemu, Settings

from .conftest import Run

DECLARED = """
    @pytest.fixture
    def virtio_factory(pytestconfig):
        from pytest_virtio.plugin.session import virtio_session
        return lambda *devices, **options: Declared(virtio_session(pytestconfig).spec(devices, options))

    class Declared:
        def __init__(self, spec):
            self.spec = spec
        def __enter__(self):
            return self.spec
        def __exit__(self, *_):
            pass
"""
"""Stands in for the factory: gives what would be booted. test_report.py boots."""


def settings(pytester: pytest.Pytester, *arguments: str) -> Settings:
    return Settings.from_config(pytester.parseconfig(*arguments))


VALUES = [
    ("qemu", "./qemu", lambda root: (GivenQemu(f"{root}/qemu"),)),
    ("guest", "linux", lambda _: "linux"),
    ("kernel", "bzImage", lambda root: root / "bzImage"),
    ("initrd", "dir/initrd", lambda root: root / "dir/initrd"),
    ("modules", "modules", lambda root: root / "modules"),
    ("machine", "pc", lambda _: "pc"),
    ("accel", "tcg", lambda _: "tcg"),
    ("timeout", "7.5", lambda _: 7.5),
    ("missing", "skip", lambda _: "skip"),
    ("artifacts", "dir/kept", lambda root: root / "dir/kept"),
    ("artifacts_keep", "all", lambda _: "all"),
    ("baseline", "update", lambda _: "update"),
    ("matrix", "event-idx=on", lambda _: {"event_idx": (Point("event_idx", "on", "event_idx-on", authors=False),)}),
]
SWITCHES = {"lint", "monitor"}
FOR_ONE_RUN = {"compare"}
"""What an ini file, which is for all of them, can't say."""


@pytest.mark.parametrize(("name", "value", "expected"), VALUES, ids=[name for name, *_ in VALUES])
def test_each_option_has_an_ini_twin(pytester: pytest.Pytester, name: str, value: str, expected: object) -> None:
    assert callable(expected)
    wanted = expected(pytester.path)
    given = getattr(settings(pytester, f"--virtio-{name.replace('_', '-')}={value}"), name)
    assert given == ((GivenQemu(value),) if name == "qemu" else wanted)
    pytester.makeini(f"[pytest]\nvirtio_{name} = {value}\n")
    assert getattr(settings(pytester), name) == wanted


def test_there_are_no_others(pytester: pytest.Pytester) -> None:
    assert {name for name, *_ in VALUES} | SWITCHES | FOR_ONE_RUN == set(Settings._fields)


def test_a_switch_has_an_ini_twin(pytester: pytest.Pytester) -> None:
    assert not settings(pytester).lint
    assert settings(pytester, "--virtio-lint").lint
    pytester.makeini("[pytest]\nvirtio_lint = true\n")
    assert settings(pytester).lint


@pytest.mark.parametrize("option", ["--virtio-monitor", "--pdb", "--trace"])
def test_a_debugger_opens_a_second_monitor(pytester: pytest.Pytester, option: str) -> None:
    assert not settings(pytester).monitor
    assert settings(pytester, option).monitor


def test_the_option_wins(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nvirtio_timeout = 5\n")
    assert settings(pytester, "--virtio-timeout=6").timeout == 6


def test_a_home_is_found(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nvirtio_kernel = ~/bzImage\n")
    assert settings(pytester).kernel == Path("~/bzImage").expanduser()


@pytest.mark.parametrize(
    ("ini", "words"),
    [
        ("virtio_guest = linus", "virtio_guest = linus: one of scripted, firmware, linux is expected"),
        ("virtio_timeout = soon", "virtio-timeout 'soon': a number of seconds above 0 is expected"),
        ("virtio_timeout = -1", "virtio-timeout '-1': a number of seconds above 0 is expected"),
        ("virtio_timeout = nan", "virtio-timeout 'nan': a number of seconds above 0 is expected"),
    ],
)
def test_a_wrong_value_is_refused_before_collection(
    run_dry: Run, pytester: pytest.Pytester, ini: str, words: str
) -> None:
    pytester.makeini(f"[pytest]\n{ini}\n")
    result = run_dry("def test_green(): pass")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {words}"])


def test_marks_merge(run_dry: Run) -> None:
    run_dry("""
        pytestmark = pytest.mark.virtio(Net(), Blk(), machine="pc", timeout=11, boot=False)

        @pytest.mark.virtio(memory="64M", machine="q35")
        class TestClass:
            def test_inherits(self, virtio):
                assert [d.name for d in virtio.devices] == ["net0", "blk0"]
                assert (virtio.machine, virtio.timeout, virtio.memory) == ("q35", 11, 64 << 20)

            @pytest.mark.virtio(Rng(), timeout=12)
            def test_replaces(self, virtio):
                assert [d.name for d in virtio.devices] == ["rng0"]
                assert (virtio.machine, virtio.timeout, virtio.memory) == ("q35", 12, 64 << 20)

        @pytest.mark.parametrize("virtio_machine", ["pc", "microvm"])
        def test_parameter(virtio, virtio_machine):
            assert virtio.machine == virtio_machine
    """, conftest=DECLARED).assert_outcomes(passed=4)  # fmt: skip


def test_fixtures_to_override_win_over_marks(run_dry: Run) -> None:
    run_dry("""
        @pytest.mark.virtio(Blk(), guest="firmware", machine="q35")
        def test_overridden(virtio, virtio_qemu):
            assert [d.name for d in virtio.devices] == ["rng0"]
            assert isinstance(virtio.guest, Linux)
            assert virtio.machine == "pc"
            assert virtio_qemu == "my-qemu"
    """, conftest=DECLARED + """
    @pytest.fixture
    def virtio_devices(): return [Rng()]

    @pytest.fixture
    def virtio_guest(): return Linux()

    @pytest.fixture
    def virtio_machine(): return "pc"

    @pytest.fixture(scope="session")
    def virtio_qemu(): return "my-qemu"
    """).assert_outcomes(passed=1)  # fmt: skip


def test_the_run_fills_in_what_is_left_open(run_dry: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nvirtio_guest = linux\nvirtio_kernel = bzImage\nvirtio_modules = modules\n")
    run_dry("""
        from pathlib import Path

        @pytest.mark.virtio(Rng())
        def test_open(virtio):
            assert (virtio.guest.kernel, virtio.machine, virtio.timeout) == (Path("bzImage").absolute(), "pc", 9)
            assert virtio.guest.modules == (Path("modules").absolute(),)

        @pytest.mark.virtio(Rng(), guest=Linux(kernel="mine", modules=["my.ko"]), machine="q35", timeout=10)
        def test_closed(virtio):
            assert (virtio.guest.kernel, virtio.machine, virtio.timeout) == ("mine", "q35", 10)
            assert list(virtio.guest.modules) == ["my.ko"]
    """, "--virtio-machine=pc", "--virtio-timeout=9", conftest=DECLARED).assert_outcomes(passed=2)  # fmt: skip


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ("guest='firmware'", "UsageError: no virtio device is declared: put @pytest.mark.virtio(Net(), …) on the test"),
        ("Net, guest='firmware'", "UsageError: *Net*is not a device declaration; write Net()"),
        ("Net(), guest='linus'", "UnknownNameError: unknown guest: 'linus'. Did you mean 'linux'?"),
        ("Net(), transport='usb', guest='linux'", "UnknownNameError: unknown transport: 'usb'.*"),
        ("Net(id='a'), Blk(id='a'), guest='linux'", "UsageError: *'a'*"),
    ],
)
def test_a_wrong_mark_is_told_of_at_the_test(run_dry: Run, mark: str, words: str) -> None:
    result = run_dry(f"""
        @pytest.mark.virtio({mark})
        def test_red(virtio): pass
    """, conftest=DECLARED)  # fmt: skip
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"ERROR *::test_red - {words}"])
