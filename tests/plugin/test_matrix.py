"""The matrix: which runs of a test there are, what their ids are, and what each boots."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pytest_virtio.errors import UsageError
from pytest_virtio.plugin.axes import authors_axes, given_axis, id_of, variants

from .conftest import Run
from .test_options import DECLARED

PASSED = " PASSED"
SEVERAL = ("--virtio-qemu=qemu-7.2", "--virtio-qemu=qemu-10.0")


@pytest.fixture
def names(run: Run) -> Callable[..., list[str]]:
    """Runs tests of which none may fail, and gives the names of those that passed, in order."""

    def names(tests: str, *arguments: str, conftest: str = "") -> list[str]:
        result = run(tests, "-v", *arguments, conftest=conftest)
        assert result.ret == 0, result.stdout.str()
        lines = [line for line in result.stdout.lines if PASSED in line]
        return [line.split()[0].partition("::")[2] for line in lines]

    return names


def ids(matrix: Mapping[str, object]) -> list[str]:
    return [id_of(variant) for variant in variants(authors_axes(matrix))]


def test_ids_name_the_axes_in_one_order_and_properties_as_written() -> None:
    matrix = {
        "packed": [True, False],
        "event-idx": ["on"],
        "kernel": ["/a/bzImage", "old=b"],
        "machine": ["pc-q35-7.2"],
    }
    assert ids(matrix) == [
        f"pc-q35-7.2-{kernel}-packed-{packed}-event_idx-on" for kernel in ("bzImage", "old") for packed in ("on", "off")
    ]


def test_ids_can_be_selected_and_name_files() -> None:
    matrix = {"machine": {"q35,smm=off": "q35,smm=off", "a/b:c": "pc"}, "memory": ["64M"], "net0.host-mtu": [1500]}
    assert ids(matrix) == [f"{machine}-memory-64M-net0.host_mtu-1500" for machine in ("q35_smm_off", "a_b_c")]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ({"packed": "on"}, "matrix: packed: a list, or a mapping of labels to values, is expected: ['on']"),
        ({"packed": []}, "matrix: packed has no values: a list, or a mapping of labels to values, is expected"),
        (
            {"kernel": ["a/bzImage", "b/bzImage"]},
            "matrix: kernel has two values that test ids call 'bzImage': write {l",
        ),
        ({"packed": [None]}, "matrix: packed: None: a device property is a string, a number, a truth value or a path"),
        ({"machine": ["::"]}, "matrix: machine: '::' has nothing that a test id can be made of: write {label: value}"),
        ({"timeout": [1]}, "unknown axis of the matrix: 'timeout'. There are: cpus, "),
        ({7: ["on"]}, "unknown axis of the matrix: '7'. "),
        ({"a b": ["on"]}, "unknown axis of the matrix: 'a b'. "),
    ],
)
def test_axes_that_can_not_be(matrix: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        authors_axes(matrix)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["transport"], "virtio-matrix 'transport': AXIS=VALUE,VALUE is expected: transport=pci,mmio"),
        (["transport=pci,"], "virtio-matrix 'transport=pci,': AXIS=VALUE,VALUE is expected: transport=pci,mmio"),
        (["qemu=a,b"], "virtio-matrix 'qemu=a,b': the QEMUs of a run are given by --virtio-qemu=a --virtio-qemu=b"),
        (["packed=on,on"], "virtio-matrix matrix: packed has two values that test ids call 'packed-on': write *"),
        (["event_idx=on", "event-idx=off"], "virtio-matrix 'event-idx=off': event_idx is given twice"),
        (["boot=on"], "virtio-matrix unknown axis of the matrix: 'boot'. *"),
    ],
)
def test_what_can_not_be_is_refused_before_collection(run_dry: Run, given: list[str], message: str) -> None:
    result = run_dry("def test_it(virtio): pass", *(f"--virtio-matrix={axis}" for axis in given))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


def test_values_of_the_option() -> None:
    assert [point.value for point in given_axis("cpus=1,2")] == [1, 2]
    assert given_axis("kernel=old=~/k", Path("/ini"))[0].value == Path("~/k").expanduser()
    assert given_axis("kernel=k", Path("/ini"))[0].value == Path("/ini/k")


def test_each_combination_is_booted(names: Callable[..., list[str]]) -> None:
    tests = """
    BY = {"pci": "PCI", "pci-legacy": "PCI", "mmio": "MMIO"}

    @pytest.mark.virtio(Net(), Rng(), matrix={"transport": list(BY), "packed": ["on", "off"]})
    def test_it(virtio, request):
        transport, _, packed = request.node.callspec.id.rpartition("-packed-")
        offered = virtio["net0"].status().host_features
        assert ("VERSION_1" in offered) is (transport != "pci-legacy")
        assert ("RING_PACKED" in offered) is ("RING_PACKED" in virtio["rng0"].status().host_features)
        if transport != "pci-legacy":
            assert ("RING_PACKED" in offered) is (packed == "on")
    """
    by = ("pci", "pci-legacy", "mmio")
    assert names(tests) == [f"test_it[{transport}-packed-{value}]" for transport in by for value in ("on", "off")]
    assert names(tests, "-k", "pci-legacy and packed-off") == ["test_it[pci-legacy-packed-off]"]


def test_a_variant_is_selected_by_its_node_id(run: Run, pytester: pytest.Pytester) -> None:
    name = "test_a_variant_is_selected_by_its_node_id.py::test_it[pci-legacy-event_idx-off]"
    result = run("""
        @pytest.mark.virtio(Rng(), matrix={"transport": ["pci", "pci-legacy"], "event_idx": ["on", "off"]})
        def test_it(virtio): virtio["rng0"].assert_not_offered("EVENT_IDX")
    """, "-v", name)  # fmt: skip
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([f"{re.escape(name)} PASSED"])


def test_marks_merge_by_axis_and_the_closest_wins(names: Callable[..., list[str]]) -> None:
    assert names("""
    @pytest.mark.virtio(Rng(), matrix={"transport": ["pci", "mmio"], "event-idx": ["on"]})
    class TestClass:
        def test_inherits(self, virtio): pass

        @pytest.mark.virtio(matrix={"transport": ["pci-legacy"], "event_idx": ["off"], "cpus": [2]})
        def test_replaces(self, virtio): assert "2" in virtio.vm.command_line.split("-smp ")[1][:2]

        @pytest.mark.virtio(transport="pci")
        def test_settles(self, virtio): pass

    @pytest.mark.virtio(Rng(), transport="mmio")
    class TestOther:
        @pytest.mark.virtio(matrix={"transport": ["pci"]})
        def test_varies(self, virtio): assert "rng-pci" in virtio.vm.command_line
    """) == [
        "TestClass::test_inherits[pci-event_idx-on]",
        "TestClass::test_inherits[mmio-event_idx-on]",
        "TestClass::test_replaces[pci-legacy-cpus-2-event_idx-off]",
        "TestClass::test_settles[event_idx-on]",
        "TestOther::test_varies[pci]",
    ]


def test_the_option_varies_what_the_author_left_open(names: Callable[..., list[str]]) -> None:
    tests = """
    @pytest.mark.virtio(Net())
    def test_open(virtio): pass

    @pytest.mark.virtio(Net(mrg_rxbuf="on"), transport="pci")
    def test_settled(virtio): virtio["net0"].assert_offered("MRG_RXBUF")

    @pytest.mark.virtio(Rng(), matrix={"transport": ["pci-legacy"]})
    def test_without_that_property(virtio): pass

    def test_of_the_factory(virtio_factory): pass
    def test_plain(): pass
    """
    assert names(tests, "--virtio-matrix=transport=pci,mmio", "--virtio-matrix=mrg-rxbuf=off") == [
        "test_open[pci-mrg_rxbuf-off]",
        "test_open[mmio-mrg_rxbuf-off]",
        "test_settled",
        "test_without_that_property[pci-legacy]",
        "test_of_the_factory",
        "test_plain",
    ]


def test_a_property_of_one_device(names: Callable[..., list[str]]) -> None:
    assert names("""
    @pytest.mark.virtio(Net(), Net(), Net(mrg_rxbuf="on"), matrix={"net0.mrg_rxbuf": ["off"], "ctrl_vq": ["off"]})
    def test_one(virtio):
        assert [("MRG_RXBUF" in d.status().host_features) for d in virtio] == [False, True, True]

    @pytest.mark.virtio(Net(), Net(mrg_rxbuf="on"), matrix={"mrg_rxbuf": ["off"]})
    def test_all_that_leave_it_open(virtio):
        assert [("MRG_RXBUF" in d.status().host_features) for d in virtio] == [False, True]
    """) == ["test_one[net0.mrg_rxbuf-off-ctrl_vq-off]", "test_all_that_leave_it_open[mrg_rxbuf-off]"]  # fmt: skip


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ('Blk(), matrix={"transprot": ["pci"]}', "unknown axis *: 'transprot'. Did you mean 'transport'*"),
        ('Blk(), matrix={"blk0.packd": ["on"]}', "unknown *: 'blk0.packd'. Did you mean 'blk0.packed'*"),
        ('Blk(), matrix={"blk1.packed": ["on"]}', "unknown device of the matrix: 'blk1'. Did you mean 'blk0'[?]"),
        ('Blk(), matrix={"mrg_rxbuf": ["on"]}', "unknown axis of the matrix, or property of blk0 *: 'mrg_rxbuf'*"),
        ('Blk(packed="on"), matrix={"packed": ["on"]}', "matrix: blk0 declares packed itself: leave it to one of them"),
        ('Blk(), cpus=2, matrix={"cpus": [1]}', "matrix: cpus= is set by the same mark: leave it to one of them"),
        ('Blk(), matrix=["pci"]', 'matrix=[[]\'pci\'[]]: axes and their values are expected: *'),
        ('Blk(), matrix={"kernel": ["k"]}', "matrix: kernel: guest='scripted' boots no kernel: add guest=\"linux\""),
        ('Blk(), matrix={"qemu": "a"}', "matrix: qemu: a list of QEMUs is expected: [[]'a'[]]"),
    ],
)  # fmt: skip
def test_a_wrong_axis_is_told_at_collection_with_the_test(run: Run, mark: str, message: str) -> None:
    result = run(f"""
    @pytest.mark.virtio({mark})
    def test_it(virtio): pass
    """)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"test_a_wrong_axis_*.py:8: test_it: {message}"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_property_that_no_device_type_has_is_an_error_of_the_option_too(run: Run) -> None:
    tests = "@pytest.mark.virtio(Blk())\ndef test_it(virtio): pass"
    result = run(tests, "--virtio-matrix=packd=on,off")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*test_it: unknown axis of the matrix*'packd'. Did you mean 'packed'*"])


def test_combinations_that_can_not_be_are_skipped(run: Run) -> None:
    result = run("""
        @pytest.mark.virtio(Rng(), matrix={"machine": ["q35", "microvm"], "transport": ["pci", "mmio"]})
        def test_machines(virtio): pass

        @pytest.mark.virtio(Rng(), matrix={"transport": ["pci", "mmio"], "vectors": [2]})
        def test_properties(virtio): pass

        @pytest.mark.virtio(Gpu(), matrix={"transport": ["pci-legacy"]})
        def test_types(virtio): pass

        @pytest.mark.virtio(Rng(), matrix={"transport": ["pci", "pci-transitional"],
                                           "guest": {"old": Scripted(legacy=True), "new": "scripted"}})
        def test_guests(virtio): pass
    """, "-rs")  # fmt: skip
    result.assert_outcomes(passed=6, skipped=5)
    result.stdout.fnmatch_lines_random([
        "SKIPPED * machine 'microvm' has no PCI, as transport='pci' needs: 'microvm,pcie=on'",
        "SKIPPED * machine 'q35' has no virtio-mmio, as transport='mmio' needs: 'microvm'",
        "SKIPPED * matrix: vectors: no device has it with transport='mmio'",
        "SKIPPED * transport='pci-legacy': 'gpu0' can't have it*",
        "SKIPPED * Scripted(legacy=True): devices have no legacy interface with transport='pci'*",
    ])  # fmt: skip


def test_the_same_outside_of_a_matrix_is_an_error(run: Run) -> None:
    result = run("""
        @pytest.mark.virtio(Rng(), machine="q35", transport="mmio")
        def test_it(virtio): pass
    """)  # fmt: skip
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E  *NotSupportedError: machine 'q35' has no virtio-mmio*"])


@pytest.mark.qemu
@pytest.mark.usefixtures("releases")
@pytest.mark.parametrize(("arguments", "outcome"), [((), "errors"), (("--virtio-missing=skip",), "skipped")])
def test_versioned_machines_and_qemus(run_dry: Run, arguments: tuple[str, ...], outcome: str) -> None:
    result = run_dry("""
        MATRIX = {"machine": ["pc-q35-7.2", "pc-q35-10.0"], "qemu": ["qemu-7.2", "qemu-10.0"]}

        @pytest.mark.virtio(Net(), matrix=MATRIX)
        def test_it(virtio, request):
            machine = virtio.vm.qmp("qom-get", {"path": "/machine", "property": "type"})
            assert request.node.name.startswith(f"test_it[{machine.removesuffix('-machine')}-qemu-")
            major = virtio.vm.qmp("query-version")["qemu"]["major"]
            assert f"-qemu-{major}." in request.node.name
    """, "-v", *arguments)  # fmt: skip
    result.assert_outcomes(passed=3, **{outcome: 1})
    word = {"errors": "ERROR", "skipped": "SKIPPED"}[outcome]
    result.stdout.fnmatch_lines([
        "*::test_it[[]pc-q35-7.2-qemu-7.2] PASSED*",
        f"*::test_it[[]pc-q35-10.0-qemu-7.2] {word}*",
        "*::test_it[[]pc-q35-7.2-qemu-10.0] PASSED*",
        "*::test_it[[]pc-q35-10.0-qemu-10.0] PASSED*",
    ])  # fmt: skip


def test_the_authors_qemus_win_and_have_labels(names: Callable[..., list[str]], program: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(program)
    tests = f"""
    @pytest.mark.virtio(Rng(), matrix={{"qemu": {{"a": "{program}", "b": "{tmp_path}/link"}}}})
    def test_it(virtio): pass
    """
    assert names(tests, "--virtio-qemu=/no/such", "--virtio-qemu=/nor/this") == ["test_it[a]", "test_it[b]"]


def test_pytests_own_parameters_and_several_qemus_compose(run_dry: Run) -> None:
    result = run_dry("""
        @pytest.fixture(params=["x", "y"])
        def letter(request): return request.param

        @pytest.mark.parametrize("number", [1])
        @pytest.mark.virtio(Rng(), matrix={"transport": ["pci", "mmio"]})
        def test_it(virtio, number, letter): pass
    """, "--collect-only", "-q", *SEVERAL, "--virtio-matrix=packed=on")  # fmt: skip
    for letter in "xy":
        for transport in ("pci", "mmio"):
            for qemu in ("7.2", "10.0"):
                result.stdout.fnmatch_lines([f"*::test_it[[]{letter}-1-{transport}-packed-on-qemu-{qemu}]"])


def test_the_authors_part_of_an_id(run_dry: Run) -> None:
    conftest = """
    def pytest_collection_modifyitems(items):
        from pytest_virtio.plugin.parameters import variant
        for item in items:
            print("VARIANT", item.name, "->", variant(item))
    """
    tests = """
        MATRIX = {"transport": ["pci"], "kernel": ["mine"], "qemu": ["qemu-7.2"]}

        @pytest.mark.parametrize("number", [1])
        @pytest.mark.virtio(Rng(), guest="linux", matrix=MATRIX)
        def test_all(virtio, number): pass

        @pytest.mark.virtio(Rng())
        def test_none(virtio): pass

        def test_plain(): pass
    """
    arguments = (
        "-s",
        "--collect-only",
        "--virtio-qemu=qemu-7.2",
        "--virtio-qemu=qemu-10.0",
        "--virtio-matrix=packed=on",
    )
    run_dry(tests, *arguments, conftest=conftest).stdout.fnmatch_lines([
        "VARIANT test_all[[]1-pci-mine-packed-on-qemu-7.2] -> 1-pci",
        "VARIANT test_none[[]packed-on-qemu-7.2] -> ",
        "VARIANT test_none[[]packed-on-qemu-10.0] -> ",
        "VARIANT test_plain -> ",
    ])  # fmt: skip


def test_what_a_conftest_overrides_has_the_last_word(names: Callable[..., list[str]]) -> None:
    tests = """
    @pytest.mark.virtio(Blk(), matrix={"machine": ["q35", "pc"], "packed": ["off"]})
    def test_it(virtio):
        assert "-machine pc" in virtio.vm.command_line
        virtio["rng0"].assert_not_offered("RING_PACKED")
    """
    conftest = """
    @pytest.fixture
    def virtio_machine(): return "pc"

    @pytest.fixture
    def virtio_devices(): return [Rng()]
    """
    assert names(tests, conftest=conftest) == ["test_it[packed-off]"]


def test_a_property_that_overriding_devices_lack(run: Run) -> None:
    conftest = """
    @pytest.fixture
    def virtio_devices(): return [Rng()]
    """
    tests = '@pytest.mark.virtio(matrix={"mrg_rxbuf": ["on"]})\ndef test_it(virtio): pass'
    result = run(tests, conftest=conftest)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["E  *MissingError: matrix: unknown axis of the matrix, or property of rng0*'mrg_rxbuf'*"]
    )
    run("def test_it(virtio): pass", "--virtio-matrix=mrg_rxbuf=on", conftest=conftest).assert_outcomes(skipped=1)
    slip = tests.replace("mrg_rxbuf", "pakced")
    result = run(slip, "--virtio-missing=skip", conftest=conftest)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E  *UsageError: matrix: unknown axis*'pakced'*Did you mean 'packed'*"])


def test_kernels(run_dry: Run) -> None:
    """Of guests that boot one, once for each that boots none."""
    result = run_dry("""
        @pytest.mark.virtio(Rng(), matrix={"guest": ["scripted", "linux"]})
        def test_open(virtio, request):
            kernel = getattr(virtio.guest, "kernel", None)
            assert kernel is None or str(kernel) == {"one": "/k/1", "2": "/k/2"}[request.node.callspec.id[6:]]

        @pytest.mark.virtio(Rng(), guest=Linux(kernel="/mine"))
        def test_settled(virtio): assert virtio.guest.kernel == "/mine"

        @pytest.mark.virtio(Rng(), guest="linux", matrix={"kernel": {"zero": "/k/0"}})
        def test_authors(virtio): assert str(virtio.guest.kernel) == "/k/0"
    """, "-v", "--virtio-matrix=kernel=one=/k/1,/k/2", conftest=DECLARED)  # fmt: skip
    result.assert_outcomes(passed=5)
    for name in ("open[[]scripted]", "open[[]linux-one]", "open[[]linux-2]", "settled", "authors[[]zero]"):
        result.stdout.fnmatch_lines([f"*::test_{name} PASSED*"])


@pytest.mark.guest
def test_a_kernel_of_the_matrix_is_booted(run: Run, tmp_path: Path) -> None:
    """One that lacks our modules, and so gets as far as to say so."""
    from pytest_virtio.provision.linux import linux_image

    image = linux_image()
    assert image is not None
    (tmp_path / "mine").symlink_to(image.kernel)
    result = run("""
        @pytest.mark.virtio(Rng(driver=None), guest="linux")
        def test_it(virtio, request): assert f"/{request.node.callspec.id} " in virtio.vm.command_line
    """, f"--virtio-matrix=kernel={tmp_path}/mine")  # fmt: skip
    result.assert_outcomes(passed=1)


def test_a_test_that_asks_too_late_or_never_is_told(run: Run) -> None:
    result = run("""
        @pytest.mark.virtio(Rng(), matrix={"transport": ["pci", "mmio"]})
        def test_never(virtio_factory): pass

        def test_late(request): request.getfixturevalue("virtio")
    """, "--virtio-matrix=packed=on")  # fmt: skip
    result.assert_outcomes(errors=1, failed=1)
    result.stdout.fnmatch_lines([
        "E  *UsageError: only the `virtio` fixture boots what a matrix says: take it*",
        "E  *UsageError: pytest could not see before the run that a matrix concerns this test*",
    ])  # fmt: skip


def test_xdist_workers_agree(run: Run) -> None:
    run("""
        @pytest.mark.virtio(Rng(), matrix={"transport": ["pci", "mmio"], "event_idx": ["on", "off"]})
        def test_it(virtio): pass
    """, "-n", "2").assert_outcomes(passed=4)  # fmt: skip
