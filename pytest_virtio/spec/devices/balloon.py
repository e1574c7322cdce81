"""The traditional memory balloon device, id 5: feature bits, queues (virtio 1.3 section 5.5, Linux virtio_balloon.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import Queue, in_order

__all__ = ("BALLOON", "BalloonFeature")


class BalloonFeature(Feature, prefix="VIRTIO_BALLOON_F_"):
    """Feature bits of the traditional memory balloon device."""

    MUST_TELL_HOST = 0
    STATS_VQ = 1
    DEFLATE_ON_OOM = 2
    FREE_PAGE_HINT = 3
    PAGE_POISON = 4
    PAGE_REPORTING = 5
    # Linux's and QEMU's name for it.
    REPORTING = 5


BALLOON = DeviceType(
    5,
    "balloon",
    "traditional memory balloon device",
    BalloonFeature,
    in_order(
        # Section 5.5.2: numbers of optional queues close up when an earlier one is missing, in Linux and QEMU alike.
        ("inflate", "inflateq"),
        ("deflate", "deflateq"),
        Queue(("stats", "statsq"), BalloonFeature.STATS_VQ),
        Queue(("free_page", "free_page_vq"), BalloonFeature.FREE_PAGE_HINT),
        Queue(("reporting", "reporting_vq"), BalloonFeature.PAGE_REPORTING),
    ),
)
