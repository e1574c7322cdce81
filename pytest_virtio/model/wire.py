"""What went over the wire between QEMU and a vhost-user backend: messages, and what the backend was told by them.

Responsible for the fields and for what follows from one message after another; it must not know bytes, sockets, or how
anything is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pytest_virtio.spec.vhost_user import VhostFeature
from pytest_virtio.spec.vhost_user_messages import NO_FD, VRING_INDEX_MASK

__all__ = ("Fate", "MemoryRegion", "Receiver", "ToldBackend", "ToldQueue", "WireMessage")

Receiver = Literal["backend", "QEMU"]
Fate = Literal["passed", "masked", "rewritten", "delayed", "dropped", "duplicated", "cut"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WireMessage:
    """One message, as its receiver got it.

    :param seconds: since the witness was made, which is before the backend is ready.
    :param connection: of QEMU to the backend: 0, and one more whenever QEMU has connected again.
    :param to: who received it.
    :param name: of the request, for its reply too: ``"GET_FEATURES"``; ``"request 77"`` of one that is not known.
    :param reply: whether it answers a request.
    :param need_reply: whether an acknowledgement is asked for, by VHOST_USER_PROTOCOL_F_REPLY_ACK.
    :param by_backend: whether it is of the connection on which the backend asks.
    :param length: bytes of payload.
    :param fields: the payload by the names of the specification; lists are of such mappings, bytes are hexadecimal.
    :param fds: how many file descriptors came with it.
    :param fate: what the witness did to it.
    """

    seconds: float
    connection: int = 0
    to: Receiver
    name: str
    reply: bool = False
    need_reply: bool = False
    by_backend: bool = False
    length: int = 0
    fields: Mapping[str, object] = field(default_factory=dict)
    fds: int = 0
    fate: Fate = "passed"

    def number(self, field: str = "u64") -> int | None:
        """A field of it that is a number; None when it has no such field."""
        value = self.fields.get(field)
        return value if isinstance(value, int) else None


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """A piece of guest RAM as the backend was told of it: ``size`` bytes at guest-physical ``address``, which QEMU has
    at ``user_address``."""

    address: int
    size: int
    user_address: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldQueue:
    """A queue as the backend was told of it; None is what it was not told.

    :param descriptor: address of the descriptor area, as QEMU's memory has it (I/O virtual behind an IOMMU).
    :param base: where the backend was told to begin; of a packed ring both positions with their wrap counters.
    :param enabled: by SET_VRING_ENABLE, or by features without VHOST_USER_F_PROTOCOL_FEATURES.
    :param kick: whether it has a descriptor to be notified by.
    :param call: whether it has one to notify by.
    :param started: whether it was given something to be notified by and was not stopped by GET_VRING_BASE since.
    """

    num: int | None = None
    descriptor: int | None = None
    available: int | None = None
    used: int | None = None
    base: int | None = None
    enabled: bool | None = None
    kick: bool | None = None
    call: bool | None = None
    started: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldBackend:
    """What QEMU and a backend told each other so far; None is what was not told.

    :param features: bits that the backend offers, as QEMU got them.
    :param acked_features: bits that QEMU set, as the backend got them; likewise of the protocol's own.
    :param queues: by index.
    :param regions: the guest's RAM, or those pieces of it.
    :param refused: names of requests that the backend answered with an error.
    """

    features: int | None = None
    acked_features: int | None = None
    offered_protocol_features: int | None = None
    protocol_features: int | None = None
    max_queues: int | None = None
    queues: Mapping[int, ToldQueue] = field(default_factory=dict)
    regions: tuple[MemoryRegion, ...] = ()
    refused: tuple[str, ...] = ()

    def after(self, message: WireMessage) -> ToldBackend:
        """What is told with this message too."""
        if message.by_backend or message.fate in ("dropped", "cut"):
            return self
        if message.reply:
            return self._answered(message)
        change = _REQUESTS.get(message.name)
        return self if change is None else change(self, message)

    def guest_address(self, user_address: int) -> int | None:
        """The guest-physical address of an address in QEMU's memory; None outside of the regions."""
        for region in self.regions:
            if 0 <= user_address - region.user_address < region.size:
                return region.address + user_address - region.user_address
        return None

    def _answered(self, message: WireMessage) -> ToldBackend:
        answer = _ANSWERS.get(message.name)
        if answer is not None:
            return answer(self, message)
        if (message.number() or 0) & _FAILED.get(message.name, _ANY) and message.name.startswith(_COMMANDS):
            return replace(self, refused=(*self.refused, message.name)[-_REFUSALS:])
        return self

    def _queue(self, message: WireMessage, **changes: Any) -> ToldBackend:
        index = message.number("index")
        if index is None:
            u64 = message.number()
            index = None if u64 is None else u64 & VRING_INDEX_MASK
        if index is None or index >= _MOST_QUEUES:
            return self
        queue = replace(self.queues.get(index, ToldQueue()), **changes)
        return replace(self, queues={**self.queues, index: queue})


