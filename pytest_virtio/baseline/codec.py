"""A baseline and its text: TOML that reads well in a diff, one feature a line, each thing always at its place.

Responsible for the schema, both ways; must not know where a file is. What is read may have been edited by anybody: what
is wrong is said by its key. Features stand from the lowest bit to the highest, as the specification and QEMU list them;
devices and fields go by name, queues by index. Provenance comes last, so that a file that was cut short lacks it.

The lines are of our own making: the libraries that write TOML write no comments, and leave as they are the characters
that a terminal would obey when it shows the diff.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Final

from pytest_virtio.baseline.table import Source, Table, document
from pytest_virtio.errors import BaselineError, UnknownNameError, near_misses
from pytest_virtio.model.allowance import Allowance
from pytest_virtio.model.difference import Comparison, compare
from pytest_virtio.model.feature_state import FEATURE_STATES, feature_state
from pytest_virtio.model.profile import ConfigValue, DeviceProfile, FeatureProfile, Profile, QueueProfile
from pytest_virtio.model.provenance import Provenance
from pytest_virtio.render.text import safe
from pytest_virtio.spec.devices import device_type_named
from pytest_virtio.spec.features import FeatureNames
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES

__all__ = ("SCHEMA", "ANEW", "Baseline", "compare_with", "dumps", "loads")

SCHEMA: Final = 1
"""The version of the files that we write, and the newest that we read."""

_QUEUE_SIZE_MAX: Final = 1 << 16
_VERSION_LIMIT: Final = 200
# Not the host, which is another one for each who runs the tests, and says nothing where it is no backend.
_PROVENANCE: Final = tuple(field.name for field in fields(Provenance) if field.name not in {"backends", "host"})
ANEW: Final = "remove it, then pytest --virtio-baseline=new and the test's node id"
"""The remedy for a file whose test is not known."""

_Written = ConfigValue | tuple[ConfigValue, ...]
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A committed profile, and what its author allows to differ from it."""

    profile: Profile
    allowances: tuple[Allowance, ...] = ()


def compare_with(baseline: Baseline, now: Profile, path: object) -> Comparison:
    """Compare a profile with a baseline.

    :param path: the baseline's file.
    :raise BaselineError: one of its allowances names something that there is not.
    """
    try:
        return compare(baseline.profile, now, baseline.allowances)
    except UnknownNameError as error:
        raise BaselineError(path, f"[[allow]]: {error}", "Correct it by hand: no update touches it.") from error


def dumps(baseline: Baseline) -> str:
    """Return its text, which is the same for equal baselines."""
    return "".join(f"{line}\n" for line in _lines(baseline))


def _lines(baseline: Baseline) -> Iterator[str]:
    yield f"schema = {SCHEMA}  # what pytest-virtio saw negotiated; --virtio-baseline=update renews it"
    for id, device in sorted(baseline.profile.devices.items()):
        yield from _device_lines(f"devices.{_key(id)}", device)
    for allowance in baseline.allowances:
        yield from ("", "[[allow]]", *_allowance_lines(allowance))
    yield from ("", "# What this was seen on: shown with a difference, and never compared.", "[provenance]")
    yield from _provenance_lines(baseline.profile.provenance)


def _device_lines(where: str, device: DeviceProfile) -> Iterator[str]:
    yield from ("", f"[{where}]", f"type = {_value(device.type)}", f"transport = {_value(device.transport)}")
    if device.protocol_features is not None:
        names = sorted(device.protocol_features, key=PROTOCOL_FEATURE_NAMES.bit)
        yield from ("protocol_features = [", *(f"    {_value(name)}," for name in names), "]")
    order = device_type_named(device.type).feature_names.bit
    features = {name: feature_state(device.features[name]) for name in sorted(device.features, key=order)}
    yield from _table_lines(f"{where}.features", features)
    yield from _table_lines(f"{where}.queues", {queue.name: queue.size for queue in device.queues})
    yield from _table_lines(f"{where}.config", dict(sorted(device.config.items())))


def _table_lines(where: str, values: Mapping[str, ConfigValue]) -> Iterator[str]:
    if values:
        yield from ("", f"[{where}]", *_pairs(values))


def _allowance_lines(allowance: Allowance) -> Iterator[str]:
    yield from _pairs({"device": allowance.device, "what": allowance.what})
    if allowance.values:
        yield from _pairs({"values": allowance.values})
    yield from _pairs({"reason": allowance.reason})


def _provenance_lines(provenance: Provenance) -> Iterator[str]:
    """Cut where a program had more to say of its version: nothing is compared by it."""
    told = {name: getattr(provenance, name)[:_VERSION_LIMIT] for name in _PROVENANCE if getattr(provenance, name)}
    yield from _pairs(told)
    backends = {id: version[:_VERSION_LIMIT] for id, version in sorted(provenance.backends.items())}
    yield from _table_lines("provenance.backends", backends)


