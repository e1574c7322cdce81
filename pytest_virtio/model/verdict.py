"""Judgements: how far a device's initialisation went, and for each missing feature at whose door it lies.

Responsible for pure decisions on status and features; it must not know how they were read or will be printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum

from pytest_virtio.model.features import Features
from pytest_virtio.model.status import VirtioStatus

__all__ = ("Fault", "FeatureFault", "Stage", "missing_features", "stage", "unwanted_features")


class Stage(Enum):
    """How far initialisation has come (virtio 1.3 section 3.1), in plain words. An earlier driver may have let go."""

    RESET = "reset: no driver has the device"
    ACKNOWLEDGE = "ACKNOWLEDGE only: the guest has noticed the device, and no driver has it"
    DRIVER = "DRIVER: a driver took the device, and the features are not settled yet"
    FEATURES_OK = "FEATURES_OK: the features are settled, and the driver never finished its set-up"
    DRIVER_OK = "DRIVER_OK: the driver finished its set-up"
    FAILED = "FAILED: the driver gave the device up"
    NEEDS_RESET = "NEEDS_RESET: the device met an error and waits for a reset"
    OUT_OF_ORDER = "out of order: status bits are set, and none that begins an initialisation"


# A device that broke or was given up keeps the bits of the stages before, and a legacy driver goes from DRIVER straight
# to DRIVER_OK (3.1.2): the first of these that is set tells the stage.
_TELLING = (Stage.NEEDS_RESET, Stage.FAILED, Stage.DRIVER_OK, Stage.FEATURES_OK, Stage.DRIVER, Stage.ACKNOWLEDGE)


def stage(status: AbstractSet[str]) -> Stage:
    """Say how far initialisation went.

    :param status: names of the set status bits, as in :attr:`VirtioStatus.status`.
    """
    for candidate in _TELLING:
        if candidate.name in status:
            return candidate
    return Stage.OUT_OF_ORDER if status else Stage.RESET


class Fault(Enum):
    """Why a feature is missing."""

    NOT_OFFERED = "not offered"
    """The device does not offer it."""
    NOT_ACKNOWLEDGED = "not acknowledged"
    """It is offered; the driver did not take it."""
    MASKED_BY_BACKEND = "masked by the backend"
    """The vhost backend does not offer it, and so neither does the device."""
    MASKED_BY_TEST = "masked by the test"
    """The vhost backend offers it, and the test's own witness keeps it from QEMU."""
    TOO_EARLY = "too early"
    """It is offered; the driver has not written its features yet."""


@dataclass(frozen=True, slots=True)
class FeatureFault:
    """A missing feature.

    :param feature: its canonical full name.
    :param fault: why it is missing.
    :param property: QEMU's option for offering it, with its value, if there is one: ``"host_mtu=0"``.
    """

    feature: str
    fault: Fault
    property: str = ""


def missing_features(
    subject: VirtioStatus | Features,
    wanted: Iterable[str | int],
    by_backend: int | None = None,
    masked: int = 0,
) -> tuple[FeatureFault, ...]:
    """Return what is missing of the wanted features, lowest bit first, with whose fault that is.

    :param subject: a device, whose ``guest_features`` are looked at; or a set, where only offered or not can be told.
    :param wanted: names, enum members or bit numbers.
    :param by_backend: the bits that the vhost backend offers, if it was asked; else those in ``vhost_dev`` are.
    :param masked: the bits that the test keeps from QEMU.
    :raise UnknownNameError: one that such a device can't have.
    """
    features = subject.guest_features if isinstance(subject, VirtioStatus) else subject
    missing = Features.of(wanted, features.feature_names) - features
    bits = {name: features.feature_names.bit(name) for name in missing}
    return tuple(FeatureFault(name, _fault(subject, bit, by_backend, masked)) for name, bit in bits.items())


def unwanted_features(subject: VirtioStatus | Features, unwanted: Iterable[str | int]) -> tuple[str, ...]:
    """Return which of the unwanted features are there, lowest bit first, by canonical full name.

    :param subject: a device, whose ``guest_features`` are looked at; or a set.
    :param unwanted: names, enum members or bit numbers.
    :raise UnknownNameError: one that such a device can't have.
    """
    features = subject.guest_features if isinstance(subject, VirtioStatus) else subject
    return (features & Features.of(unwanted, features.feature_names)).names


def _fault(subject: VirtioStatus | Features, bit: int, by_backend: int | None, masked: int) -> Fault:
    if isinstance(subject, Features):
        return _fault_in_set(subject, bit)
    # Compared by bit number, for bit 30 has another name in vhost sets.
    if not subject.host_features.bits >> bit & 1:
        if masked >> bit & 1:
            return Fault.MASKED_BY_TEST
        if by_backend is None and subject.vhost_dev is not None:
            by_backend = subject.vhost_dev.features.bits
        lacking = by_backend is not None and not by_backend >> bit & 1
        return Fault.MASKED_BY_BACKEND if lacking else Fault.NOT_OFFERED
    return Fault.TOO_EARLY if _is_early(subject) else Fault.NOT_ACKNOWLEDGED


def _fault_in_set(features: Features, bit: int) -> Fault:
    offered = features.offered is not None and features.offered.bits >> bit & 1
    return Fault.NOT_ACKNOWLEDGED if offered else Fault.NOT_OFFERED


def _is_early(status: VirtioStatus) -> bool:
    """Say whether the driver has written no feature yet; a legacy driver may acknowledge none and never says so."""
    return not status.guest_features.bits and not status.status & {"FEATURES_OK", "DRIVER_OK"}
