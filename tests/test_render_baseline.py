"""How a difference reads: the verdict, the changes, what hides, and what each side was seen on."""

from __future__ import annotations

from pytest_virtio.model.allowance import Allowance
from pytest_virtio.model.difference import compare
from pytest_virtio.model.feature_state import FEATURE_STATES
from pytest_virtio.model.profile import ConfigValue, DeviceProfile, Profile, QueueProfile
from pytest_virtio.model.provenance import Provenance
from pytest_virtio.render.baseline import baseline_difference

OLD = Provenance(qemu="7.2.22", qemu_build="Debian 1:7.2+dfsg-7", machine="pc-q35-7.2", plugin="0.1.0")
NEW = Provenance(qemu="10.0.2", machine="pc-q35-7.2", kernel="6.1.0-37-amd64", plugin="0.1.0")


def profile(
    states: dict[str, str], provenance: Provenance, config: dict[str, ConfigValue] | None = None, size: int = 0
) -> Profile:
    features = {f"VIRTIO_NET_F_{name}": FEATURE_STATES[words] for name, words in states.items()}
    queues = (QueueProfile("rx0", size),) if size else ()
    device = DeviceProfile(type="net", transport="pci", features=features, queues=queues, config=config or {})
    return Profile({"net0": device}, provenance)


def read(before: Profile, now: Profile, *allowed: Allowance) -> list[str]:
    return list(baseline_difference(compare(before, now, allowed)))


def test_the_whole_of_it() -> None:
    before = profile({"CSUM": "offered", "MRG_RXBUF": "negotiated"}, OLD, {"mtu": 1500}, 256)
    now = profile({"CSUM": "negotiated"}, NEW, {"mtu": 9000})
    allowed = Allowance(device="net0", what="config.mtu", reason="the runners have jumbo frames")
    assert read(before, now, allowed) == [
        "net0: VIRTIO_NET_F_MRG_RXBUF lost: QEMU offers it no more (and 1 more)",
        "net0",
        "  - VIRTIO_NET_F_MRG_RXBUF: negotiated -> not offered: QEMU offers it no more",
        "  + VIRTIO_NET_F_CSUM: offered -> negotiated: the driver acknowledges it now",
        "  ~ config.mtu: 1500 -> 9000: the device says something else (allowed: the runners have jumbo frames)",
        "net0: not compared: queues (1): told before, not told now",
        "seen on, before -> now:",
        "  QEMU: 7.2.22 (Debian 1:7.2+dfsg-7) -> 10.0.2",
        "  kernel: ? -> 6.1.0-37-amd64",
    ]


def test_on_the_same_versions_something_of_the_users_has_changed() -> None:
    lines = read(profile({"CSUM": "negotiated"}, OLD), profile({}, OLD))
    assert lines[-2:] == [
        "seen on the same: QEMU 7.2.22 (Debian 1:7.2+dfsg-7), machine pc-q35-7.2, pytest-virtio 0.1.0",
        "so the command line, a property of the device or the guest's settings must have changed",
    ]


def test_no_difference_is_one_line() -> None:
    assert read(profile({}, OLD), profile({}, NEW)) == ["no difference"]


def test_allowed_ones_alone_are_shown() -> None:
    allowed = Allowance(device="net0", what="CSUM", reason="so")
    lines = read(profile({"CSUM": "negotiated"}, OLD), profile({}, NEW), allowed)
    assert lines[0] == "no difference but 1 that an allowance covers"
    assert lines[2].endswith("(allowed: so)")


def test_what_hides_is_said_though_nothing_differs() -> None:
    assert read(profile({"CSUM": "negotiated"}, OLD), profile({"CSUM": "offered, driver untold"}, OLD)) == [
        "no difference",
        "net0: not compared: which features the driver acknowledged (1): told before, not told now",
    ]


def test_a_verdict_on_no_feature_shows_the_values() -> None:
    lines = read(profile({}, OLD, {"tag": "a"}), profile({}, OLD, {"tag": "b"}))
    assert lines[0] == "net0: config.tag 'a' -> 'b': the device says something else"


def test_hostile_and_endless_values_stay_on_their_line() -> None:
    config: dict[str, ConfigValue] = {f"f\x1b[1m\n{number}": "\x1b]0;x\x07\n" * 1000 for number in range(500)}
    lines = read(profile({}, OLD, {"a": 1}), profile({}, OLD, config))
    assert len(lines) < 210
    assert "and 301 more changes" in lines
    assert all(line.isprintable() and len(line) < 800 for line in lines)
    hostile = Provenance(qemu="\x1b[2J\n", backends={"a\nb": "c\x00"})
    assert all(line.isprintable() for line in read(profile({}, hostile, {"a": 1}), profile({}, OLD, {"a": 2})))
