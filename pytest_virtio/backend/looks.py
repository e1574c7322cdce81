"""Whether what a backend offers can be of the device type that it is declared for.

Responsible for the judgement in words; must not know how it was asked. A bit that nobody knows may be of a feature that
came after us, so one alone says nothing.
"""

from __future__ import annotations

from pytest_virtio.backend.programs import KNOWN
from pytest_virtio.declare import vhost_user
from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.devices import DEVICE_TYPES

__all__ = ("wrong_type",)

_TOO_MANY = 2


def wrong_type(features: int, type: DeviceType, program: str = "") -> str:
    """What makes it look like another type's, and what to do; "" if nothing does.

    :param features: what it offers, without what the test masks.
    :param program: its name.
    """
    foreign = type.foreign_bits(features)
    if len(foreign) < _TOO_MANY:
        return ""
    bits = ", ".join(map(str, foreign))
    like = [_declared(other) for other in _nearest(features, program)]
    looks = f"looks like {' or '.join(like)}" if like else "looks like no device type that is known here"
    remedy = "Declare it so" if like else "Look whether it is the daemon that you mean"
    return (
        f"offers feature bits {bits}, of which {type.title} knows none: it {looks}. {remedy}, or have QEMU not told of "
        f"them: mask={{{bits}}}"
    )


def _nearest(features: int, program: str) -> list[DeviceType]:
    """Of the types that have all these features the one that such a program is known to serve, else those that would
    offer the least beside: a network card has nearly all bits that there are."""
    possible = [type for type in DEVICE_TYPES.values() if not type.foreign_bits(features)]
    served = [daemon.type for daemon in KNOWN if daemon.name == program and daemon.type in possible]
    left = [_left(type, features) for type in possible]
    return served or [type for type, count in zip(possible, left, strict=True) if count == min(left)]


def _left(type: DeviceType, features: int) -> int:
    """How many features of its own it has that are not offered."""
    return sum(not features >> bit & 1 for bit in type.features or ())


def _declared(type: DeviceType) -> str:
    """``VhostUserBlk``; of a type that is not declared so its title."""
    name = f"VhostUser{type.name.capitalize()}"
    return name if name in vhost_user.__all__ else type.title
