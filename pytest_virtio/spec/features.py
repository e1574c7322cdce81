"""Feature bits: the base of the enums that number them, the transport's own bits, and the lookup from name to bit.

Responsible for what a feature is called (virtio 1.3 sections 2.2 and 6); it must not know any one device type, nor
what was offered or acknowledged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple

from pytest_virtio.errors import UnknownNameError, UsageError

__all__ = ("DEVICE_BITS", "FEATURE_BITS", "Feature", "FeatureNames", "Requirement", "TransportFeature")

FEATURE_BITS: Final = 128
"""How many feature bits there can be: 128 since virtio 1.2 (section 2.2); QEMU has held as many since 10.2."""
DEVICE_BITS: Final = (range(24), range(50, FEATURE_BITS))
"""Those that mean something else with each device type (virtio 1.3 section 2.2)."""

_PREFIX = re.compile(r"(VIRTIO_)?([A-Z0-9]+_F_)")
_LEFT_OUT = ("", "VIRTIO_", "VHOST_USER_", "VHOST_")
"""Of full names, what people leave out: ``BLK_F_SEG_MAX``, ``PROTOCOL_F_MQ``."""
_UNNAMED = re.compile(r"BIT_([0-9]{1,3})")


class Feature(IntEnum):
    """Base of enums of feature bit numbers: members are short names, values are bit numbers 0..127.

    Class keywords: ``prefix`` makes the full name of a member (``"VIRTIO_NET_F_"``), ``own_prefixes`` is for members
    whose name begins in another way. A second member of the same number is an alias.
    """

    _full_prefix: ClassVar[str]
    _own_prefixes: ClassVar[Mapping[str, str]]

    def __init_subclass__(cls, *, prefix: str, own_prefixes: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init_subclass__()
        cls._full_prefix, cls._own_prefixes = prefix, own_prefixes

    @property
    def full_name(self) -> str:
        """The name in the specification, or in Linux's header where that has none: ``"VIRTIO_NET_F_MRG_RXBUF"``."""
        return self._own_prefixes.get(self.name, self._full_prefix) + self.name

    @classmethod
    def spellings(cls) -> Iterator[tuple[str, Feature]]:
        """Yield every accepted spelling with its member: short and full, of canonical names and aliases."""
        for name, member in cls.__members__.items():
            yield cls._own_prefixes.get(name, cls._full_prefix) + name, member
            yield cls._full_prefix + name, member
            yield name, member


class Requirement(NamedTuple):
    """A feature must not be offered (virtio 1.3 section 2.2.2) or accepted (2.2.1) without one of others."""

    features: tuple[Feature, ...]
    """Each of these requires …"""
    one_of: tuple[Feature, ...]
    """… one of these."""
    section: str
    """Where virtio 1.3 says so; ``""`` if it does so of devices alone."""
    device_section: str = "2.2.2"
    """Where it says so of what a device offers."""


class TransportFeature(
    Feature,
    prefix="VIRTIO_F_",
    own_prefixes={"INDIRECT_DESC": "VIRTIO_RING_F_", "EVENT_IDX": "VIRTIO_RING_F_"},
):
    """Bits of no one device type (virtio 1.3 section 6; 24, 27 and 30 are legacy, section 6.3 and 6.4)."""

    NOTIFY_ON_EMPTY = 24
    ANY_LAYOUT = 27
    INDIRECT_DESC = 28
    EVENT_IDX = 29
    BAD_FEATURE = 30
    VERSION_1 = 32
    ACCESS_PLATFORM = 33
    # Its name before virtio 1.1; QEMU keeps it (VIRTIO_F_IOMMU_PLATFORM).
    IOMMU_PLATFORM = 33
    RING_PACKED = 34
    IN_ORDER = 35
    ORDER_PLATFORM = 36
    SR_IOV = 37
    NOTIFICATION_DATA = 38
    NOTIF_CONFIG_DATA = 39
    RING_RESET = 40
    ADMIN_VQ = 41


class FeatureNames:
    """Every feature name that goes for one kind of bit set, and the bit behind it.

    :param title: of what these are the features, in words: ``"network device"``.
    :param tables: the enums; an earlier one owns the bits that it names, and a later one's names of them don't count.
    """

    __slots__ = ("_bits", "_names", "title")

    def __init__(self, title: str, *tables: type[Feature]) -> None:
        self.title = title
        self._names: dict[int, str] = {}
        self._bits: dict[str, int] = {}
        for table in tables:
            self._add(table)

    def __repr__(self) -> str:
        return f"FeatureNames({self.title!r})"

    def name(self, bit: int) -> str:
        """Return the canonical full name of a bit 0..127, or ``"BIT_47"`` for one that has no name.

        :raise UnknownNameError: a number outside 0..127.
        """
        return self._names.get(self._checked(bit)) or f"BIT_{bit}"

    def is_known(self, bit: int) -> bool:
        """Say whether a bit has a name."""
        return bit in self._names

    def bit(self, which: object) -> int:
        """Return the bit number that a name, member or number means.

        :param which: a full name, with ``VIRTIO_`` or without, short name, alias or ``"BIT_n"``; a member of a feature
            enum; a number 0..127.
        :raise UnknownNameError: nothing here is called so; a member of another device type's enum is among these.
        :raise UsageError: something that can't be a feature, as ``None`` or ``1.5``.
        """
        if isinstance(which, Feature):
            return self._member_bit(which)
        if isinstance(which, str):
            return self._named_bit(which)
        if isinstance(which, int) and not isinstance(which, bool):
            return self._checked(which)
        raise UsageError(f"not a feature of {self.title}: {which!r}. A name, member or bit number is wanted.")

    def _add(self, table: type[Feature]) -> None:
        fresh = {member.value: member.full_name for member in table if member.value not in self._names}
        for spelling, member in table.spellings():
            if member.value in fresh:
                self._bits.setdefault(spelling, member.value)
        self._names.update(fresh)

    def _member_bit(self, member: Feature) -> int:
        bit = self._bits.get(member.full_name)
        if bit is not None:
            return bit
        label = f"{type(member).__name__}.{member.name}"
        raise UnknownNameError(self._kind(), label, remedy=f"{member.full_name} belongs to another device type.")

    def _named_bit(self, name: str) -> int:
        for prefix in _LEFT_OUT:
            bit = self._bits.get(prefix + name)
            if bit is not None:
                return bit
        unnamed = _UNNAMED.fullmatch(name)
        if unnamed and int(unnamed[1]) < FEATURE_BITS:
            return int(unnamed[1])
        stem = _PREFIX.match(name)
        if stem and not any(stem[2] in known for known in self._bits):
            # The nearest names of this type would mislead.
            raise UnknownNameError(self._kind(), name, remedy=f"VIRTIO_{stem[2]}… belongs to another device type.")
        raise UnknownNameError(self._kind(), name, self._bits)

    def _checked(self, bit: int) -> int:
        if 0 <= bit < FEATURE_BITS:
            return int(bit)
        raise UnknownNameError(self._kind(), str(bit), remedy=f"Bit numbers are 0..{FEATURE_BITS - 1}.")

    def _kind(self) -> str:
        return f"feature of {self.title}"
