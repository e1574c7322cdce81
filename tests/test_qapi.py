"""Replies against what QEMU 7.2, 10.0 and 11.1 sent, what their guests said, and replies that no QEMU would send."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_virtio import qapi
from pytest_virtio.errors import ReplyError
from pytest_virtio.model.queue import VirtioRingAvail, VirtioRingDesc, VirtioRingUsed
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.spec.devices import DEVICE_TYPES, NET
from pytest_virtio.spec.features import FeatureNames
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES

SAMPLES = Path(__file__).parent / "samples"
STRING_TABLES: dict[str, dict[str, list[tuple[int, str]]]] = json.loads((SAMPLES / "string-tables.json").read_text())
BY_TABLE = {device.name: device.feature_names for device in DEVICE_TYPES.values()}
BY_TABLE |= {"serial": BY_TABLE["console"], "transport": NET.feature_names}
BY_TABLE |= {"vhost-user-protocol": PROTOCOL_FEATURE_NAMES, "vhost_user_protocol": PROTOCOL_FEATURE_NAMES}
VERSIONS_WITH_STATUS = ("7.2", "10.0")


def reply(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text())["return"]


def error(name: str) -> str:
    return str(json.loads((SAMPLES / name).read_text())["error"]["desc"])


def status(name: str) -> VirtioStatus:
    return qapi.parse_status(reply(name))


def names_for(table: str) -> FeatureNames:
    # Tables of devices without bits of their own are merged into one in the samples of Debian's builds.
    return BY_TABLE["crypto"] if table.startswith("vhost-only") else BY_TABLE[table]


FEATURE_TEXTS = [
    pytest.param(names_for(table), bit, text, id=f"{version}-{table}-{bit}")
    for version, tables in STRING_TABLES.items()
    for table, rows in tables.items()
    if "status" not in table
    for bit, text in rows
]


@pytest.mark.parametrize(("known", "bit", "text"), FEATURE_TEXTS)
def test_every_feature_text_of_six_versions(known: FeatureNames, bit: int, text: str) -> None:
    assert qapi.feature_bit(text, known) == bit


@pytest.mark.parametrize("version", STRING_TABLES)
def test_every_status_text(version: str) -> None:
    tables = STRING_TABLES[version]
    names = {1: "ACKNOWLEDGE", 2: "DRIVER", 4: "DRIVER_OK", 8: "FEATURES_OK", 64: "NEEDS_RESET", 128: "FAILED"}
    changed = copy.deepcopy(reply("10.0/synthetic/initial.status.json"))
    for bit, text in tables.get("status") or tables["config_status"]:
        changed["status"] = {"statuses": [text]}
        assert qapi.parse_status(changed).status == {names[bit]}


@pytest.mark.parametrize(
    ("text", "bit"),
    [
        ("MRG_RXBUF", 15),
        ("mrg-rxbuf", 15),
        ("EVENT_IDX", 29),
        ("event-idx", 29),
        ("PROTOCOL_FEATURES", 30),
        ("FOO", None),
    ],
)
def test_short_names_of_2022(text: str, bit: int | None) -> None:
    assert qapi.feature_bit(text, NET.feature_names) == bit


def test_list_is_sorted_by_path() -> None:
    for version in ("7.2", "10.0", "11.1"):
        devices = qapi.parse_list(reply(f"{version}/std-driver_ok/x-query-virtio.json"))
        kinds = ["balloon", "blk", "input", "net", "rng", "rng", "scsi", "serial"]
        assert sorted(device.name for device in devices) == [f"virtio-{kind}" for kind in kinds]
        assert [device.path for device in devices] == sorted(device.path for device in devices)
        assert ("virtio-net", "/machine/peripheral/net0/virtio-backend") in [(d.name, d.path) for d in devices]
    assert qapi.parse_list(reply("7.2/synthetic/no-devices.x-query-virtio.json")) == ()


@pytest.mark.parametrize("version", VERSIONS_WITH_STATUS)
@pytest.mark.parametrize("name", ["net", "blk", "balloon", "serial", "scsi"])
def test_guest_features_are_those_that_the_guest_saw(version: str, name: str) -> None:
    found = status(f"{version}/std-driver_ok/virtio-{name}.status.json")
    lines = (SAMPLES / version / "std-driver_ok/guest-sysfs.txt").read_text().splitlines()
    strings = [line.split()[3] for line in lines if int(line.split()[1], 16) == found.device_id]
    # Sysfs writes bit 0 first.
    assert [sum(1 << bit for bit, digit in enumerate(string) if digit == "1") for string in strings] == [
        found.guest_features.bits
    ]
    assert found.guest_features.offered is found.host_features
    assert found.guest_features <= found.host_features


def test_status_fields() -> None:
    found = status("10.0/vhost-user-net/status.json")
    assert (found.name, found.device_id, found.source) == ("virtio-net", 1, "x-query-virtio-status")
    assert found.status == {"ACKNOWLEDGE", "DRIVER", "FEATURES_OK", "DRIVER_OK"}
    assert (found.num_vqs, found.queue_sel, found.isr, found.device_endian, found.bus_name) == (3, 2, 1, "little", "")
    assert (found.vhost_started, found.started, found.use_started, found.vm_running) == (True, True, True, True)
    assert (found.broken, found.disabled, found.disable_legacy_check, found.start_on_kick) == (False,) * 4
    assert found.use_guest_notifier_mask is False
    assert found.extra == {}
    assert found.driver_ok


def test_vhost_fields_and_bit_30() -> None:
    found = status("10.0/vhost-user-net/status.json")
    vhost = found.vhost_dev
    assert vhost is not None
    assert "VIRTIO_F_BAD_FEATURE" in found.host_features
    assert vhost.backend_features == {"VHOST_USER_F_PROTOCOL_FEATURES"}
    assert vhost.features - vhost.acked_features == {"VHOST_F_LOG_ALL"}
    assert vhost.protocol_features == {"DEVICE_STATE", "REPLY_ACK", "RARP", "LOG_SHMFD"}
    assert (vhost.nvqs, vhost.vq_index, vhost.max_queues, vhost.n_mem_sections, vhost.n_tmp_sections) == (2, 0, 1, 1, 1)
    assert (vhost.backend_cap, vhost.log_enabled, vhost.log_size) == (0, False, 0)


def test_the_same_reply_of_two_versions_differs_only_where_the_versions_do() -> None:
    old, new = (status(f"{version}/vhost-user-blk/status.json") for version in VERSIONS_WITH_STATUS)
    assert old.vhost_dev is not None
    assert new.vhost_dev is not None
    # 7.2 says SLAVE_REQ and SLAVE_SEND_FD.
    assert old.vhost_dev.protocol_features == new.vhost_dev.protocol_features
    assert old.host_features == new.host_features


def test_11_1_dropped_backend_features_and_one_day_may_send_none() -> None:
    changed = copy.deepcopy(reply("10.0/vhost-user-net/status.json"))
    del changed["backend-features"], changed["vhost-dev"]["backend-features"], changed["vhost-dev"]["protocol-features"]
    found = qapi.parse_status(changed)
    assert found.backend_features is None
    assert found.vhost_dev is not None
    assert found.vhost_dev.backend_features is None
    assert found.vhost_dev.protocol_features is None


def test_unknown_status_bits() -> None:
    assert "0x30" in status("10.0/synthetic/unknown-status-0x30.status.json").status


def test_unknown_bits_below_and_above_64() -> None:
    changed = copy.deepcopy(reply("10.0/vhost-user-net/status.json"))
    changed["host-features"] |= {"unknown-dev-features": 1 << 48, "unknown-dev-features2": 0b11}
    changed["vhost-dev"]["protocol-features"]["unknown-protocols"] = 1 << 40
    found = qapi.parse_status(changed)
    assert found.host_features.bits >> 40 == 1 << 8 | 0b11 << 24
    assert found.vhost_dev is not None
    assert found.vhost_dev.protocol_features is not None
    assert found.vhost_dev.protocol_features.unknown == (40,)


def test_what_no_table_knows_is_kept() -> None:
    changed = copy.deepcopy(reply("10.0/vhost-user-net/status.json"))
    changed["guest-features"]["dev-features"].append("VIRTIO_NET_F_TELEPATHY: reads minds")
    changed["status"]["statuses"].append("VIRTIO_CONFIG_S_DREAMING: asleep")
    changed |= {"mood": "fine"}
    changed["vhost-dev"]["colour"] = {"red": 1}
    found = qapi.parse_status(changed)
    assert found.guest_features.texts == ("VIRTIO_NET_F_TELEPATHY: reads minds",)
    assert "DREAMING" in found.status
    assert found.extra == {"mood": "fine", "vhost-dev.colour": {"red": 1}}


def test_status_names_of_2022() -> None:
    changed = copy.deepcopy(reply("10.0/synthetic/initial.status.json"))
    changed["status"] = {"statuses": ["acknowledge", "driver", "features-ok", "driver-ok"]}
    assert qapi.parse_status(changed).driver_ok


def test_source() -> None:
    assert qapi.parse_status(reply("10.0/synthetic/initial.status.json"), source="elsewhere").source == "elsewhere"


def test_three_shapes_of_queue_status() -> None:
    plain = qapi.parse_queue_status(reply("10.0/synthetic/pending.queue-status-after-element-query.json"))
    assert (plain.last_avail_idx, plain.shadow_avail_idx, plain.vring_desc, plain.vring_num) == (0, 2, 0x10000, 8)
    vhost = qapi.parse_queue_status(reply("10.0/vhost-user-blk/queue-status.json"))
    assert (vhost.last_avail_idx, vhost.shadow_avail_idx) == (0, None)
    beside = qapi.parse_queue_status(reply("10.0/vhost-user-net/q2-ctrl.queue-status.json"))
    assert (beside.last_avail_idx, beside.shadow_avail_idx, beside.used_idx, beside.queue_index) == (None, None, 9, 2)
    assert (beside.signalled_used_valid, beside.extra) == (False, {})


def test_vhost_queue_status_with_and_without_user_addresses() -> None:
    old = qapi.parse_vhost_queue_status(reply("10.0/vhost-user-net/q0.vhost-queue-status.json"))
    assert (old.num, old.desc, old.desc_phys, old.used_size) == (256, 139789418696704, 44376064, 2052)
    new = qapi.parse_vhost_queue_status(reply("11.1/vhost-user-net/q0.vhost-queue-status.json"))
    assert (new.desc, new.avail, new.used, new.avail_size, new.extra) == (None, None, None, 516, {})


@pytest.mark.parametrize("version", ["7.2", "10.0", "11.1"])
def test_element_in_order_of_the_chain(version: str) -> None:
    element = qapi.parse_queue_element(reply(f"{version}/synthetic/pending-chain.queue-element.json"))
    assert element.descs == (
        VirtioRingDesc(0x40000, 512, frozenset({"next"})),
        VirtioRingDesc(0x50000, 4096, frozenset({"write", "next"})),
        VirtioRingDesc(0x60000, 1, frozenset({"write"})),
    )
    assert (element.index, element.avail, element.used) == (3, VirtioRingAvail(1, 2, 3), VirtioRingUsed(0, 0))


PREDICATES: dict[str, tuple[Callable[[str], bool], tuple[str, ...]]] = {
    "no-devices": (qapi.is_no_devices_error, (error("10.0/synthetic/no-devices.x-query-virtio.json"),)),
    "invalid-queue": (
        qapi.is_invalid_queue_error,
        (error("10.0/synthetic/err.invalid-queue.json"), error("10.0/vhost-user-net/q2.vhost-queue-status.json")),
    ),
}


@pytest.mark.parametrize("kind", PREDICATES)
def test_each_error_text_is_of_one_kind(kind: str) -> None:
    for text in PREDICATES[kind][1]:
        assert [name for name, (predicate, _) in PREDICATES.items() if predicate(text)] == [kind]


@pytest.mark.parametrize("kind", ["vhost-not-started", "region-caches", "packed", "indirect-unmappable"])
def test_other_errors_are_of_no_kind(kind: str) -> None:
    text = error(f"10.0/synthetic/err.{kind}.json")
    assert not any(predicate(text) for predicate, _ in PREDICATES.values())


@pytest.mark.parametrize("version", ["7.2", "10.0", "11.1"])
def test_error_texts_are_alike_in_all_versions(version: str) -> None:
    assert qapi.is_invalid_queue_error(error(f"{version}/synthetic/err.invalid-queue.json"))


PARSERS: dict[str, tuple[Callable[[object], object], object]] = {
    qapi.QUERY_VIRTIO: (qapi.parse_list, reply("10.0/std-driver_ok/x-query-virtio.json")),
    qapi.QUERY_STATUS: (qapi.parse_status, reply("10.0/vhost-user-net/status.json")),
    qapi.QUERY_QUEUE_STATUS: (qapi.parse_queue_status, reply("10.0/synthetic/packed.queue-status.json")),
    qapi.QUERY_VHOST_QUEUE_STATUS: (
        qapi.parse_vhost_queue_status,
        reply("10.0/vhost-user-net/q0.vhost-queue-status.json"),
    ),
    qapi.QUERY_QUEUE_ELEMENT: (qapi.parse_queue_element, reply("10.0/synthetic/pending-chain.queue-element.json")),
}


@pytest.mark.parametrize(
    ("command", "path", "value", "message"),
    [
        (qapi.QUERY_STATUS, ("host-features",), None, r"x-query-virtio-status: reply key 'host-features': missing"),
        (qapi.QUERY_STATUS, ("status", "statuses"), None, r"key 'status\.statuses': missing"),
        (qapi.QUERY_STATUS, ("vhost-dev", "features", "transports"), 1, r"'vhost-dev\.features\.transports': a list"),
        (qapi.QUERY_STATUS, ("broken",), 0, r"'broken': bool is wanted, not int"),
        (qapi.QUERY_STATUS, ("num-vqs",), True, r"'num-vqs': int is wanted, not bool"),
        (qapi.QUERY_STATUS, ("device-id",), -1, r"'device-id': 0 or more is wanted, not -1"),
        # Python refuses to print an integer as long as this one in decimal.
        pytest.param(qapi.QUERY_STATUS, ("device-id",), 10**5000, r"'device-id': an integer of 64 bits", id="huge"),
        (qapi.QUERY_STATUS, ("host-features", "unknown-dev-features"), 1 << 64, r"an integer of 64 bits is wanted"),
        (qapi.QUERY_STATUS, ("host-features", "transports"), [None], r"str is wanted, not null"),
        (qapi.QUERY_QUEUE_STATUS, ("inuse",), None, r"x-query-virtio-queue-status: reply key 'inuse': missing"),
        (qapi.QUERY_VHOST_QUEUE_STATUS, ("kick",), "0", r"'kick': int is wanted, not str"),
        (qapi.QUERY_QUEUE_ELEMENT, ("descs",), [{"addr": 1}], r"'descs\[0\]\.len': missing"),
        (qapi.QUERY_QUEUE_ELEMENT, ("avail",), [], r"'avail': an object is wanted, not list"),
    ],
)
def test_a_misshapen_reply_names_command_and_key(
    command: str, path: tuple[str, ...], value: object, message: str
) -> None:
    parse, good = PARSERS[command]
    bad: Any = copy.deepcopy(good)
    place = bad
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    with pytest.raises(ReplyError, match=message):
        parse(bad)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value within a reply."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def put(good: object, path: tuple[Any, ...], value: object) -> object:
    if not path:
        return value
    bad: Any = copy.deepcopy(good)
    place = bad
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return bad


@settings(max_examples=300, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("command", PARSERS)
def test_no_reply_raises_anything_but_reply_error(command: str, data: st.DataObject) -> None:
    parse, good = PARSERS[command]
    bad = put(good, data.draw(st.sampled_from(places(good))), data.draw(JSON))
    # Most draws don't raise; any other error than this one fails the test.
    with contextlib.suppress(ReplyError):
        parse(bad)
