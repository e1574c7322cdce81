"""The models of a VM as a JSON document, and back: the schema that docs/artifacts.md describes.

Responsible for the document's shape and for refusing what isn't one; must not know files. Field names are the models'
own. Reading passes over keys that it doesn't know, and what a feature is called that it doesn't know is kept as text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cache, lru_cache
from importlib.metadata import version
from math import isfinite
from typing import Any, Final, NoReturn, TypeVar

from cattrs import Converter, transform_error
from cattrs.cols import namedtuple_dict_structure_factory, namedtuple_dict_unstructure_factory
from cattrs.errors import BaseValidationError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.v import format_exception

from pytest_virtio.errors import UsageError
from pytest_virtio.model.features import Features
from pytest_virtio.model.findings import Findings
from pytest_virtio.model.history import History
from pytest_virtio.model.ring import RingElement
from pytest_virtio.model.status import VhostStatus, VirtioStatus
from pytest_virtio.model.wire import WireMessage
from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.features import FEATURE_BITS, FeatureNames
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES

__all__ = (
    "SCHEMA",
    "models_from_json",
    "models_to_json",
    "object_from_json",
    "transcript_from_json",
    "wire_messages_from_json",
)

SCHEMA: Final = 1
"""Goes up when a reader of the version before would misread a document; a key more does not do that."""
MOST_QUEUES: Final = 1 << 16
_FAULTS_SHOWN: Final = 3

T = TypeVar("T")


def models_to_json(findings: Findings, **more: str) -> str:
    """What was found of a VM as a document, indented, of ASCII only.

    :param more: further members of it, which come first.
    """
    document = {"schema": SCHEMA, "plugin": version("pytest-virtio"), **more, **_writer().unstructure(findings)}
    return f"{json.dumps(document, indent=1)}\n"


def models_from_json(text: str) -> Findings:
    """What :func:`models_to_json` made a document of.

    :raises UsageError: when it is no such document, or one of a newer pytest-virtio: what is wrong, and where.
    """
    return _structured(object_from_json(text), Findings)


def wire_messages_from_json(lines: Iterable[str]) -> Iterator[WireMessage]:
    """Yield the messages of a wire's log, a line each.

    :raises UsageError: when a line is none; those before it have been yielded.
    """
    return (_structured(_parsed(line), WireMessage) for line in lines)


def transcript_from_json(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the entries of a QMP transcript, without its first line.

    :raises UsageError: when it is none, or a newer pytest-virtio's; or at a line that is no entry.
    """
    object_from_json(lines[0] if lines else "")
    for line in lines[1:]:
        entry = _parsed(line)
        if not isinstance(entry, dict):
            raise UsageError("a line of it is no JSON object")
        yield entry


def object_from_json(text: str) -> dict[str, Any]:
    """A JSON object with a ``schema`` that we know.

    :raises UsageError: when it is none.
    """
    document = _parsed(text)
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(document, dict) or type(schema) is not int or schema < 1:
        raise UsageError("this is none of pytest-virtio's documents: it lacks a number as its 'schema'")
    if schema > SCHEMA:
        by = f" ({document['plugin']})" if isinstance(document.get("plugin"), str) else ""
        raise UsageError(
            f"it was written by a newer pytest-virtio{by}: its schema is {schema}, and this one knows those up to "
            f"{SCHEMA}. pip install --upgrade pytest-virtio"
        )
    return document


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"it is no JSON, or not all of it: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def _structured(document: object, kind: type[T]) -> T:
    try:
        return _reader(0).structure(document, kind)
    except (BaseValidationError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # Beside its own errors, cattrs lets those of what isn't even a mapping or a list through.
        faults = transform_error(error, path="", format_exception=_fault)
        more = f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
        raise UsageError(f"its content is not as it should be: {'; '.join(faults[:_FAULTS_SHOWN])}{more}") from error


def _fault(error: BaseException, kind: type | None) -> str:
    return str(error) if type(error) is ValueError else format_exception(error, kind)


@cache
def _writer() -> Converter:
    converter = Converter(unstruct_collection_overrides={AbstractSet: sorted, frozenset: sorted})
    converter.register_unstructure_hook(Features, _plain_features)
    converter.register_unstructure_hook(History, make_dict_unstructure_fn(History, converter))
    converter.register_unstructure_hook_factory(
        lambda kind: kind is RingElement, lambda kind: namedtuple_dict_unstructure_factory(kind, converter)
    )
    return converter


def _plain_features(features: Features) -> dict[str, object]:
    names = [] if features.untold else list(features.names)
    return {"names": names, "untold": features.untold, "texts": list(features.texts)}


# Bounded, for the id of an unknown type comes out of a document.
@lru_cache(maxsize=256)
def _reader(device_id: int) -> Converter:
    """A converter for what is of a device of this type: what its features are called depends on it."""
    device = device_type(device_id)
    converter = Converter()
    for kind, check in _CHECKS.items():
        converter.register_structure_hook(kind, check)
    converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)
    converter.register_structure_hook(Features, _features_of(device.feature_names))
    converter.register_structure_hook(History, make_dict_structure_fn(History, converter))
    converter.register_structure_hook(VhostStatus, _vhost_of(converter, device))
    converter.register_structure_hook(VirtioStatus, _status if device_id == 0 else _status_of(converter))
    converter.register_structure_hook_factory(
        lambda kind: kind is RingElement, lambda kind: namedtuple_dict_structure_factory(kind, converter)
    )
    return converter


