"""Baselines as text: what it looks like, that nothing gets lost on the way, and what is said about a broken one."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.baseline.codec import Baseline, compare_with, dumps, loads
from pytest_virtio.baseline.table import LIMIT
from pytest_virtio.errors import BaselineError, UsageError
from pytest_virtio.model.allowance import Allowance
from pytest_virtio.model.feature_state import FEATURE_STATES
from pytest_virtio.model.profile import DeviceProfile, Profile, QueueProfile
from pytest_virtio.model.provenance import Provenance
from pytest_virtio.spec.devices import DEVICE_TYPES, device_type
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES, ProtocolFeature

EXAMPLE = Baseline(
    Profile(
        {
            "net0": DeviceProfile(
                type="net",
                transport="pci",
                features={
                    "VIRTIO_F_VERSION_1": FEATURE_STATES["negotiated, backend offers"],
                    "BIT_120": FEATURE_STATES["offered, backend lacks"],
                    "VIRTIO_NET_F_CSUM": FEATURE_STATES["not offered, backend offers"],
                },
                queues=(QueueProfile("rx0", 256), QueueProfile("ctrl", 0)),
                config={"mtu": 1500, "mac": "52:54:00:12:34:56"},
                protocol_features=("VHOST_USER_PROTOCOL_F_REPLY_ACK", "VHOST_USER_PROTOCOL_F_MQ"),
            ),
            "a.b": DeviceProfile(type="device-47", transport="mmio", features={}),
        },
        Provenance(qemu="10.0.2", machine="pc-q35-10.0", backends={"net0": "vhost-user-net 1.2"}),
    ),
    (Allowance(device="net0", what="config.mtu", values=(1500, 9000), reason='some runners have "jumbo" frames'),),
)
TEXT = r"""schema = 1  # what pytest-virtio saw negotiated; --virtio-baseline=update renews it

[devices."a.b"]
type = "device-47"
transport = "mmio"

[devices.net0]
type = "net"
transport = "pci"
protocol_features = [
    "VHOST_USER_PROTOCOL_F_MQ",
    "VHOST_USER_PROTOCOL_F_REPLY_ACK",
]

[devices.net0.features]
VIRTIO_NET_F_CSUM = "not offered, backend offers"
VIRTIO_F_VERSION_1 = "negotiated, backend offers"
BIT_120 = "offered, backend lacks"

[devices.net0.queues]
rx0 = 256
ctrl = 0

[devices.net0.config]
mac = "52:54:00:12:34:56"
mtu = 1500

[[allow]]
device = "net0"
what = "config.mtu"
values = [1500, 9000]
reason = "some runners have \"jumbo\" frames"

# What this was seen on: shown with a difference, and never compared.
[provenance]
qemu = "10.0.2"
machine = "pc-q35-10.0"

