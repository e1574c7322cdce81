"""How our own errors look in a red test: the verdict in the summary, the user's frames, and no others."""

from __future__ import annotations

import pytest

from .conftest import Run


@pytest.mark.parametrize(
    ("assertion", "verdict"),
    [
        ('f >= {"VIRTIO_BLK_F_MQ"}', "VIRTIO_BLK_F_MQ missing: not offered by the block device"),
        ('f >= {"FLUSH"}', "VIRTIO_BLK_F_FLUSH missing: offered, not acknowledged by the driver"),
        ('{"MQ", "FLUSH"} <= f', "VIRTIO_BLK_F_FLUSH missing: offered, not acknowledged by the driver (and 1 more)"),
        ('"MQ" in f', "VIRTIO_BLK_F_MQ missing: not offered by the block device"),
        ('"SEG_MAX" not in f', "VIRTIO_BLK_F_SEG_MAX is there, but unwanted"),
        ('f <= {"SEG_MAX", "VERSION_1"}', "VIRTIO_BLK_F_BLK_SIZE is there, but unexpected"),
        ('f == {"SEG_MAX", "BLK_SIZE"}', "VIRTIO_F_VERSION_1 is there, but unexpected"),
        ("f == f - {'SEG_MAX'}", "VIRTIO_BLK_F_SEG_MAX missing: offered, not acknowledged by the driver"),
        ("f > f", "features: >"),
        ("f != f", "features: !="),
    ],
)  # fmt: skip
def test_a_plain_assert_begins_with_the_verdict(assertion: str, verdict: str) -> None:
    from pytest_virtio import Features
    from pytest_virtio.plugin import pytest_assertrepr_compare
    from pytest_virtio.spec.devices import device_type

    blk = device_type(2)
    offered = Features.of(["SEG_MAX", "BLK_SIZE", "FLUSH", "VERSION_1"], blk)
    f = Features.of(["SEG_MAX", "BLK_SIZE", "VERSION_1"], blk, offered=offered)
    left, op, right = _operands(assertion, f)
    lines = pytest_assertrepr_compare(None, op, left, right)  # type: ignore[arg-type]  # it looks at no option
    assert lines is not None
    assert lines[0] == verdict
    assert len(lines) > 1


def _operands(assertion: str, f: object) -> tuple[object, str, object]:
    op = next(f" {op} " for op in (">=", "<=", "==", "!=", "not in", "in", ">") if f" {op} " in assertion)
    left, _, right = assertion.partition(op)
    return eval(left, {"f": f}), op.strip(), eval(right, {"f": f})


def test_other_comparisons_are_left_to_pytest() -> None:
    from pytest_virtio.plugin import pytest_assertrepr_compare

    assert pytest_assertrepr_compare(None, "==", {1}, {2}) is None  # type: ignore[arg-type]


def test_summaries_say_the_verdict(run: Run) -> None:
    result = run("""
        @firmware_blk
        def test_plain(virtio):
            assert virtio["blk0"].status().guest_features >= {"VIRTIO_BLK_F_MQ", "VIRTIO_BLK_F_FLUSH"}

        @firmware_blk
        def test_helper(virtio):
            virtio["blk0"].assert_negotiated("VIRTIO_BLK_F_MQ")
    """, "-vv")  # fmt: skip
    result.stdout.fnmatch_lines([
        "E       assert VIRTIO_BLK_F_FLUSH missing: offered, not acknowledged by the driver (and 1 more)",
        "E         the left side lacks 2:",
        "E           VIRTIO_BLK_F_FLUSH: offered, not acknowledged by the driver",
        "E           VIRTIO_BLK_F_MQ: not offered by the block device",
        "FAILED *::test_plain - assert VIRTIO_BLK_F_FLUSH missing: offered, not acknowledged by *",
        "FAILED *::test_helper - blk0: VIRTIO_BLK_F_MQ not negotiated: not offered by the device*",
    ])  # fmt: skip


def test_a_traceback_ends_at_the_users_line(run: Run) -> None:
    result = run("""
        def helper(virtio):
            virtio["nope"]

        @firmware_blk
        def test_red(virtio):
            helper(virtio)
    """)  # fmt: skip
    result.stdout.fnmatch_lines([
        ">       helper(virtio)",
        '>       virtio["nope"]',
        "E       pytest_virtio.errors.UnknownNameError: unknown virtio device: 'nope'. There are: blk0.",
        "FAILED *::test_red - UnknownNameError: unknown virtio device: 'nope'*",
    ])  # fmt: skip
    result.stdout.no_re_match_line(r".*pytest_virtio/.*\.py:\d+")


