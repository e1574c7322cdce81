"""JUnit files: what a test ran on, by the two families' rules, whatever a guest prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .conftest import Run

TESTS = """
    @pytest.fixture(scope="module")
    def shared(virtio_factory):
        with virtio_factory(Rng(), boot=False) as virtio:
            yield virtio

    @pytest.mark.virtio(Blk())
    def test_scripted(virtio):
        pass

    @firmware_blk
    def test_red(virtio):
        assert 0

    def test_shared(shared): pass

    def test_in_body(virtio_factory):
        with virtio_factory(VhostUserBlk()):
            pass

    def test_several(virtio_factory):
        for _ in range(2):
            with virtio_factory(Rng(), boot=False): pass
        with virtio_factory(Rng()): pass

    @pytest.mark.virtio(Blk(), args=["-nonsense"])
    def test_no_start(virtio): pass

    @pytest.fixture
    def breaks(virtio_factory):
        with virtio_factory(Rng(), boot=False):
            raise RuntimeError("no use")

    def test_error(breaks): pass

    def test_other(): pass
"""
FAMILIES = ("xunit1", "xunit2")


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_each_test_has_what_its_vms_ran_on(run: Run, pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    run(TESTS, "--junitxml=junit.xml", "-o", "junit_family=xunit1", *workers)
    found = _by_test(pytester)
    assert {"virtio.qemu", "virtio.machine", "virtio.host", "virtio.plugin"} <= found["test_scripted"].keys()
    assert found["test_scripted"]["virtio.guest"] == "scripted"
    assert found["test_scripted"]["virtio.machine"].startswith("pc-q35-")
    assert "virtio.firmware" not in found["test_scripted"]
    assert found["test_red"]["virtio.firmware"].startswith("SeaBIOS")
    assert "virtio.guest" not in found["test_shared"]
    assert found["test_in_body"]["virtio.backend.vublk0"].startswith("qemu-storage-daemon ")
    assert found["test_several"]["virtio.2.guest"] == "scripted"
    assert "virtio.qemu" not in found["test_several"]
    assert "virtio.3.qemu" not in found["test_several"]
    assert found["test_error"]["virtio.qemu"]
    assert found["test_no_start"] == found["test_other"] == {}


def test_a_property_is_written_once_and_others_stay(run: Run, pytester: pytest.Pytester) -> None:
    run("""
        @firmware_blk
        @pytest.mark.filterwarnings("ignore:record_property")
        def test_one(virtio, record_property):
            record_property("virtio.qemu", "mine")
    """, "--junitxml=junit.xml", "-o", "junit_family=xunit1")  # fmt: skip
    names = [entry.get("name") for entry in _parsed(pytester).iter("property")]
    suite = [entry.get("name") for entry in _parsed(pytester).findall("testsuite/properties/property")]
    assert names.count("virtio.host") == 2
    assert suite.count("virtio.host") == 1
    assert names.count("virtio.qemu") == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_keeps_its_familys_rules(run: Run, pytester: pytest.Pytester, family: str) -> None:
    run(TESTS, "--junitxml=junit.xml", "-o", f"junit_family={family}")
    _check(_parsed(pytester), properties_of_tests=family == "xunit1")


def test_where_tests_may_have_none_the_suite_has_them(run: Run, pytester: pytest.Pytester) -> None:
    run(TESTS, "--junitxml=junit.xml", "-n", "2")
    entries = _parsed(pytester).findall("testsuite/properties/property")
    values = {(entry.get("name"), entry.get("value")) for entry in entries}
    assert len(values) == len(entries)
    assert {("virtio.guest", "scripted"), ("virtio.guest", "firmware")} <= values
    assert len({value for name, value in values if name == "virtio.qemu"}) == 1


def test_a_run_without_a_vm_has_none(run_dry: Run, pytester: pytest.Pytester) -> None:
    run_dry("def test_green(): pass", "--junitxml=junit.xml")
    assert not list(_parsed(pytester).iter("property"))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_stays_valid_whatever_a_console_says(
    run: Run, pytester: pytest.Pytester, talking_rom: Callable[[bytes], Path], family: str
) -> None:
    nasty = b"\x1b[31m\x00\xff\xed\xa0\x80\xef\xbf\xbf]]></failure><script>&x; THE END"
    rom = talking_rom(b"SeaBIOS (version ]]>\"'<script>&amp;)\n" + nasty)
    run(f"""
        from pytest_virtio.vm.deadline import Deadline

        @pytest.mark.virtio(Rng(), guest=Firmware(bios={str(rom)!r}, drives=frozenset()))
        def test_red(virtio):
            drain, log = virtio._running.qemu.child.drain, virtio.guest.console.log
            assert drain.wait(lambda: b"THE END" in log.since(0), Deadline.after(30))
            assert 0, log.since(0) + "\\udc80".encode(errors="surrogateescape")
    """, "--junitxml=junit.xml", "-o", f"junit_family={family}")  # fmt: skip
    root = _parsed(pytester)
    _check(root, properties_of_tests=family == "xunit1")
    assert "THE END" in (root.findtext(".//failure") or "")
    firmware = {entry.get("value") for entry in root.iter("property") if entry.get("name") == "virtio.firmware"}
    assert firmware == {"SeaBIOS ]]>\"'<script>&amp; (talking.rom)"}


def _parsed(pytester: pytest.Pytester) -> ElementTree.Element:
    return ElementTree.parse(pytester.path / "junit.xml").getroot()


def _by_test(pytester: pytest.Pytester) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for case in _parsed(pytester).iter("testcase"):
        entries = [(str(entry.get("name")), str(entry.get("value"))) for entry in case.iter("property")]
        assert len(dict(entries)) == len(entries)
        found[str(case.get("name"))] = dict(entries)
    return found


def _check(root: ElementTree.Element, *, properties_of_tests: bool) -> None:
    """Which elements may stand in which, as Jenkins's xUnit plugin wants it (junit-10.xsd); xunit1 is what all else
    reads, and knows properties of a test."""
    of_test = {"skipped", "error", "failure", "system-out", "system-err"}
    allowed = {
        "testsuites": {"testsuite"},
        "testsuite": {"properties", "testcase", "system-out", "system-err"},
        "properties": {"property"},
        "testcase": of_test | {"properties"} if properties_of_tests else of_test,
    }
    for element in root.iter():
        assert {child.tag for child in element} <= allowed.get(element.tag, set())
        if element.tag == "property":
            assert element.keys() == ["name", "value"]
