"""How one profile differs from another, and who changed it.

Responsible for the decision, and for what could not be compared; it must not know where the profiles came from or how
a difference is printed. Provenance is never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from pytest_virtio.model.allowance import Allowance, checked
from pytest_virtio.model.feature_state import feature_state
from pytest_virtio.model.profile import ConfigValue, DeviceProfile, FeatureProfile, Profile, QueueProfile
from pytest_virtio.model.provenance import Provenance

__all__ = ("Cause", "Change", "Comparison", "Effect", "Kind", "Untold", "compare", "differences", "untold")


class Kind(Enum):
    """What it is that changed."""

    DEVICE = "device"
    TYPE = "type"
    TRANSPORT = "transport"
    FEATURE = "feature"
    PROTOCOL_FEATURE = "protocol feature"
    QUEUE_COUNT = "queue count"
    QUEUE_SIZE = "queue size"
    CONFIG = "config field"


class Effect(Enum):
    """What it comes to, the gravest first. Of a feature: whether it is negotiated or, where no driver's answer is told
    on both sides, offered."""

    LOST = "lost"
    GAINED = "gained"
    CHANGED = "changed"


class Cause(Enum):
    """Who changed it, nearest to the backend first, in words that follow the name of what changed."""

    BACKEND_LOST = "the backend offers it no more, so QEMU does not"
    BACKEND_MASKS = "the backend masks it"
    QEMU_LOST = "QEMU offers it no more"
    DRIVER_LOST = "the driver no longer acknowledges it"
    BACKEND_GAINED = "the backend offers it now, so QEMU does"
    BACKEND_UNMASKS = "no backend masks it any more"
    QEMU_GAINED = "QEMU offers it now"
    DRIVER_GAINED = "the driver acknowledges it now"
    BACKEND_ALONE_LOST = "the backend offers it no more, which changed nothing for the driver"
    BACKEND_ALONE_GAINED = "the backend offers it now, which changed nothing for the driver"
    PROTOCOL_LOST = "QEMU and the backend negotiate it no more"
    PROTOCOL_GAINED = "QEMU and the backend negotiate it now"
    ABSENT = "the VM does not have it any more"
    NEW = "the VM did not have it"
    ANOTHER_TYPE = "another type of device has this id, so nothing else of it is compared"
    ANOTHER_TRANSPORT = "the VM gives the device another transport"
    QUEUES = "the device has another number of queues"
    QUEUE_LOST = "the device has no such queue any more"
    QUEUE_GAINED = "the device did not have such a queue"
    NOT_SET_UP = "the driver does not set it up any more"
    SET_UP = "the driver sets it up now"
    QUEUE_SIZE = "the device offers or the driver chooses another size"
    CONFIG_LOST = "the device has no such field any more"
    CONFIG_GAINED = "the device did not have such a field"
    CONFIG = "the device says something else"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference.

    :param device: the device's id.
    :param name: of what changed, as an :class:`Allowance` names it: ``"VIRTIO_NET_F_MRG_RXBUF"``, ``"queues"``,
        ``"queues.rx0"``, ``"config.mtu"``, ``"transport"`` …
    :param before: the value before; a feature's in the words of :func:`feature_state`; None for none.
    :param now: the value now.
    :param allowance: what allows it, if anything does.
    """

    device: str
    kind: Kind
    name: str
    before: ConfigValue | None
    now: ConfigValue | None
    cause: Cause
    effect: Effect = Effect.CHANGED
    allowance: Allowance | None = None

    @property
    def allowed(self) -> bool:
        """Whether an allowance covers it: to be shown, and no failure."""
        return self.allowance is not None

    @property
    def gravity(self) -> int:
        """Its place among changes, 0 for the gravest."""
        return list(Effect).index(self.effect)


