"""Lines against the bytes of QEMU's own HMP, and the wording of faults and comparisons."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio import qapi, render
from pytest_virtio.model.features import Features
from pytest_virtio.model.queue import VirtioRingDesc
from pytest_virtio.model.status import VirtioInfo
from pytest_virtio.model.verdict import Fault, FeatureFault
from pytest_virtio.spec.devices import BLK, NET, device_type
from pytest_virtio.spec.features import FeatureNames
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES

SAMPLES = Path(__file__).parent / "samples"
QUEUES: dict[str, tuple[Callable[[object], Any], Callable[[str, Any], Iterator[str]]]] = {
    "vhost-queue-status": (qapi.parse_vhost_queue_status, render.virtio_vhost_queue_status),
    "queue-status": (qapi.parse_queue_status, render.virtio_queue_status),
    "queue-element": (qapi.parse_queue_element, render.virtio_queue_element),
}


def reply(path: Path) -> Any:
    return json.loads(path.read_text()).get("return")


def hmp(path: Path) -> list[str]:
    """Return what QEMU printed, without what came from its stderr."""
    lines = path.with_name(path.name.removesuffix(".json") + ".hmp.txt").read_bytes().decode().split("\r\n")
    return [line for line in lines[:-1] if not line.startswith("Desc next is")]


def sample(name: str) -> Path:
    return SAMPLES / name


def samples(suffix: str) -> list[Any]:
    paths = sorted(path for path in SAMPLES.glob(f"*/*/*{suffix}*.json") if path.name.split(".")[-2].startswith(suffix))
    found = [path for path in paths if path.with_name(path.stem + ".hmp.txt").exists() and reply(path) is not None]
    return [pytest.param(path, id=str(path.relative_to(SAMPLES))) for path in found]


@pytest.mark.parametrize("path", [*samples("queue-status"), *samples("queue-element"), *samples("vhost-queue-status")])
def test_queues_as_qemu_prints_them(path: Path) -> None:
    parse, lines = next(QUEUES[kind] for kind in QUEUES if path.name.split(".")[-2].startswith(kind))
    expected = hmp(path)
    # QEMU shows a length of 2 GiB or more as negative; we don't.
    expected = [re.sub(r" len (-\d+)", lambda found: f" len {int(found[1]) + (1 << 32)}", line) for line in expected]
    assert list(lines(expected[0][:-1], parse(reply(path)))) == expected


@pytest.mark.parametrize("path", samples("status"))
def test_status_as_qemu_prints_it(path: Path) -> None:
    found = qapi.parse_status(reply(path))
    expected = hmp(path)
    assert list(render.virtio_status(expected[0][:-1], found)) == list(normalised(expected, found.device_id))


def normalised(lines: list[str], device_id: int) -> Iterator[str]:
    """Yield QEMU's lines without descriptions, each block of features in our order and with the names that we know."""
    block: list[str] = []
    title = ""
    for line in [*lines, "end"]:
        if title and (line.startswith(("\t", "  unknown-")) or line == ""):
            block.append(line)
            continue
        if title:
            yield title
            yield from features_block(block, names_for(title, device_id))
        title, block = (line, []) if line.endswith("eatures:") else ("", [])
        if not title and line != "end":
            yield re.sub(r"^(\t[A-Z0-9_]+): .*?(,?)$", r"\1\2", line)


def names_for(title: str, device_id: int) -> FeatureNames:
    if title == "    Protocol features:":
        return PROTOCOL_FEATURE_NAMES
    device = device_type(device_id)
    return device.vhost_feature_names if title.startswith("    ") else device.feature_names


def features_block(block: list[str], names: FeatureNames) -> list[str]:
    bits = 0
    for line in block:
        unknown = re.fullmatch(r"  unknown-\w+\(0x([0-9a-f]{16})\)", line)
        if unknown:
            bits |= int(unknown[1], 16)
        elif line:
            bit = qapi.feature_bit(line.strip().rstrip(","), names)
            assert bit is not None, line
            bits |= 1 << bit
    shown = [names.name(bit) for bit in range(127, -1, -1) if bits >> bit & 1]
    if names is PROTOCOL_FEATURE_NAMES:
        return tabbed(shown)
    transport = [name for name in shown if re.match(r"VIRTIO_(RING_)?F_", name)]
    # An empty list of the transport's is an empty line, one of the device's is none.
    return (tabbed(transport) or [""]) + tabbed([name for name in shown if name not in transport])


def tabbed(names: list[str]) -> list[str]:
    return [f"\t{name}{',' if name is not names[-1] else ''}" for name in names]


def test_no_line_of_features_is_reordered_where_qemu_goes_by_bits() -> None:
    path = sample("10.0/vhost-user-net/status.json")
    lines = list(render.virtio_status("/net0", qapi.parse_status(reply(path))))
    start = lines.index("  Guest features:")
    theirs = [re.sub(r": [^,]*", "", line) for line in hmp(path)]
    assert lines[start : start + 11] == theirs[theirs.index("  Guest features:") :][:11]


