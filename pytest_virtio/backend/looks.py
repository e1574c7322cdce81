"""Whether what a backend offers can be of the device type that it is declared for.

Responsible for the judgement in words; must not know how it was asked. A bit that nobody knows may be of a feature that
came after us, so one alone says nothing.
"""

from __future__ import annotations

from pytest_virtio.declare import vhost_user
from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.devices import DEVICE_TYPES

__all__ = ("wrong_type",)

_TOO_MANY = 2


def wrong_type(features: int, type: DeviceType) -> str:
    """What makes it look like another type's, and what to do; "" if nothing does.

    :param features: what it offers, without what the test masks.
    """
    foreign = type.foreign_bits(features)
    if len(foreign) < _TOO_MANY:
        return ""
    bits = ", ".join(map(str, foreign))
    like = [_declared(other) for other in DEVICE_TYPES.values() if not other.foreign_bits(features)]
    looks = f"looks like {' or '.join(like)}" if like else "looks like no device type that is known here"
    remedy = "Declare it so" if like else "Look whether it is the daemon that you mean"
    return (
        f"offers feature bits {bits}, of which {type.title} knows none: it {looks}. {remedy}, or have QEMU not told of "
        f"them: mask={{{bits}}}"
    )


def _declared(type: DeviceType) -> str:
    """``VhostUserBlk``; of a type that is not declared so its title."""
    name = f"VhostUser{type.name.capitalize()}"
    return name if name in vhost_user.__all__ else type.title
