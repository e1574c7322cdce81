"""Who offered each feature, who acknowledged it, and where the sides differ.

Responsible for the facts side by side; it must not know how they were read or will be printed, and it blames nobody:
QEMU rightly keeps some features to itself, so that the backend is never told of them (net's control queue).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pytest_virtio.model.features import Features
from pytest_virtio.model.status import VirtioStatus
from pytest_virtio.spec.devices import device_type
from pytest_virtio.spec.features import TransportFeature
from pytest_virtio.spec.vhost_user import VhostFeature

__all__ = ("Difference", "FeatureNegotiation", "negotiation")


class Difference(Enum):
    """How the sides differ on a feature, other than by what a device or its backend doesn't offer."""

    NOT_ACKNOWLEDGED = "offered, not acknowledged by the driver"
    NOT_PASSED_ON = "acknowledged by the driver, and the backend, which offers it, was not told"
    NOT_BACKENDS = "told to the backend, which does not offer it"
    MASKED = "offered by the backend, and kept from QEMU by the test"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureNegotiation:
    """What the sides made of one feature. ``None`` where nobody tells, or where there is no vhost backend.

    :param feature: its canonical full name.
    :param bit: 0..127.
    :param offered: the device offers it.
    :param acknowledged: the driver acknowledged it.
    :param backend_offers: the vhost backend offers it.
    :param masked: the test's own mask takes it from what the backend offers.
    :param backend_told: QEMU told the backend that it is acknowledged; known while the backend serves the rings.
    :param option: QEMU's property for offering it, with its value, if it is not offered: ``"host_mtu=0"``.
    """

    feature: str
    bit: int
    offered: bool
    acknowledged: bool | None = None
    backend_offers: bool | None = None
    backend_told: bool | None = None
    masked: bool = False
    option: str = ""

    @property
    def difference(self) -> Difference | None:
        """How the sides differ, if they do, nearest to the backend first."""
        if self.backend_told and self.backend_offers is False:
            return Difference.NOT_BACKENDS
        if self.masked:
            return Difference.MASKED
        if self.acknowledged and self.backend_offers and self.backend_told is False:
            return Difference.NOT_PASSED_ON
        # BAD_FEATURE is set on all of PCI, and should not be negotiated (6.3).
        if self.offered and self.acknowledged is False and self.feature != TransportFeature.BAD_FEATURE.full_name:
            return Difference.NOT_ACKNOWLEDGED
        return None


def negotiation(status: VirtioStatus, by_backend: int | None = None, masked: int = 0) -> tuple[FeatureNegotiation, ...]:
    """Return what the sides made of each feature that any of them offers or acknowledged, lowest bit first.

    Left out are vhost's own bits (LOG_ALL, and PROTOCOL_FEATURES, which has the number of BAD_FEATURE): no driver knows
    them, and QEMU adds them to what it tells the backend only when it does so.

    :param by_backend: the bits that the vhost backend offers, if it was asked; else those in ``vhost_dev`` are.
    :param masked: those of them that the test keeps from QEMU.
    """
    device, driver = _bits(status.host_features), _bits(status.guest_features)
    offers, told = _of_backend(status, by_backend)
    sides = (device, driver, offers, told)
    known = sorted({(bit, name) for side in sides for name, bit in (side or {}).items()})
    return tuple(
        FeatureNegotiation(
            feature=name,
            bit=bit,
            offered=bool(_within(name, device)),
            acknowledged=_within(name, driver),
            backend_offers=_within(name, offers),
            backend_told=_within(name, told),
            masked=bool(masked >> bit & 1 and _within(name, offers)),
        )
        for bit, name in known
    )


def _of_backend(status: VirtioStatus, by_backend: int | None) -> tuple[dict[str, int] | None, dict[str, int] | None]:
    """What the backend offers, and what it was told."""
    vhost = status.vhost_dev
    offered = vhost.features if vhost else None
    if by_backend is not None:
        offered = Features(by_backend, device_type(status.device_id).vhost_feature_names)
    return _bits(offered), _bits(vhost.acked_features if vhost else None)


_VHOSTS_OWN = frozenset(feature.full_name for feature in VhostFeature)


def _bits(features: Features | None) -> dict[str, int] | None:
    """The bit numbers by name; None where nobody tells."""
    if features is None or features.untold:
        return None
    return {name: features.feature_names.bit(name) for name in features if name not in _VHOSTS_OWN}


def _within(name: str, side: dict[str, int] | None) -> bool | None:
    return None if side is None else name in side