def _status(document: Any, _: object) -> VirtioStatus:
    """By the converter of the device's own type."""
    return _reader(max(1, _natural(document["device_id"], int))).structure(document, VirtioStatus)


def _status_of(converter: Converter) -> Callable[[Any, Any], VirtioStatus]:
    structure = make_dict_structure_fn(VirtioStatus, converter)

    def status(document: Any, kind: Any) -> VirtioStatus:
        found = structure(document, kind)
        if (found.num_vqs or 0) > MOST_QUEUES:
            # Queues have indices of 16 bits; of a number beyond, somebody would name them all.
            raise ValueError(f"num_vqs: at most {MOST_QUEUES} is expected, not {found.num_vqs}")
        return replace(found, guest_features=_offered(found.guest_features, found.host_features))

    return status


def _vhost_of(converter: Converter, device: DeviceType) -> Callable[[Any, Any], VhostStatus]:
    agreed = override(struct_hook=_features_of(device.vhost_feature_names))
    protocol = _features_of(PROTOCOL_FEATURE_NAMES)
    structure = make_dict_structure_fn(
        VhostStatus,
        converter,
        features=agreed,
        acked_features=agreed,
        backend_features=override(struct_hook=_or_none(_features_of(device.vhost_feature_names))),
        protocol_features=override(struct_hook=_or_none(protocol)),
    )

    def vhost(document: Any, kind: Any) -> VhostStatus:
        found = structure(document, kind)
        return replace(found, acked_features=_offered(found.acked_features, found.features))

    return vhost


def _offered(taken: Features, offered: Features) -> Features:
    if taken.untold:
        return taken
    return Features(taken.bits, taken.feature_names, offered=offered, texts=taken.texts)


def _or_none(structure: Callable[[Any, Any], Features]) -> Callable[[Any, Any], Features | None]:
    return lambda value, kind: None if value is None else structure(value, kind)


def _features_of(table: FeatureNames) -> Callable[[Any, Any], Features]:
    def features(document: Any, _: object) -> Features:
        names = [_text(name, str) for name in document["names"]]
        bits, unknown = 0, []
        for name in names:
            bit = _bit(table, name)
            if bit is None:
                unknown.append(name)
            else:
                bits |= 1 << bit
        texts = [_text(text, str) for text in document.get("texts", ())]
        return Features(bits, table, texts=(*texts, *unknown), untold=_text(document.get("untold", ""), str))

    return features


def _bit(table: FeatureNames, name: str) -> int | None:
    try:
        return table.bit(name)
    except UsageError:
        return None


def _natural(value: Any, _: object) -> int:
    """A number of JSON's as it is, or as the key of an object: 128 bits and a sign are more than any field has."""
    number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < FEATURE_BITS else value
    if type(number) is not int or abs(number) >> FEATURE_BITS:
        raise ValueError(f"a whole number is expected, not {value!r:.100}")
    return number


def _number(value: Any, _: object) -> float:
    if type(value) not in (int, float) or not isfinite(value):
        raise ValueError(f"a finite number is expected, not {value!r:.100}")
    return float(value)


def _text(value: Any, _: object) -> str:
    if type(value) is not str:
        raise ValueError(f"a text is expected, not {value!r:.100}")
    return value


def _truth(value: Any, _: object) -> bool:
    if type(value) is not bool:
        raise ValueError(f"true or false is expected, not {value!r:.100}")
    return value


_CHECKS: Final[dict[type, Callable[[Any, Any], object]]] = {int: _natural, float: _number, str: _text, bool: _truth}
"""cattrs itself makes an int of "3" and of 3.7, and a str of anything."""