_REFUSALS = 16
_MOST_QUEUES = 1024
"""QEMU's devices have no more (VIRTIO_QUEUE_MAX); a message that speaks of others tells nothing."""
_MOST_REGIONS = 512
"""QEMU tells of no more (VHOST_USER_MAX_RAM_SLOTS)."""
_ANY = ~0
_FAILED: Mapping[str, int] = {
    # The other bits say something else ("VHOST_USER_SET_DEVICE_STATE_FD").
    "SET_DEVICE_STATE_FD": 0xFF,
    # libvhost-user answers with the size that it got, and nobody reads it.
    "SET_LOG_BASE": 0,
}
"""The bits of an answer that say of an error; of most requests all of them."""
_COMMANDS = ("SET_", "ADD_", "REM_", "RESET_", "SEND_", "NET_")
Change = Callable[[ToldBackend, WireMessage], ToldBackend]


def _number(name: str) -> Change:
    def change(told: ToldBackend, message: WireMessage) -> ToldBackend:
        values: dict[str, Any] = {name: message.number()}
        return replace(told, **values)

    return change


def _state(name: str) -> Change:
    return lambda told, message: told._queue(message, **{name: message.number("num")})


def _kick(told: ToldBackend, message: WireMessage) -> ToldBackend:
    # "If VHOST_USER_F_PROTOCOL_FEATURES has not been negotiated, the ring starts directly in the enabled state."
    bare = told.acked_features is not None and not told.acked_features >> VhostFeature.PROTOCOL_FEATURES & 1
    enabled = {"enabled": True} if bare else {}
    return told._queue(message, kick=_has_fd(message), started=True, **enabled)


def _call(told: ToldBackend, message: WireMessage) -> ToldBackend:
    return told._queue(message, call=_has_fd(message))


def _has_fd(message: WireMessage) -> bool:
    return not (message.number() or 0) & NO_FD


def _address(told: ToldBackend, message: WireMessage) -> ToldBackend:
    return told._queue(message, **{name: message.number(name) for name in ("descriptor", "available", "used")})


def _enable(told: ToldBackend, message: WireMessage) -> ToldBackend:
    return told._queue(message, enabled=bool(message.number("num")))


def _stop(told: ToldBackend, message: WireMessage) -> ToldBackend:
    return told._queue(message, started=False)


def _reset(told: ToldBackend, message: WireMessage) -> ToldBackend:
    return replace(told, queues={})


def _all_memory(told: ToldBackend, message: WireMessage) -> ToldBackend:
    return replace(told, regions=_regions(message))


def _more_memory(told: ToldBackend, message: WireMessage) -> ToldBackend:
    return replace(told, regions=(*told.regions, *_regions(message))[-_MOST_REGIONS:])


def _less_memory(told: ToldBackend, message: WireMessage) -> ToldBackend:
    gone = {(region.address, region.size) for region in _regions(message)}
    return replace(told, regions=tuple(r for r in told.regions if (r.address, r.size) not in gone))


def _regions(message: WireMessage) -> tuple[MemoryRegion, ...]:
    regions = message.fields.get("regions")
    return tuple(
        MemoryRegion(region["guest_address"], region["length"], region["user_address"])
        for region in (regions if isinstance(regions, tuple) else ())
    )


_REQUESTS: Mapping[str, Change] = {
    "SET_FEATURES": _number("acked_features"),
    "SET_PROTOCOL_FEATURES": _number("protocol_features"),
    "SET_VRING_NUM": _state("num"),
    "SET_VRING_BASE": _state("base"),
    "SET_VRING_ADDR": _address,
    "SET_VRING_ENABLE": _enable,
    "SET_VRING_KICK": _kick,
    "SET_VRING_CALL": _call,
    "GET_VRING_BASE": _stop,
    "RESET_OWNER": _reset,
    "RESET_DEVICE": _reset,
    "SET_MEM_TABLE": _all_memory,
    "ADD_MEM_REG": _more_memory,
    "REM_MEM_REG": _less_memory,
}
_ANSWERS: Mapping[str, Change] = {
    "GET_FEATURES": _number("features"),
    "GET_PROTOCOL_FEATURES": _number("offered_protocol_features"),
    "GET_QUEUE_NUM": _number("max_queues"),
}
