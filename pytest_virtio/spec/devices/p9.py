"""The 9P transport device, id 9: features, queues, configuration space (Linux virtio_9p.h; virtio 1.3 only reserves the
id).

It must not know 9P itself, whose messages are all that goes through the queue.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.layout import U16, Layout
from pytest_virtio.spec.queues import in_order

__all__ = (
    "P9",
    "P9Feature",
    "P9Config",
)


class P9Feature(Feature, prefix="VIRTIO_9P_F_", own_prefixes={"MOUNT_TAG": "VIRTIO_9P_"}):
    """Feature bits of the 9P transport device."""

    # Linux spells it VIRTIO_9P_MOUNT_TAG; with the _F_ it is accepted, too.
    MOUNT_TAG = 0


P9 = DeviceType(
    9,
    "9p",
    "9P transport device",
    P9Feature,
    in_order(("request", "requests", "requestq")),
)


class P9Config(Layout):
    """The head of ``struct virtio_9p_config``, with MOUNT_TAG: ``tag_len`` bytes of ``tag`` follow, without a NUL."""

    tag_len: U16
