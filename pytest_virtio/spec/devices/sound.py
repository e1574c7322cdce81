"""The sound device, id 25: feature bits and queues (virtio 1.3 section 5.14, Linux virtio_snd.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import in_order

__all__ = ("SOUND", "SoundFeature")


class SoundFeature(Feature, prefix="VIRTIO_SND_F_"):
    """Feature bits of the sound device."""

    CTLS = 0


SOUND = DeviceType(
    25,
    "sound",
    "sound device",
    SoundFeature,
    in_order(("ctrl", "controlq"), ("event", "eventq"), ("tx", "txq"), ("rx", "rxq")),
)
