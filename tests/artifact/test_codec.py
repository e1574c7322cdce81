"""The models as JSON and back: nothing is lost, and nothing that is wrong gets in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio import render
from pytest_virtio.artifact import codec
from pytest_virtio.errors import NotSupportedError, UsageError
from pytest_virtio.model.findings import DeviceFindings, Findings
from pytest_virtio.model.wire import WireMessage

from .made_up import FINDINGS

SCHEMA = Path(__file__).parents[2] / "docs/artifacts.md"
WRITTEN = codec.models_to_json(FINDINGS)


def _changed(*path: str | int, to: object) -> str:
    document: Any = json.loads(WRITTEN)
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return json.dumps(document)


def _told(findings: Findings) -> Findings:
    net = findings.devices["net0"]
    status = replace(_status_of(findings), backend_features=None)
    return replace(findings, devices={**findings.devices, "net0": replace(net, status=status)})


def _status_of(findings: Findings) -> Any:
    return findings.devices["net0"].status


def test_what_is_written_is_read_again() -> None:
    read = codec.models_from_json(WRITTEN)
    assert codec.models_to_json(read) == WRITTEN
    # Of features that nobody tells, not even equality may be asked.
    assert _told(read) == _told(FINDINGS)
    assert WRITTEN.isascii()


def test_features_come_back_with_what_equality_leaves_out() -> None:
    status, before = _status_of(codec.models_from_json(WRITTEN)), _status_of(FINDINGS)
    assert status.guest_features.offered == before.host_features
    assert status.host_features.texts == before.host_features.texts
    assert status.vhost_dev.acked_features.offered == before.vhost_dev.features
    assert "VHOST_USER_F_PROTOCOL_FEATURES" in status.vhost_dev.features
    with pytest.raises(NotSupportedError, match="nobody tells"):
        _ = status.backend_features.bits


def test_it_is_rendered_as_what_was_written() -> None:
    read = codec.models_from_json(WRITTEN)
    assert list(render.verdict(read)) == list(render.verdict(FINDINGS))
    for id, device in FINDINGS.devices.items():
        assert list(render.device_findings(read.devices[id])) == list(render.device_findings(device))


def test_a_feature_of_a_newer_specification_is_kept_as_text() -> None:
    names = ["devices", "net0", "status", "host_features", "names"]
    read = _status_of(codec.models_from_json(_changed(*names, to=["VIRTIO_NET_F_CSUM", "VIRTIO_NET_F_TELEPORT"])))
    assert set(read.host_features) == {"VIRTIO_NET_F_CSUM"}
    assert "VIRTIO_NET_F_TELEPORT" in read.host_features.texts


def test_keys_of_a_newer_version_are_passed_over() -> None:
    assert codec.models_to_json(codec.models_from_json(_changed("devices", "net0", "colour", to="red"))) == WRITTEN


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON, or not all of it"),
        (WRITTEN[:700], "no JSON, or not all of it"),
        ("[" * 100_000, "no JSON, or not all of it"),
        ("[]", "lacks a number as its 'schema'"),
        ('{"schema": true}', "lacks a number as its 'schema'"),
        ('{"schema": 2, "plugin": "9.9"}', r"by a newer pytest-virtio \(9.9\): its schema is 2, .* up to 1"),
        ('{"schema": 1}', "required field missing @ .devices"),
        (_changed("devices", to=[]), r"expected a mapping @ .devices"),
        (_changed("devices", "net0", to=7), r"@ .devices\['net0'\]"),
        (_changed("devices", "net0", "path", to=None), r"a text is expected, not None @ .devices\['net0'\].path"),
        (_changed("devices", "net0", "status", "num_vqs", to="3.5"), r"whole number is expected, not '3.5'"),
        (_changed("devices", "net0", "status", "num_vqs", to=1 << 200), r"whole number is expected"),
        (_changed("devices", "net0", "status", "broken", to="yes"), r"true or false is expected, not 'yes'"),
        (_changed("devices", "net0", "status", "device_id", to=None), r"whole number is expected, not None"),
        (_changed("devices", "net0", "status", "host_features", to=[]), r"@ .devices\['net0'\].status"),
        (_changed("devices", "net0", "history", "steps", 0, "seconds", to=float("inf")), "Infinity is no number"),
        (_changed("devices", "net0", "queues", 0, "ring", "elements", 0, "state", to="lost"), "elements"),
        (_changed("devices", "net0", "queues", 0, "verdict", "stuck", to="sulking"), "'sulking' is not a valid Stuck"),
        (_changed("hidden", to=1e400), "Infinity is no number"),
    ],
)
def test_what_is_wrong_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        codec.models_from_json(text)


def test_an_infinity_by_digits_is_refused() -> None:
    with pytest.raises(UsageError, match="a finite number is expected, not inf"):
        codec.models_from_json(WRITTEN.replace("0.75", "1e999"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def _places(document: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    for step, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield (*path, step)
        if isinstance(value, dict | list):
            yield from _places(value, (*path, step))


@given(place=st.sampled_from(list(_places(json.loads(WRITTEN)))), value=VALUES)
def test_whatever_stands_somewhere_is_read_or_refused(place: tuple[str | int, ...], value: object) -> None:
    try:
        read = codec.models_from_json(_changed(*place, to=value))
    except UsageError:
        return
    assert isinstance(read, Findings)


def test_more_queues_than_there_can_be_are_refused() -> None:
    """Whoever shows them would name them all."""
    place = ("devices", "net0", "status", "num_vqs")
    assert codec.models_from_json(_changed(*place, to=1 << 16)).devices["net0"].status
    with pytest.raises(UsageError, match=r"num_vqs: at most 65536 is expected, not 1152921504606846976.*net0"):
        codec.models_from_json(_changed(*place, to=1 << 60))


def test_the_wire_comes_back() -> None:
    message = WireMessage(
        seconds=0.5, to="QEMU", name="GET_CONFIG", reply=True, fields={"at": 0, "regions": ({"a": 1},)}
    )
    (read,) = codec.wire_messages_from_json([json.dumps(asdict(message))])
    assert replace(read, fields={}) == replace(message, fields={})
    assert render.wire_message(read) == render.wire_message(message)
    with pytest.raises(UsageError, match="nowhere"):
        list(codec.wire_messages_from_json([json.dumps({**asdict(message), "to": "nowhere"})]))


def test_a_transcript_needs_its_first_line() -> None:
    first, entry = '{"schema": 1, "began": "x", "dropped": 0}', '{"seconds": 1, "note": "x"}'
    assert list(codec.transcript_from_json([first, entry])) == [{"seconds": 1, "note": "x"}]
    for lines in ([], [entry], [first, "[]"], [first, "{"]):
        with pytest.raises(UsageError):
            list(codec.transcript_from_json(lines))


def test_every_key_is_described() -> None:
    described = SCHEMA.read_text()
    named = {"net0", "blk0", "0", "new-key", "deep"}
    assert {key for key in _keys(json.loads(WRITTEN)) - named if f"`{key}`" not in described} == set()


def _keys(document: object) -> set[str]:
    if isinstance(document, dict):
        return {*document, *(key for value in document.values() for key in _keys(value))}
    return {key for value in document for key in _keys(value)} if isinstance(document, list) else set()


def test_the_example_holds_every_field() -> None:
    """So that the test above misses none."""
    net = FINDINGS.devices["net0"]
    assert None not in [getattr(net, name) for name in DeviceFindings.__dataclass_fields__]
    assert None not in [getattr(net.queues[0], name) for name in type(net.queues[0]).__dataclass_fields__]
