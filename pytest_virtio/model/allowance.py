"""What may differ from a baseline, because its author said so.

Responsible for what an allowance can name, and for refusing one that names nothing; it must not know what differs, nor
where allowances are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from string import digits
from typing import Final

from pytest_virtio.errors import UnknownNameError
from pytest_virtio.model.feature_state import FEATURE_STATES
from pytest_virtio.model.profile import ConfigValue, DeviceProfile, Profile
from pytest_virtio.spec.devices import device_type_named
from pytest_virtio.spec.devices.config import CONFIGS
from pytest_virtio.spec.features import FEATURE_BITS
from pytest_virtio.spec.vhost_user import PROTOCOL_FEATURE_NAMES

__all__ = ("Allowance", "checked")

_WHOLE: Final = ("device", "type", "transport", "queues", "config")
_PROTOCOL: Final = "VHOST_USER_PROTOCOL_F_"
_ALL_FEATURES: Final = (1 << FEATURE_BITS) - 1
# As many as show every name that is no number in a row.
_SOME_QUEUES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """One thing of one device that may differ.

    :param device: its id.
    :param what: a feature, or a vhost-user protocol feature by its full name; ``"config.mtu"``, or ``"config"`` for
        all fields; ``"queues.rx0"`` for its size, or ``"queues"`` for how many there are and all sizes; ``"type"``,
        ``"transport"``; ``"device"`` for whether it is there.
    :param reason: why, for whoever reads the difference.
    :param values: it may become one of these only, in the words of a baseline; empty: anything.
    """

    device: str
    what: str
    reason: str
    values: tuple[ConfigValue, ...] = ()

    def covers(self, device: str, name: str, now: ConfigValue | None) -> bool:
        """Say whether a thing may be so now. Features go by canonical names, which :func:`checked` sees to."""
        named = name == self.what or name.startswith(f"{self.what}.")
        return device == self.device and named and (not self.values or now in self.values)


def checked(allowance: Allowance, before: Profile, now: Profile) -> Allowance:
    """Return it with the canonical name of what it allows.

    :raise UnknownNameError: it names a device, feature, field, queue or state that there is not; naming near ones.
    """
    found = [profile.devices[allowance.device] for profile in (before, now) if allowance.device in profile.devices]
    if not found:
        raise UnknownNameError("device in an allowance", allowance.device, {**before.devices, **now.devices})
    what = _canonical(allowance.what, found)
    if what.startswith(("VIRTIO_", "BIT_")):
        for value in allowance.values:
            _known("state of a feature in an allowance", str(value), FEATURE_STATES)
    return replace(allowance, what=what)


def _canonical(what: str, found: Iterable[DeviceProfile]) -> str:
    if what.startswith("config."):
        return _known("field in an allowance", what, _fields(found))
    if what.startswith("queues."):
        return _queue(what, found)
    if what.startswith(_PROTOCOL):
        return PROTOCOL_FEATURE_NAMES.name(PROTOCOL_FEATURE_NAMES.bit(what))
    if what.isupper():
        names = device_type_named(next(iter(found)).type).feature_names
        return names.name(names.bit(what))
    return _known("name in an allowance", what, _WHOLE)


def _known(kind: str, name: str, known: Iterable[str]) -> str:
    names = tuple(known)
    if name not in names:
        raise UnknownNameError(kind, name, names)
    return name


def _fields(found: Iterable[DeviceProfile]) -> Iterator[str]:
    """Those that are there, and those that such a device can have: an allowance outlives the QEMU that needed it."""
    for device in found:
        config = CONFIGS.get(device_type_named(device.type).id)
        possible = config.layout.names() if config else ()
        yield from (f"config.{field.rstrip('_')}" for field in (*device.config, *possible))


def _queue(what: str, found: Iterable[DeviceProfile]) -> str:
    names = tuple(_queues(found))
    numbered = {name.rstrip(digits) for name in names if name[-1] in digits}
    if what[-1] in digits and what.rstrip(digits) in numbered:
        return what
    return _known("queue in an allowance", what, names)


def _queues(found: Iterable[DeviceProfile]) -> Iterator[str]:
    """Those that are there, and those that such a device can have, of a row of numbered ones the first few."""
    for device in found:
        possible = device_type_named(device.type).queue_names(_SOME_QUEUES, _ALL_FEATURES)
        names = (*(queue.name for queue in device.queues), *(name for name, *_ in possible))
        yield from (f"queues.{name}" for name in names)