[provenance.backends]
net0 = "vhost-user-net 1.2"
"""


def test_a_baseline_reads_like_this() -> None:
    assert dumps(EXAMPLE) == TEXT


def test_and_means_what_was_written() -> None:
    read = loads(TEXT.encode(), "x.toml")
    assert read.allowances == EXAMPLE.allowances
    assert read.profile.provenance == EXAMPLE.profile.provenance
    net, expected = read.profile.devices["net0"], EXAMPLE.profile.devices["net0"]
    assert (net.features, net.queues, net.config) == (expected.features, expected.queues, expected.config)
    assert net.protocol_features == ("VHOST_USER_PROTOCOL_F_MQ", "VHOST_USER_PROTOCOL_F_REPLY_ACK")
    assert read.profile.devices["a.b"] == EXAMPLE.profile.devices["a.b"]


# Lone surrogates are no text of TOML's, and the profile's bytes become text without any.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.one_of(st.integers(-(2**63), 2**64 - 1), texts, st.lists(st.integers(0, 255), max_size=4).map(tuple))
types = st.sampled_from([*(type.name for type in DEVICE_TYPES.values()), "device-47"])


@st.composite
def devices(draw: st.DrawFn) -> DeviceProfile:
    name = draw(types)
    known = {type.name: type for type in DEVICE_TYPES.values()}.get(name, device_type(47)).feature_names
    bits = draw(st.sets(st.integers(0, 127), max_size=8))
    queues = draw(st.dictionaries(texts, st.integers(0, 65536), max_size=4))
    protocol = draw(st.none() | st.sets(st.integers(0, 63), max_size=4))
    return DeviceProfile(
        type=name,
        transport=draw(texts),
        features={known.name(bit): draw(st.sampled_from(list(FEATURE_STATES.values()))) for bit in bits},
        queues=tuple(QueueProfile(*queue) for queue in queues.items()),
        config=draw(st.dictionaries(texts, values, max_size=4)),
        protocol_features=None if protocol is None else tuple(map(PROTOCOL_FEATURE_NAMES.name, sorted(protocol))),
    )


def baselines() -> st.SearchStrategy[Baseline]:
    provenance = st.builds(Provenance, qemu=texts, kernel=texts, backends=st.dictionaries(texts, texts, max_size=2))
    profile = st.builds(Profile, st.dictionaries(texts, devices(), max_size=3), provenance)
    allowance = st.builds(
        Allowance, device=texts, what=texts, reason=texts, values=st.lists(values, max_size=3).map(tuple)
    )
    return st.builds(Baseline, profile, st.lists(allowance, max_size=3).map(tuple))


@given(baselines())
def test_nothing_gets_lost(baseline: Baseline) -> None:
    text = dumps(baseline)
    assert loads(text.encode(), "x.toml") == baseline
    assert all(line.isprintable() for line in text.split("\n"))


@given(baselines())
def test_equal_ones_are_equal_texts(baseline: Baseline) -> None:
    turned = {
        id: DeviceProfile(
            type=device.type,
            transport=device.transport,
            features=dict(reversed(list(device.features.items()))),
            queues=device.queues,
            config=dict(reversed(list(device.config.items()))),
            protocol_features=device.protocol_features and device.protocol_features[::-1],
        )
        for id, device in reversed(list(baseline.profile.devices.items()))
    }
    again = Baseline(Profile(turned, baseline.profile.provenance), baseline.allowances)
    assert dumps(again) == dumps(baseline)


def test_every_protocol_feature_has_its_line() -> None:
    names = tuple(feature.full_name for feature in ProtocolFeature)
    profile = Profile({"x": DeviceProfile(type="fs", transport="pci", features={}, protocol_features=names)})
    written = tomllib.loads(dumps(Baseline(profile)))["devices"]["x"]["protocol_features"]
    assert tuple(written) == names


def test_what_a_program_says_of_its_version_is_cut() -> None:
    wordy = Provenance(qemu="\x1b" * 100_000, backends={"net0": "\U0001f4a9" * 100_000})
    text = dumps(Baseline(Profile({}, wordy)))
    assert loads(text.encode(), "x.toml").profile.provenance.qemu == "\x1b" * 200
    assert len(text) < 5_000


def test_a_bit_that_has_a_name_by_now_is_called_by_it() -> None:
    old = TEXT.replace("VIRTIO_NET_F_CSUM", "BIT_0")
    assert "VIRTIO_NET_F_CSUM" in loads(old.encode(), "x.toml").profile.devices["net0"].features


def test_provenance_of_a_newer_version_is_left_alone() -> None:
    newer = TEXT.replace('qemu = "10.0.2"', 'qemu = "10.0.2"\nmoon = ["full"]')
    assert loads(newer.encode(), "x.toml").profile.provenance == EXAMPLE.profile.provenance


REMEDY = "pytest --virtio-baseline=update 't.py'"


def fails(data: bytes | str) -> str:
    with pytest.raises(BaselineError) as caught:
        loads(data if isinstance(data, bytes) else data.encode(), "dir/x.toml", REMEDY)
    message = str(caught.value)
    assert isinstance(caught.value, UsageError)
    assert message.startswith("dir/x.toml: ")
    assert message.isprintable()
    assert len(message) < 1000
    return message.removeprefix("dir/x.toml: ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"net"', '"nett"', "devices.net0.type: unknown device type: 'nett'. Did you mean 'net'"),
        ('type = "net"\n', "", "devices.net0.type: it is missing."),
        ('type = "net"', "type = 1", "devices.net0.type: a text in quotes is expected there, not 1."),
        ('type = "net"', "type = 1979-05-27", "devices.net0.type: a text in quotes is expected there, not datetime"),
        ('"net"', '"blk"', "devices.net0.features.VIRTIO_NET_F_CSUM: unknown feature of block device"),
        ("transport =", "transprot =", "devices.a.b.transprot: there is no such key. Did you mean 'transport'?"),
        (
            "NET_F_CSUM",
            "NET_F_CSUMM",
            "unknown feature of network device: 'VIRTIO_NET_F_CSUMM'. Did you mean",
        ),
        ("BIT_120", "VIRTIO_F_VERSION_1", "cut short or no TOML"),
        ("BIT_120", "VERSION_1", "devices.net0.features.VERSION_1: VIRTIO_F_VERSION_1 is there twice"),
        ("BIT_120", "BIT_999", "unknown feature of network device: 'BIT_999'"),
        ('"offered, backend lacks"', '"ofered"', "BIT_120: there is no such state: 'ofered'. Did you mean 'offered"),
        ('"offered, backend lacks"', '"yes"', "BIT_120: there is no such state: 'yes'. There are: negotiated, "),
        ('"offered, backend lacks"', "true", "BIT_120: a text in quotes is expected there, not True"),
        ("rx0 = 256", "rx0 = -1", "devices.net0.queues.rx0: a size of 0..65536 is expected there, not -1."),
        ("rx0 = 256", "rx0 = 65537", "not 65537."),
        ("rx0 = 256", "rx0 = true", "devices.net0.queues.rx0: a whole number is expected there, not True."),
        ("rx0 = 256", 'rx0 = "256"', "devices.net0.queues.rx0: a whole number is expected there, not '256'."),
        ("mtu = 1500", "mtu = 1.5", "devices.net0.config.mtu: a whole number is expected there, not 1.5."),
        ("mtu = 1500", 'mtu = ["a"]', "devices.net0.config.mtu: a whole number is expected there, not 'a'."),
        ("mtu = 1500", "mtu = {a = 1}", "devices.net0.config.mtu: a whole number is expected"),
        ('"VHOST_USER_PROTOCOL_F_MQ"', '"MQQ"', "devices.net0.MQQ: unknown feature of vhost-user backend"),
        ('"VHOST_USER_PROTOCOL_F_MQ"', "1", "devices.net0.protocol_features: a text in quotes"),
        ("[[allow]]", "[allow]", "allow: a list is expected there"),
        ("[[allow]]", "[[allowed]]", "allowed: there is no such key. Did you mean 'allow'?"),
        ('device = "net0"\n', "", "allow[0].device: it is missing."),
        ("reason =", "raeson =", "allow[0].raeson: there is no such key. Did you mean 'reason'?"),
        ("values = [1500, 9000]", "values = 1500", "allow[0].values: a list is expected there, not 1500."),
        ('qemu = "10.0.2"', "qemu = 10", "provenance.qemu: a text in quotes is expected there, not 10."),
        ('net0 = "vhost', 'net0 = 1 #"vhost', "provenance.backends.net0: a text in quotes is expected there, not 1."),
        ("schema = 1 ", "schema = 0 ", "schema: there is no schema 0."),
        ("schema = 1 ", "schema 1 ", "it is cut short or no TOML"),
        ("schema = 1 ", "#", "schema: it is missing."),
        ('transport = "pci"', 'transport = "\x1b[1m"', "it is cut short or no TOML"),
        ('transport = "pci"', '"\\u001b\\n" = "\\u001b"', "devices.net0.\\x1b\\n: there is no such key."),
    ],
)
def test_what_a_hand_broke_is_said_by_its_key(old: str, new: str, message: str) -> None:
    assert old in TEXT
    said = fails(TEXT.replace(old, new, 1))
    assert message in said
    assert said.endswith("To make it anew: pytest --virtio-baseline=update 't.py'")


def test_a_newer_schema_wants_an_upgrade() -> None:
    said = fails(TEXT.replace("schema = 1", "schema = 2").replace("devices", "machines"))
    assert said == "schema 2 was written by a newer pytest-virtio, and this one reads up to 1. Upgrade pytest-virtio."


def test_a_file_cut_short_never_passes() -> None:
    """At the end of a line it may still be TOML."""
    end = TEXT.index("[provenance]")
    for length in range(end):
        assert re.match(r"it is cut short or no TOML|.*cut short|schema: it is missing", fails(TEXT[:length])), length


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", "=======", ">>>>>>> theirs", "||||||| 4b825dc", "=======\r"])
def test_a_merge_conflict_is_called_so(marker: str) -> None:
    assert fails(TEXT.replace("BIT_120", f"{marker}\nBIT_120")).startswith("line 18: a merge conflict is left in it.")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TEXT.encode() + b"# \xff", "line 41: it is not UTF-8."),
        (b"#" * 10_000_000, f"it has more than {LIMIT >> 10} KiB"),
        (b"a = " + b"[" * 4_000, "it is cut short or no TOML"),
        (b"a = " + b"9" * 10_000, "line 1: it has 10004 bytes, and 4096 is the limit."),
        (b"\0" * 100, "it is cut short or no TOML"),
        (b"schema = " + b"9" * 1000, "schema: a number of at most 64 bits is expected there, not 999"),
        (
            b"schema = 0x" + b"f" * 4_000,
            "schema: a number of at most 64 bits is expected there, not something that is",
        ),
        (b"\nschema" + b".a" * 100_000 + b"= 1", "line 2: it has 200009 bytes"),
        (b"schema" + b".a" * 2_000 + b" = 1", "schema: a whole number is expected there, not something that is too"),
        (TEXT.encode().replace(b"1500\n", b"-0x1" + b"0" * 16), "cut short or no TOML"),
        (TEXT.encode().replace(b"1500\n", b"0x1" + b"0" * 16 + b"\n"), "config.mtu: a number of at most 64 bits"),
    ],
)
def test_what_is_no_text_of_ours(data: bytes, message: str) -> None:
    assert message in fails(data)


def test_an_empty_file_lacks_its_schema() -> None:
    assert fails("") == "schema: it is missing. To make it anew: pytest --virtio-baseline=update 't.py'"


def test_an_allowance_of_nothing_is_the_files_fault() -> None:
    wrong = Baseline(EXAMPLE.profile, (Allowance(device="net0", what="MRG_RXBUFF", reason=""),))
    with pytest.raises(BaselineError, match=r"^x\.toml: \[\[allow\]\]: unknown feature .* Did you mean 'MRG_RXBUF'"):
        compare_with(wrong, EXAMPLE.profile, "x.toml")


def test_a_baseline_of_another_device_is_compared_as_one() -> None:
    blk: dict[str, Any] = {"net0": DeviceProfile(type="blk", transport="pci", features={})}
    comparison = compare_with(Baseline(Profile(blk)), EXAMPLE.profile, "x.toml")
    assert comparison.differs
