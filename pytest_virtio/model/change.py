"""One difference between two profiles: what changed, to what effect, and who changed it.

Responsible for the words of causes; must not know how a difference is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pytest_virtio.model.allowance import Allowance
from pytest_virtio.model.profile import ConfigValue

__all__ = ("Cause", "Change", "Effect", "Kind")


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
