"""Sets of feature bits that behave as sets of names.

Responsible for comparing what was offered or acknowledged with what a user wrote, by full or short name, enum member
or bit number; it must not know what a missing feature means, nor how to print one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

from pytest_virtio.errors import NotSupportedError, UsageError
from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import FEATURE_BITS, FeatureNames

__all__ = ("Features",)


class Features(AbstractSet[str]):
    """An immutable set of features: up to 128 bits, seen as a set of canonical full names.

    Every operator takes another ``Features`` or any set of full names, short names, aliases, enum members and bit
    numbers, on either side. A name that this device's features don't have raises
    :class:`~pytest_virtio.errors.UnknownNameError`, in ``in`` and ``==`` too: a misspelt feature must never pass.
    Two ``Features``, also of different device types, are compared by canonical names; ``|`` and ``^`` raise for what
    the left one's device can't have.

    Equality looks at the names alone: not at :attr:`offered`, :attr:`texts` or the device. The hash is that of the
    frozenset of canonical names, so it agrees with ``==`` between ``Features`` and with frozensets of canonical names;
    a set of short names may equal a ``Features`` and hash differently.

    :param bits: bit n set means that feature n is in; 0..2**128 - 1.
    :param device: the device type, or the names that go for these bits.
    :param offered: what the driver could choose from, if this is what it acknowledged.
    :param texts: strings of a reply that no table knows.
    :param untold: why the bits are not known, where no safe source tells them: then whoever looks at them gets this as
        a :class:`~pytest_virtio.errors.NotSupportedError`, for an empty set would be a lie.
    :raise UsageError: bits out of range.
    """

    __slots__ = ("_bits", "_known", "_offered", "_texts", "_untold")

    def __init__(
        self,
        bits: int,
        device: DeviceType | FeatureNames,
        *,
        offered: Features | None = None,
        texts: Iterable[str] = (),
        untold: str = "",
    ) -> None:
        if not 0 <= bits < 1 << FEATURE_BITS:
            raise UsageError(f"feature bits must be 0..2**{FEATURE_BITS} - 1. Current value: {bits:#x}.")
        self._bits = int(bits)
        self._known = device.feature_names if isinstance(device, DeviceType) else device
        self._offered = offered
        self._texts = tuple(texts)
        self._untold = untold

    @classmethod
    def of(
        cls, names: Iterable[str | int], device: DeviceType | FeatureNames, *, offered: Features | None = None
    ) -> Features:
        """Build a set from names, members and bit numbers.

        :raise UnknownNameError: one that the device's features don't have.
        """
        empty = cls(0, device, offered=offered)
        return empty._derived(empty._canonical(names))

    @property
    def bits(self) -> int:
        """The features as an integer, 0..2**128 - 1.

        :raise NotSupportedError: no safe source tells them.
        """
        if self._untold:
            raise NotSupportedError(self._untold)
        return self._bits

    @property
    def untold(self) -> str:
        """Why they are not known; ``""`` when they are."""
        return self._untold

    @property
    def names(self) -> tuple[str, ...]:
        """The canonical full names from the lowest bit to the highest; ``"BIT_47"`` for a bit without a name."""
        return tuple(self)

    @property
    def unknown(self) -> tuple[int, ...]:
        """The numbers of the bits that have no name, lowest first."""
        return tuple(bit for bit in self._numbers() if not self._known.is_known(bit))

    @property
    def texts(self) -> tuple[str, ...]:
        """Strings of a reply that no table knows: kept to be shown; not part of the set."""
        return self._texts

    @property
    def offered(self) -> Features | None:
        """What was offered, if this is what a driver acknowledged; ``None`` otherwise."""
        return self._offered

    @property
    def feature_names(self) -> FeatureNames:
        """The names that go for these bits; its ``title`` says of what these are the features."""
        return self._known

    def __contains__(self, feature: object) -> bool:
        return bool(self.bits >> self._known.bit(feature) & 1)

    def __iter__(self) -> Iterator[str]:
        return (self._known.name(bit) for bit in self._numbers())

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __repr__(self) -> str:
        if self._untold:
            return f"Features(untold={self._untold!r})"
        shown = ", ".join([*self, *(repr(text) for text in self._texts)])
        return f"Features({{{shown}}})"

    def __hash__(self) -> int:
        return hash(frozenset(self))

    def __eq__(self, other: object) -> bool:
        return frozenset(self) == self._canonical(other) if isinstance(other, AbstractSet) else NotImplemented

    def __le__(self, other: AbstractSet[Any]) -> bool:
        return frozenset(self) <= self._canonical(other) if isinstance(other, AbstractSet) else NotImplemented

    def __lt__(self, other: AbstractSet[Any]) -> bool:
        return frozenset(self) < self._canonical(other) if isinstance(other, AbstractSet) else NotImplemented

    def __ge__(self, other: AbstractSet[Any]) -> bool:
        return frozenset(self) >= self._canonical(other) if isinstance(other, AbstractSet) else NotImplemented

    def __gt__(self, other: AbstractSet[Any]) -> bool:
        return frozenset(self) > self._canonical(other) if isinstance(other, AbstractSet) else NotImplemented

    def __and__(self, other: AbstractSet[Any]) -> Features:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        return self._derived(frozenset(self) & self._canonical(other))

    def __or__(self, other: AbstractSet[Any]) -> Features:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        return self._derived(frozenset(self) | self._canonical(other))

    def __xor__(self, other: AbstractSet[Any]) -> Features:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        return self._derived(frozenset(self) ^ self._canonical(other))

    def __sub__(self, other: AbstractSet[Any]) -> Features:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        return self._derived(frozenset(self) - self._canonical(other))

    def __rsub__(self, other: AbstractSet[Any]) -> Features:
        if not isinstance(other, AbstractSet):
            return NotImplemented
        return self._derived(self._canonical(other) - frozenset(self))

    # The base class's own versions know nothing of short names.
    __rand__ = __and__
    __ror__ = __or__
    __rxor__ = __xor__

    def isdisjoint(self, other: Iterable[Any]) -> bool:
        """Say whether none of the others is in this set.

        :raise UnknownNameError: one of the others isn't a name of such a feature.
        """
        return frozenset(self).isdisjoint(self._canonical(other))

    def _numbers(self) -> Iterator[int]:
        return (bit for bit in range(self.bits.bit_length()) if self.bits >> bit & 1)

    def _canonical(self, other: Iterable[Any]) -> frozenset[str]:
        """Return the others' canonical names. Those of a ``Features`` are right by construction."""
        if isinstance(other, Features):
            return frozenset(other)
        return frozenset(self._known.name(self._known.bit(which)) for which in other)

    def _derived(self, names: Iterable[str]) -> Features:
        """Return the set of these canonical names, of the same device and with the same offer."""
        bits = sum(1 << self._known.bit(name) for name in names)
        return Features(bits, self._known, offered=self._offered)
