"""The file system device, id 26: features, queues, configuration space (virtio 1.3 section 5.11, Linux virtio_fs.h).

It must not know FUSE, whose messages are all that goes through the queues.
"""

from __future__ import annotations

from typing import Annotated

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.layout import U32, Layout
from pytest_virtio.spec.queues import Queue, in_order

__all__ = (
    "FS",
    "FsFeature",
    "FsConfig",
)


class FsFeature(Feature, prefix="VIRTIO_FS_F_"):
    """Feature bits of the file system device."""

    NOTIFICATION = 0


FS = DeviceType(
    26,
    "fs",
    "file system device",
    FsFeature,
    in_order(
        ("hiprio", "hiprioq"),
        Queue(("notification", "notificationq"), FsFeature.NOTIFICATION),
        then=("request", "requestq"),
    ),
    kept=("notification",),
)


class FsConfig(Layout):
    """``struct virtio_fs_config`` (section 5.11.4).

    ``tag`` is UTF-8, padded with NULs, without one at full length. ``notify_buf_size`` depends on NOTIFICATION.
    """

    tag: Annotated[bytes, "36s"]
    num_request_queues: U32
    notify_buf_size: U32