@pytest.mark.parametrize("version", ["7.2", "10.0", "11.1"])
def test_list_as_qemu_prints_it(version: str) -> None:
    devices = qapi.parse_list(reply(sample(f"{version}/std-driver_ok/x-query-virtio.json")))
    theirs = sample(f"{version}/std-driver_ok/info-virtio.txt").read_bytes().decode().splitlines()
    assert list(render.virtio_list(devices)) == sorted(theirs)


def test_list_without_devices() -> None:
    theirs = sample("7.2/synthetic/no-devices.x-query-virtio.hmp.txt").read_text().splitlines()
    assert list(render.virtio_list([])) == theirs


def test_lines_of_absent_fields_go_away() -> None:
    path = sample("10.0/vhost-user-net/status.json")
    found = qapi.parse_status(reply(path))
    thin = replace(found, backend_features=None, isr=None, bus_name=None, vhost_dev=None, vhost_started=None)
    gone = [
        line for line in render.virtio_status("/net0", found) if line not in list(render.virtio_status("/net0", thin))
    ]
    assert gone[0] == "  device_name:             virtio-net (vhost)"
    assert "  isr:                     1" in gone
    assert "  bus_name:                (null)" in gone
    assert "  Backend features:" in gone
    assert "  VHost:" in gone
    assert "  num_vqs:                 3" not in gone


def test_what_no_table_knows_is_shown_and_cannot_break_a_line() -> None:
    found = qapi.parse_status(reply(sample("10.0/vhost-user-net/status.json")))
    features = Features(1 << 15 | 1 << 48 | 1 << 120, NET, texts=["X: \x1b[31m\nfake:"])
    strange = replace(
        found, guest_features=features, status=frozenset({"DRIVER", "DREAM\n", "0x30"}), extra={"a\tb": [1]}
    )
    lines = list(render.virtio_status("/net0\x07", strange))
    assert lines[0] == "/net0\\x07:"
    assert lines[-1] == "  a\\tb: [1]"
    start = lines.index("  status:")
    assert lines[start + 1 : start + 9] == [
        "\tVIRTIO_CONFIG_S_DRIVER,",
        "\tDREAM\\n",
        "  unknown-statuses(0x0000000000000030)",
        "  Guest features:",
        "",
        "\tVIRTIO_NET_F_MRG_RXBUF,",
        "\tX: \\x1b[31m\\nfake:",
        "  unknown-features(0x01000000000000000001000000000000)",
    ]


def test_unknown_protocol_features() -> None:
    found = qapi.parse_status(reply(sample("10.0/vhost-user-net/status.json")))
    assert found.vhost_dev is not None
    vhost = replace(found.vhost_dev, protocol_features=Features(1 << 40 | 1, PROTOCOL_FEATURE_NAMES))
    assert list(render.virtio_status("/net0", replace(found, vhost_dev=vhost)))[-3:] == [
        "    Protocol features:",
        "\tVHOST_USER_PROTOCOL_F_MQ",
        "  unknown-protocols(0x0000010000000000)",
    ]


def test_descriptors_with_no_and_with_strange_flags() -> None:
    element = qapi.parse_queue_element(reply(sample("10.0/synthetic/pending-chain.queue-element.json")))
    descs = (VirtioRingDesc(0, 0xFFFFFFFF, frozenset()), VirtioRingDesc(16, 1, frozenset({"odd", "next", "indirect"})))
    lines = list(render.virtio_queue_element("/rng0", replace(element, descs=descs)))
    assert lines[5:7] == ["        addr 0x10 len 1 (indirect, next, odd),", "        addr 0x0 len 4294967295"]
    assert list(render.virtio_queue_element("/rng0", replace(element, descs=())))[5] == ""


def test_faults() -> None:
    faults = [FeatureFault("A", fault) for fault in Fault]
    assert list(render.feature_faults(faults)) == [
        "A: not offered by the device",
        "A: offered, not acknowledged by the driver",
        "A: not offered by the device: masked by the vhost backend, which lacks it too",
        "A: not offered by the device: masked by the test itself (mask=)",
        "A: offered; the driver has not written its features yet",
    ]


OFFERED = Features.of({"VERSION_1", "MRG_RXBUF", "MTU"}, NET)
GUEST = Features.of({"VERSION_1", "MTU"}, NET, offered=OFFERED)
MTU, MRG_RXBUF, CSUM = "VIRTIO_NET_F_MTU", "VIRTIO_NET_F_MRG_RXBUF", "VIRTIO_NET_F_CSUM"
LACKS_BOTH = [
    f"  {CSUM}: not offered by the network device",
    f"  {MRG_RXBUF}: offered, not acknowledged by the driver",
]