def test_a_fixtures_traceback_ends_at_the_users_line(run: Run) -> None:
    result = run("def test_red(server): pass", conftest="""
        @pytest.fixture(scope="session")
        def server(virtio_factory):
            with virtio_factory(Blk(path="/nonexistent"), guest="firmware") as virtio:
                yield virtio
    """)  # fmt: skip
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([">       with virtio_factory(*", "E  *UsageError: '/nonexistent': no such file*"])
    result.stdout.no_re_match_line(r".*pytest_virtio/.*\.py:\d+")


def test_the_whole_traceback_is_there_when_asked_for(run: Run) -> None:
    result = run("""
        @firmware_blk
        def test_red(virtio):
            virtio["nope"]
    """, "--full-trace")  # fmt: skip
    result.stdout.re_match_lines([r".*pytest_virtio/handle/virtio.py:\d+"])


@pytest.mark.parametrize("style", ["auto", "short", "native", "line"])
def test_what_is_wrong_with_a_mark_shows_at_the_test(run: Run, style: str) -> None:
    result = run("""
        @pytest.mark.virtio(Blk(), gest="firmware")
        def test_red(virtio):
            pass
    """, f"--tb={style}")  # fmt: skip
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*unknown keyword of virtio: 'gest'. Did you mean 'guest'?*"])
    result.stdout.no_re_match_line(r".*pytest_virtio/.*\.py:\d+")
    if style == "auto":
        result.stdout.fnmatch_lines([
            '>   @pytest.mark.virtio(Blk(), gest="firmware")',
            "E   pytest_virtio.errors.UnknownNameError: unknown keyword of virtio: 'gest'. *",
            "*.py:*: UnknownNameError",
            "ERROR *::test_red - UnknownNameError: unknown keyword of *",
        ])  # fmt: skip


def test_a_bug_of_ours_shows_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr("pytest_virtio.handle.device.missing_features", broken)
    result = run("""
        @firmware_blk
        def test_red(virtio):
            virtio["blk0"].assert_negotiated("MQ")
    """)  # fmt: skip
    result.stdout.re_match_lines([r".*pytest_virtio/handle/device.py:\d+: ", "E  .*TypeError: a bug"])


def test_the_users_own_cause_is_kept(run: Run) -> None:
    result = run("""
        @firmware_blk
        def test_red(virtio):
            try:
                raise OSError("his own trouble")
            except OSError:
                virtio["nope"]
    """)  # fmt: skip
    result.stdout.fnmatch_lines(["E  *OSError: his own trouble", "During handling of the above *", "E  *'nope'*"])


def test_the_place_is_shown_from_where_pytest_was_called(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Editors and CI follow the place; the root of the run may be elsewhere."""
    pytester.makeini("[pytest]\n")
    below = pytester.mkdir("below")
    (below / "test_here.py").write_text(
        "import pytest\nfrom pytest_virtio import Blk\n\n@pytest.mark.virtio(Blk(sise=1), guest='firmware')\n"
        "def test_x(virtio):\n    pass\n"
    )
    monkeypatch.chdir(below)
    result = pytester.runpytest_inprocess("-p", "no:hypothesispytest")
    result.stdout.fnmatch_lines(["test_here.py:4: UnknownNameError"])


def test_a_mark_without_the_fixture_is_refused(run: Run) -> None:
    result = run("""
        @firmware_blk
        def test_forgot():
            pass

        @firmware_blk
        class TestThings:
            def test_needs_no_vm(self):
                pass

        @firmware_blk
        @pytest.mark.usefixtures("virtio_factory")
        def test_boots_its_own():
            pass
    """)
    result.assert_outcomes(errors=1, passed=2)
    result.stdout.fnmatch_lines(["E *UsageError: the virtio mark boots nothing by itself: take the `virtio` fixture*"])


def test_a_block_that_was_not_entered_says_so(run: Run) -> None:
    result = run("""
        def test_item(virtio_factory):
            virtio_factory(Blk(), guest="firmware")["blk0"]

        def test_attribute(virtio_factory):
            virtio_factory(Blk(), guest="firmware").vm
    """)
    result.assert_outcomes(failed=2)
    said = "this VM does not run yet: write `with virtio_factory(...) as virtio:`"
    result.stdout.fnmatch_lines([f"E *UsageError: [[]'blk0'[]]: {said}", f"E *AttributeError: vm: {said}"])