@dataclass(frozen=True, slots=True)
class Untold:
    """Something that only one of two profiles tells, so that a difference may hide there.

    :param device: the device's id.
    :param what: in words.
    :param before: whether the profile before tells it; else the one now does.
    :param count: how many things of this sort the one that tells has.
    """

    device: str
    what: str
    before: bool
    count: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a profile differs from another, with what each was seen on.

    :param changes: see :func:`differences`.
    :param untold: see :func:`untold`.
    """

    changes: tuple[Change, ...]
    untold: tuple[Untold, ...]
    before: Provenance
    now: Provenance

    @property
    def differs(self) -> bool:
        """Whether there is a change that nothing allows."""
        return not all(change.allowed for change in self.changes)


def compare(before: Profile, now: Profile, allowed: Sequence[Allowance] = ()) -> Comparison:
    """Compare two profiles.

    :raise UnknownNameError: an allowance names something that there is not.
    """
    return Comparison(differences(before, now, allowed), untold(before, now), before.provenance, now.provenance)


def differences(before: Profile, now: Profile, allowed: Sequence[Allowance] = ()) -> tuple[Change, ...]:
    """Return every difference: devices in their order before, new ones after them; of each the losses first.

    What only one of them tells is none; :func:`untold` says what that was. Of a device of another type nothing but
    this is a difference.

    :param allowed: what may differ: such a change is returned with its allowance.
    :raise UnknownNameError: an allowance names something that there is not.
    """
    allowances = [checked(allowance, before, now) for allowance in allowed]
    return tuple(
        replace(change, allowance=_covering(allowances, change))
        for id in _joined(before.devices, now.devices)
        for change in sorted(
            _device(id, before.devices.get(id), now.devices.get(id)), key=lambda change: change.gravity
        )
    )


def _covering(allowances: Iterable[Allowance], change: Change) -> Allowance | None:
    covering = (each for each in allowances if each.covers(change.device, change.name, change.now))
    return next(covering, None)


def untold(before: Profile, now: Profile) -> tuple[Untold, ...]:
    """Return what of the devices that both have could not be compared, for only one profile tells it."""
    return tuple(
        Untold(id, what, there is not None, there or here or 0)
        for id, device in before.devices.items()
        if id in now.devices and device.type == now.devices[id].type
        for what, there, here in _side_by_side(device, now.devices[id])
        if (there is None) != (here is None)
    )


def _side_by_side(before: DeviceProfile, now: DeviceProfile) -> Iterator[tuple[str, int | None, int | None]]:
    """What a profile may not tell at all; how much of it each of them tells, None for nothing."""
    for what, count in _TOLD.items():
        yield what, count(before), count(now)


_TOLD: Final[Mapping[str, Callable[[DeviceProfile], int | None]]] = {
    "which features the driver acknowledged": lambda device: _count_told(device, "acknowledged"),
    "which features the backend offers": lambda device: _count_told(device, "backend_offers"),
    "queues": lambda device: len(device.queues) or None,
    "configuration space": lambda device: len(device.config) or None,
    "vhost-user protocol features": lambda device: (
        None if device.protocol_features is None else len(device.protocol_features)
    ),
}


def _count_told(device: DeviceProfile, side: str) -> int | None:
    return sum(getattr(feature, side) is not None for feature in device.features.values()) or None


def _joined(before: Iterable[str], now: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*before, *now)))


def _device(id: str, before: DeviceProfile | None, now: DeviceProfile | None) -> Iterator[Change]:
    if before is None or now is None:
        yield _presence(id, before, now)
    elif before.type != now.type:
        yield _simple(id, Kind.TYPE, before.type, now.type, Cause.ANOTHER_TYPE)
    else:
        if before.transport != now.transport:
            yield _simple(id, Kind.TRANSPORT, before.transport, now.transport, Cause.ANOTHER_TRANSPORT)
        yield from _features(id, before, now)
        yield from _protocol_features(id, before, now)
        yield from _queues(id, before.queues, now.queues)
        yield from _config(id, before, now)


def _presence(id: str, before: DeviceProfile | None, now: DeviceProfile | None) -> Change:
    if now is not None:
        return replace(_simple(id, Kind.DEVICE, None, now.type, Cause.NEW), effect=Effect.GAINED)
    was = before.type if before else None
    return replace(_simple(id, Kind.DEVICE, was, None, Cause.ABSENT), effect=Effect.LOST)


def _simple(id: str, kind: Kind, before: str | None, now: str | None, cause: Cause) -> Change:
    return Change(device=id, kind=kind, name=kind.value, before=before, now=now, cause=cause)


def _features(id: str, before: DeviceProfile, now: DeviceProfile) -> Iterator[Change]:
    absent_before, absent_now = _absent(before), _absent(now)
    for name in _joined(before.features, now.features):
        change = _feature(id, name, before.features.get(name, absent_before), now.features.get(name, absent_now))
        if change is not None:
            yield change


def _absent(device: DeviceProfile) -> FeatureProfile:
    """What it means that a profile does not have a feature: that each side which tells of others is without it."""
    return FeatureProfile(
        False,
        None if _count_told(device, "acknowledged") is None else False,
        None if _count_told(device, "backend_offers") is None else False,
    )


def _feature(id: str, name: str, before: FeatureProfile, now: FeatureProfile) -> Change | None:
    was, is_ = _comparable(before, now), _comparable(now, before)
    if was == is_:
        return None
    return Change(
        device=id,
        kind=Kind.FEATURE,
        name=name,
        before=feature_state(before),
        now=feature_state(now),
        cause=_feature_cause(was, is_) or _offer_cause(before, now),
        effect=_effect(was, is_),
    )


def _comparable(feature: FeatureProfile, other: FeatureProfile) -> FeatureProfile:
    """Without what the other does not tell."""
    return FeatureProfile(
        feature.offered,
        None if other.acknowledged is None else feature.acknowledged,
        None if other.backend_offers is None else feature.backend_offers,
    )


def _effect(before: FeatureProfile, now: FeatureProfile) -> Effect:
    # Where no answer of a driver can be compared, what is offered counts.
    in_use, still = (feature.offered and feature.acknowledged is not False for feature in (before, now))
    if in_use == still:
        return Effect.CHANGED
    return Effect.LOST if in_use else Effect.GAINED


def _feature_cause(before: FeatureProfile, now: FeatureProfile) -> Cause | None:
    """Who changed a feature that is offered before and now, or neither; None if its offer changed."""
    if before.offered != now.offered:
        return None
    if before.acknowledged != now.acknowledged:
        return Cause.DRIVER_LOST if before.acknowledged else Cause.DRIVER_GAINED
    return Cause.BACKEND_ALONE_LOST if before.backend_offers else Cause.BACKEND_ALONE_GAINED


_OFFER_LOST: Final = {True: Cause.BACKEND_LOST, None: Cause.BACKEND_MASKS, False: Cause.QEMU_LOST}
_OFFER_GAINED: Final = {True: Cause.BACKEND_GAINED, None: Cause.BACKEND_UNMASKS, False: Cause.QEMU_GAINED}


def _offer_cause(before: FeatureProfile, now: FeatureProfile) -> Cause:
    """Who changed the offer: the backend, if it lacks the feature where it is not offered and did not where it is."""
    offering, without = (before, now) if before.offered else (now, before)
    of_backend = offering.backend_offers if without.backend_offers is False else False
    return (_OFFER_LOST if before.offered else _OFFER_GAINED)[of_backend]


def _protocol_features(id: str, before: DeviceProfile, now: DeviceProfile) -> Iterator[Change]:
    if before.protocol_features is None or now.protocol_features is None:
        return
    lost = (name for name in before.protocol_features if name not in now.protocol_features)
    gained = (name for name in now.protocol_features if name not in before.protocol_features)
    yield from (_protocol_feature(id, name, Effect.LOST) for name in lost)
    yield from (_protocol_feature(id, name, Effect.GAINED) for name in gained)


def _protocol_feature(id: str, name: str, effect: Effect) -> Change:
    lost = effect is Effect.LOST
    return Change(
        device=id,
        kind=Kind.PROTOCOL_FEATURE,
        name=name,
        before="negotiated" if lost else None,
        now=None if lost else "negotiated",
        cause=Cause.PROTOCOL_LOST if lost else Cause.PROTOCOL_GAINED,
        effect=effect,
    )


def _queues(id: str, before: Sequence[QueueProfile], now: Sequence[QueueProfile]) -> Iterator[Change]:
    if not before or not now:
        return
    counts = len(before), len(now)
    sizes = {queue.name: queue.size for queue in before}, {queue.name: queue.size for queue in now}
    names: Iterable[str] = _joined(*sizes)
    if counts[0] != counts[1]:
        yield Change(
            device=id, kind=Kind.QUEUE_COUNT, name="queues", before=counts[0], now=counts[1], cause=Cause.QUEUES
        )
        # That some have come or gone is said with their number.
        names = (name for name in names if name in sizes[0] and name in sizes[1])
    for name in names:
        size, new_size = sizes[0].get(name), sizes[1].get(name)
        if size != new_size:
            yield Change(
                device=id,
                kind=Kind.QUEUE_SIZE,
                name=f"queues.{name}",
                before=size,
                now=new_size,
                cause=_size_cause(size, new_size),
            )


def _size_cause(before: int | None, now: int | None) -> Cause:
    if before is None or now is None:
        return Cause.QUEUE_GAINED if before is None else Cause.QUEUE_LOST
    if not before or not now:
        return Cause.NOT_SET_UP if before else Cause.SET_UP
    return Cause.QUEUE_SIZE


def _config(id: str, before: DeviceProfile, now: DeviceProfile) -> Iterator[Change]:
    fields = _joined(before.config, now.config) if before.config and now.config else ()
    for field in fields:
        value, new_value = before.config.get(field), now.config.get(field)
        if value != new_value:
            cause = Cause.CONFIG_GAINED if value is None else Cause.CONFIG_LOST if new_value is None else Cause.CONFIG
            yield Change(device=id, kind=Kind.CONFIG, name=f"config.{field}", before=value, now=new_value, cause=cause)
