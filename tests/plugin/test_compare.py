"""``--virtio-compare``: two real QEMUs, and only what differs."""

from __future__ import annotations

import pytest

from .conftest import Run

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("releases")]

COMPARE = ("--virtio-compare", "qemu-7.2", "qemu-10.0")
BY_QEMU = """
    @pytest.fixture
    def newer(virtio_qemu): return virtio_qemu == "qemu-10.0"
"""


def shown(result: pytest.RunResult) -> list[str]:
    """The lines of our section."""
    lines = result.stdout.lines
    start = next(number for number, line in enumerate(lines) if "virtio: qemu-7.2 -> qemu-10.0" in line)
    end = next(number for number, line in enumerate(lines) if number > start and "alike on" in line)
    return lines[start + 1 : end + 1]


def test_only_what_differs_is_printed(run_dry: Run) -> None:
    result = run_dry(BY_QEMU + """
    @pytest.fixture
    def virtio_devices(newer): return [Net(mrg_rxbuf="off" if newer else "on"), Rng()]

    def test_first(virtio): pass

    @pytest.mark.virtio(matrix={"transport": ["mmio"]})
    def test_second(virtio): pass

    @pytest.mark.parametrize("number", [1])
    def test_alike(virtio_factory, number):
        with virtio_factory(Rng()): pass

    def test_not_ours(): pass
    """, *COMPARE)  # fmt: skip
    result.assert_outcomes(passed=7)
    assert result.ret == pytest.ExitCode.OK
    name = "test_only_what_differs_is_printed.py::test"
    assert shown(result) == [
        f"{name}_first",
        f"{name}_second[mmio]",
        "  net0",
        "    - VIRTIO_NET_F_MRG_RXBUF: negotiated -> not offered: QEMU offers it no more",
        "1 test is alike on qemu-7.2 and qemu-10.0",
    ]


OUTCOMES = (
    BY_QEMU
    + """
    @pytest.mark.virtio(Rng())
    def test_fails(virtio, newer):
        if newer: virtio["rng0"].assert_offered("VIRTIO_F_SR_IOV")

    @pytest.mark.virtio(Sound())
    def test_errs(virtio): pass

    def test_skips(virtio_qemu, newer):
        if newer: pytest.skip("too new\\x1b[31m")

    @pytest.mark.virtio(Rng())
    def test_fails_on_both(virtio): raise ValueError

    @pytest.mark.virtio(Rng(), matrix={"qemu": ["qemu-11.1"]})
    def test_of_another(virtio): pass
"""
)


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_outcomes(run_dry: Run, arguments: tuple[str, ...]) -> None:
    result = run_dry(OUTCOMES, *COMPARE, *arguments)
    result.assert_outcomes(passed=4, failed=3, errors=1, skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = shown(result)
    wanted = {
        "fails": ("passed", "failed: rng0: VIRTIO_F_SR_IOV missing"),
        "errs": ("error: MissingError: QEMU 7.2.", "passed"),
        "skips": ("passed", "skipped: too new\\x1b[31m"),
    }
    for test, (before, now) in wanted.items():
        at = lines.index(f"test_outcomes.py::test_{test}")
        assert lines[at + 1].startswith(f"  qemu-7.2: {before}")
        assert lines[at + 2].startswith(f"  qemu-10.0: {now}")
    assert lines[-1] == "1 test is alike on qemu-7.2 and qemu-10.0"
    assert len(lines) == 10


def test_several_vms_of_a_body_are_paired_in_order(run_dry: Run) -> None:
    result = run_dry(BY_QEMU + """
    def test_two(virtio_factory, newer):
        with virtio_factory(Rng()): pass
        with virtio_factory(Blk(num_queues=2 if newer else 1)): pass

    def test_one_or_two(virtio_factory, newer):
        with virtio_factory(Rng()): pass
        if newer:
            with virtio_factory(Rng()): pass
    """, *COMPARE)  # fmt: skip
    assert shown(result)[:4] == [
        "test_several_vms_of_a_body_are_paired_in_order.py::test_two",
        "  VM 2 of 2",
        "  blk0",
        "    + VIRTIO_BLK_F_MQ: not offered -> negotiated: QEMU offers it now",
    ]
    assert "  VMs: 1 on qemu-7.2, 2 on qemu-10.0" in shown(result)


def test_alike_are_those_that_were_compared(run_dry: Run) -> None:
    result = run_dry(BY_QEMU + """
    import signal

    @pytest.mark.virtio(Rng())
    def test_fails_otherwise(virtio, newer):
        raise ValueError(f"0x{id(virtio):x} " + ("eleven" if newer else "seven"))

    @pytest.mark.virtio(Rng())
    def test_fails_alike(virtio): raise ValueError(f"{virtio!r} at 0x{id(virtio):x}")

    @pytest.mark.virtio(Rng())
    def test_gone(virtio): virtio.vm.qmp("quit")

    @pytest.mark.skip
    @pytest.mark.virtio(Rng())
    def test_skipped(virtio): pass
    """, *COMPARE)  # fmt: skip
    *lines, last = shown(result)
    assert last == (
        "1 test is alike on qemu-7.2 and qemu-10.0, 1 skipped on both, 1 whose VMs could not be asked on either"
    )
    assert lines[0].endswith("::test_fails_otherwise")
    assert [line[-5:] for line in lines[1:]] == ["seven", "leven"]


def test_one_that_ran_on_one_only_is_told(run_dry: Run) -> None:
    result = run_dry("""
    @pytest.mark.virtio(Rng())
    def test_it(virtio): pass
    """, *COMPARE, "-k", "qemu-7.2")  # fmt: skip
    result.stdout.fnmatch_lines(["*::test_it", "  qemu-7.2: passed", "  qemu-10.0: did not run", "0 tests are alike *"])


def test_a_vm_that_has_died_is_told(run_dry: Run) -> None:
    result = run_dry(BY_QEMU + """
    @pytest.mark.virtio(Rng())
    def test_it(virtio, newer):
        if newer: os.kill(virtio.vm.pid, signal.SIGKILL)
    """, *COMPARE)  # fmt: skip
    assert "  qemu-10.0: its VM could not be asked for what was negotiated" in shown(result)


def test_labels(run_dry: Run) -> None:
    result = run_dry("""
    @pytest.mark.virtio(Rng())
    def test_it(virtio): pass
    """, "--virtio-compare", "old=qemu-7.2", "new=qemu-7.2")  # fmt: skip
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*virtio: old -> new*", "1 test is alike on old and new"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--virtio-qemu=a", "--virtio-compare", "a", "b"), "--virtio-compare names the two QEMUs of the run: leave *"),
        (("--virtio-compare", "a", "a"), "virtio-qemu 'a' is given twice: *"),
        (("--virtio-compare", "a"), "*--virtio-compare: expected 2 arguments*"),
    ],
)
def test_what_can_not_be_is_refused(run_dry: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run_dry("def test_it(): pass", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}"])


def test_a_run_without_virtio_tests_asks_no_qemu(run_dry: Run) -> None:
    result = run_dry("def test_it(): pass", "--virtio-compare", "/no/such", "/nor/this")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*virtio: /no/such -> /nor/this*", "no test ran on either"])
