"""The negotiation profile of a VM: what stays the same from run to run, so that a difference means something.

Responsible for the fields, and for leaving out what is volatile; it must not know where a profile is kept or compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_virtio.model.provenance import Provenance

__all__ = ("ConfigValue", "DeviceProfile", "FeatureProfile", "Profile", "QueueProfile")

ConfigValue = int | str | tuple[int, ...]
"""A field of a device's configuration space: numbers as they are, bytes as text (a MAC address, a tag)."""


@dataclass(frozen=True, slots=True)
class FeatureProfile:
    """What the sides made of a feature. ``None`` where nobody tells, or where there is no vhost backend.

    :param offered: the device offers it.
    :param acknowledged: the driver acknowledged it.
    :param backend_offers: the vhost backend offers it.
    """

    offered: bool
    acknowledged: bool | None = None
    backend_offers: bool | None = None


@dataclass(frozen=True, slots=True)
class QueueProfile:
    """A virtqueue: by our short name of it, ``"rx0"``, and its size as it was set up; 0 for one that was not."""

    name: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """One device.

    :param type: our short name of its type, ``"net"``.
    :param transport: by which interface its driver drives it: ``"pci"``, ``"pci-legacy"``, ``"mmio"`` …
    :param features: by canonical full name, from the lowest bit to the highest.
    :param queues: in the order of their indices.
    :param config: fields of its configuration space by the specification's names, those that never change by
        themselves; empty where nobody tells.
    :param protocol_features: negotiated vhost-user protocol features; None where there is no such backend.
    """

    type: str
    transport: str
    features: Mapping[str, FeatureProfile] = field(hash=False)
    queues: tuple[QueueProfile, ...] = ()
    config: Mapping[str, ConfigValue] = field(default_factory=dict, hash=False)
    protocol_features: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """A VM: its devices by id, and what it ran on, which is told with a difference and never compared."""

    devices: Mapping[str, DeviceProfile] = field(hash=False)
    provenance: Provenance = field(default_factory=Provenance)