@pytest.mark.parametrize(
    ("op", "left", "right", "lines"),
    [
        (">=", GUEST, {"MRG_RXBUF", "CSUM", "MTU"}, ["the left side lacks 2:", *LACKS_BOTH]),
        (">", GUEST, {"MRG_RXBUF", "CSUM", "MTU"}, ["the left side lacks 2:", *LACKS_BOTH]),
        ("<=", {"MRG_RXBUF", "CSUM", "MTU"}, GUEST, ["the right side lacks 2:", *LACKS_BOTH]),
        ("<=", GUEST, {"VERSION_1"}, ["the right side lacks 1:", f"  {MTU}"]),
        ("<", GUEST, {"VERSION_1"}, ["the right side lacks 1:", f"  {MTU}"]),
        (
            "==",
            GUEST,
            {"VERSION_1", "MRG_RXBUF", "CSUM"},
            ["the left side lacks 2:", *LACKS_BOTH, "the right side lacks 1:", f"  {MTU}"],
        ),
        (
            "==",
            GUEST,
            OFFERED,
            ["the left side lacks 1:", f"  {MRG_RXBUF}: offered, not acknowledged by the driver"],
        ),
        ("!=", GUEST, {"VERSION_1", 3}, [f"both sides are Features({{{MTU}, VIRTIO_F_VERSION_1}})"]),
        ("<", GUEST, {"VERSION_1", 3}, [f"both sides are Features({{{MTU}, VIRTIO_F_VERSION_1}})"]),
        (">", {"VERSION_1", 3}, GUEST, [f"both sides are Features({{{MTU}, VIRTIO_F_VERSION_1}})"]),
        ("in", "MRG_RXBUF", GUEST, [f"{MRG_RXBUF}: offered, not acknowledged by the driver"]),
        ("in", 0, OFFERED, [f"{CSUM}: not offered by the network device"]),
        ("not in", "MTU", GUEST, [f"{MTU}: offered and acknowledged"]),
        ("not in", "MTU", OFFERED, [f"{MTU}: offered"]),
        (
            ">=",
            OFFERED,
            Features.of({"RO", "MQ"}, BLK),
            [
                "the left side lacks 2:",
                "  VIRTIO_BLK_F_RO: not offered by the network device",
                "  VIRTIO_BLK_F_MQ: not offered by the network device",
            ],
        ),
        ("==", {"MTU"}, {"CSUM"}, []),
        ("in", "MTU", {"CSUM"}, []),
        ("is", GUEST, OFFERED, []),
        ("==", GUEST, "MTU", []),
    ],
)
def test_comparisons(op: str, left: object, right: object, lines: list[str]) -> None:
    assert list(render.compare_features(op, left, right)) == lines


OPERATORS = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}


@given(st.sampled_from(sorted(OPERATORS)), st.integers(0, 15), st.integers(0, 15), st.integers(0, 2))
def test_every_failed_comparison_is_explained(op: str, left: int, right: int, kind: int) -> None:
    ours, theirs = Features(left, NET), Features(right, NET)
    sides: tuple[Any, Any] = [(ours, theirs), (set(ours), theirs), (ours, set(theirs))][kind]
    if not OPERATORS[op](*sides):
        assert list(render.compare_features(op, *sides))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nümlaut 中 \\", "plain\ttext\nümlaut 中 \\"),
        ("\x1b[31mred\x00\x7f\x9b", r"\x1b[31mred\x00\x7f\x9b"),
        ("a\r\nb\rc", "a\nb\\rc"),
        ("\u202e\u2028\ud800\U000e0001", r"\u202e\u2028\ud800\U000e0001"),
        (b"ok \xff\xfe \xc3\xbc", "ok \\xff\\xfe ü"),
        ("", ""),
        (b"", ""),
    ],
)
def test_escape(text: str | bytes, shown: str) -> None:
    assert render.escape(text) == shown


def test_escape_is_bounded_and_says_what_it_cut() -> None:
    assert render.escape("abcdef", 4) == "[2 characters cut]cdef"
    assert render.escape(b"abcdef", 4, keep="head") == "abcd[2 bytes cut]"
    assert render.escape("abcdef", 0) == "[6 characters cut]"
    assert render.escape("abcdef", 6) == "abcdef"


@given(st.text() | st.binary(), st.integers(0, 20), st.sampled_from(["head", "tail"]))
def test_nothing_escapes_escape(text: str | bytes, limit: int, keep: Any) -> None:
    shown = render.escape(text, limit, keep=keep)
    assert all(character.isprintable() or character in "\t\n" for character in shown)
    # The longest escape has ten characters.
    assert len(shown) <= 10 * limit + len(f"[{len(text)} characters cut]")


def test_names_are_safe_everywhere() -> None:
    assert list(render.virtio_list([VirtioInfo("/a\n", "b\x1b")])) == [r"/a\n [b\x1b]"]