def _pairs(values: Mapping[str, _Written]) -> Iterator[str]:
    return (f"{_key(key)} = {_value(value)}" for key, value in values.items())


def _key(text: str) -> str:
    return text if _BARE_KEY.fullmatch(text) else _value(text)


def _value(value: _Written) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return str(value) if isinstance(value, int) else f'"{"".join(map(_character, value))}"'


def _character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 1 << 16 else f"\\U{ord(character):08x}"


def loads(data: bytes, path: object, remedy: str = ANEW) -> Baseline:
    """Return the baseline that a text stands for.

    :param path: of the file, for errors.
    :param remedy: the command that makes the file anew.
    :raise BaselineError: it stands for none.
    """
    whole = document(data, Source(path, remedy))
    _check_schema(whole)
    whole.only(("schema", "devices", "allow", "provenance"))
    if "provenance" not in whole.data:
        raise whole.error("the table [provenance] at its end is missing, so it was cut short")
    devices = whole.table("devices")
    return Baseline(
        Profile({id: _device(devices.table(id)) for id in devices.data}, _provenance(whole.table("provenance"))),
        tuple(_allowance(table) for table in whole.tables("allow")),
    )


def _check_schema(whole: Table) -> None:
    schema = whole.get("schema", int)
    if schema > SCHEMA:
        raise BaselineError(
            whole.source.path,
            f"schema {schema} was written by a newer pytest-virtio, and this one reads up to {SCHEMA}",
            "Upgrade pytest-virtio.",
        )
    if schema < 1:
        raise whole.error(f"there is no schema {schema}", "schema")


def _device(table: Table) -> DeviceProfile:
    table.only(("type", "transport", "protocol_features", "features", "queues", "config"))
    names = _named_by(table, table.get("type", str))
    return DeviceProfile(
        type=table.get("type", str),
        transport=table.get("transport", str),
        features=_features(table.table("features"), names),
        queues=_queues(table.table("queues")),
        config={key: _config_value(table.table("config"), key) for key in table.table("config").data},
        protocol_features=_protocol_features(table) if "protocol_features" in table.data else None,
    )


def _named_by(table: Table, type_: str) -> FeatureNames:
    try:
        return device_type_named(type_).feature_names
    except UnknownNameError as error:
        raise table.error(safe(str(error)), "type") from error


def _features(table: Table, names: FeatureNames) -> dict[str, FeatureProfile]:
    features: dict[str, FeatureProfile] = {}
    for key, words in table.values(str).items():
        name = _canonical(table, names, key)
        if name in features:
            raise table.error(f"{name} is there twice", key)
        if words not in FEATURE_STATES:
            raise table.error(f"there is no such state: {safe(repr(words))}. {_one_of(words, FEATURE_STATES)}", key)
        features[name] = FEATURE_STATES[words]
    return features


def _one_of(word: str, known: Collection[str]) -> str:
    return near_misses(word, known) or f"There are: {', '.join(known)}"


def _canonical(table: Table, names: FeatureNames, name: str) -> str:
    """A feature's name of today: a bit that had none when the file was written may have got one."""
    try:
        return names.name(names.bit(name))
    except UnknownNameError as error:
        raise table.error(safe(str(error)), name) from error


def _queues(table: Table) -> tuple[QueueProfile, ...]:
    sizes = table.values(int)
    for name, size in sizes.items():
        if not 0 <= size <= _QUEUE_SIZE_MAX:
            raise table.error(f"a size of 0..{_QUEUE_SIZE_MAX} is expected there, not {safe(str(size))}", name)
    return tuple(QueueProfile(name, size) for name, size in sizes.items())


def _config_value(table: Table, key: str) -> ConfigValue:
    return _one_value(table, key, table.data[key])


def _one_value(table: Table, key: str, value: object) -> ConfigValue:
    if isinstance(value, list):
        return tuple(table.right(key, number, int) for number in value)
    return table.right(key, value, str) if isinstance(value, str) else table.right(key, value, int)


def _protocol_features(table: Table) -> tuple[str, ...]:
    names = (table.right("protocol_features", name, str) for name in table.get("protocol_features", list))
    return tuple(_canonical(table, PROTOCOL_FEATURE_NAMES, name) for name in names)


def _allowance(table: Table) -> Allowance:
    table.only(("device", "what", "values", "reason"))
    values = table.get("values", list) if "values" in table.data else ()
    return Allowance(
        device=table.get("device", str),
        what=table.get("what", str),
        reason=table.get("reason", str),
        values=tuple(_one_value(table, "values", value) for value in values),
    )


def _provenance(table: Table) -> Provenance:
    """Of a newer pytest-virtio it may hold more, which is left alone: nothing is decided by it."""
    told = {name: table.get(name, str) for name in _PROVENANCE if name in table.data}
    return Provenance(**told, backends=table.table("backends").values(str))
