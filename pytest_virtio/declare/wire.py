"""The witness between QEMU and a vhost-user backend, and what it is to do to messages on their way.

Responsible for saying it and for refusing what can't be meant; must not know bytes or sockets.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pytest_virtio.errors import UnknownNameError, UsageError
from pytest_virtio.spec.vhost_user_messages import BackendRequest, Request

__all__ = ("Cut", "Delay", "Drop", "Duplicate", "Fault", "Mask", "Rewrite", "Wire", "check_request", "wire_of")


def check_request(pattern: str) -> None:
    """Check that there is such a request; ``"request 77"`` is one that has no name.

    :raises UnknownNameError: naming near misses.
    """
    known = [request.name for request in (*Request, *BackendRequest)]
    if not fnmatch.filter(known, pattern) and not pattern.startswith("request "):
        raise UnknownNameError("vhost-user request", pattern, known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that happens to a message on its way.

    :param message: the request's name, ``"SET_VRING_ENABLE"``, or a pattern, ``"SET_VRING_*"``.
    :param reply: whether the answers to it are meant, and not the requests.
    :param nth: only the so many-th of them, from 1; all by default.
    :raises UsageError: for a number that is none.
    :raises UnknownNameError: when there is no such request.
    """

    message: str = field(kw_only=False)
    reply: bool = False
    nth: int | None = None

    def __post_init__(self) -> None:
        check_request(self.message)
        if self.nth is not None and (not isinstance(self.nth, int) or self.nth < 1):
            raise UsageError(f"{type(self).__name__}({self.message!r}, nth={self.nth!r}): a number from 1 is expected")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop(Fault):
    """It never arrives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate(Fault):
    """It arrives twice; the second time without its file descriptors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(Fault):
    """The connection ends before it arrives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay(Fault):
    """It arrives ``seconds`` later, and so does all that follows it."""

    seconds: float = field(kw_only=False)

    def __post_init__(self) -> None:
        Fault.__post_init__(self)
        if not isinstance(self.seconds, int | float) or not 0 <= self.seconds <= _LONGEST_DELAY:
            raise UsageError(f"Delay({self.message!r}, {self.seconds!r}): 0 to {_LONGEST_DELAY} seconds are expected")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite(Fault):
    """It arrives with another payload: ``change`` gets the payload's bytes and gives the new ones."""

    change: Callable[[bytes], bytes] = field(kw_only=False)

    def __post_init__(self) -> None:
        Fault.__post_init__(self)
        if not callable(self.change):
            raise UsageError(f"Rewrite({self.message!r}, {self.change!r}): a function of the payload is expected")


_LONGEST_DELAY = 3600

Mask: TypeAlias = Collection[str | int]


@dataclass(frozen=True, slots=True)
class Wire:
    """A witness on the wire.

    :param mask: features that QEMU is not told of, by name, member or number: the device's, and by name or member the
        protocol's (``VHOST_USER_PROTOCOL_F_…``).
    :param faults: what happens to messages; of several that are meant, the first.
    :raises UsageError: for what is neither.
    """

    mask: Mask = ()
    faults: Sequence[Fault] = ()

    def __post_init__(self) -> None:
        _check_mask(self.mask, f"Wire(mask={self.mask!r})")
        if not isinstance(self.faults, Sequence) or not all(isinstance(fault, Fault) for fault in self.faults):
            raise UsageError(f"Wire(faults={self.faults!r}): a sequence is expected: (Drop('GET_CONFIG'),)")

    @property
    def masked(self) -> frozenset[str | int]:
        """The mask; a name alone is one."""
        return frozenset([self.mask] if isinstance(self.mask, str) else self.mask)


def _check_mask(mask: object, said: str) -> None:
    names = mask if isinstance(mask, Collection) else [None]
    if any(not isinstance(name, str | int) or isinstance(name, bool) for name in names):
        raise UsageError(f"{said}: a list or set of features is expected, each a name, a member or a bit number")


def wire_of(wire: bool | Wire, mask: Mask = ()) -> Wire | None:
    """What ``wire=`` and ``mask=`` of a declaration say; a mask needs a witness, which is then there by itself.

    :raises UsageError: for what is neither.
    """
    if not isinstance(wire, bool | Wire):
        raise UsageError(f"wire={wire!r}: True, False or Wire(...) is expected")
    _check_mask(mask, f"mask={mask!r}")
    if isinstance(wire, Wire):
        return Wire(Wire(mask).masked | wire.masked, wire.faults)
    return Wire(mask) if wire or mask else None
