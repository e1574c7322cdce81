"""The traditional memory balloon device, id 5: features, queues, configuration space, statistics (virtio 1.3 section
5.5, Linux virtio_balloon.h).

It must not know which pages a guest gives away, nor when.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.layout import U16, U32, U64, Layout
from pytest_virtio.spec.queues import Queue, in_order

__all__ = (
    "BALLOON",
    "BalloonFeature",
    "BalloonConfig",
    "BalloonCmdId",
    "BalloonPfn",
    "BalloonStat",
    "BalloonStatTag",
    "PAGE_BYTES",
)

PAGE_BYTES: Final = 4096
"""The unit of pages in queues and configuration space, whatever a guest's pages are (section 5.5.6)."""


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
    # Section 5.5.6.3: the device keeps the one buffer until it wants new statistics.
    kept=("stats",),
)


class BalloonCmdId(IntEnum):
    """VIRTIO_BALLOON_CMD_ID_*: values of ``free_page_hint_cmd_id`` that are no command's own (section 5.5.6.5)."""

    STOP = 0
    DONE = 1


class BalloonConfig(Layout):
    """``struct virtio_balloon_config`` (section 5.5.4), little-endian for legacy devices, too.

    The driver writes ``actual``, and with PAGE_POISON ``poison_val``.
    """

    num_pages: U32
    actual: U32
    free_page_hint_cmd_id: U32
    poison_val: U32


class BalloonPfn(Layout):
    """One entry of a buffer of inflateq and deflateq: an address divided by 4096 (section 5.5.6).

    The specification has no name for it.
    """

    pfn: U32


class BalloonStatTag(IntEnum):
    """VIRTIO_BALLOON_S_* (section 5.5.6.4)."""

    SWAP_IN = 0
    SWAP_OUT = 1
    MAJFLT = 2
    MINFLT = 3
    MEMFREE = 4
    MEMTOT = 5
    AVAIL = 6
    CACHES = 7
    HTLB_PGALLOC = 8
    HTLB_PGFAIL = 9


class BalloonStat(Layout):
    """``struct virtio_balloon_stat``: one entry, 10 bytes, of a buffer of statsq (section 5.5.6.3).

    Unlike the configuration space it has the guest's byte order on a legacy device. The specification's "multiple of 6
    bytes" is a mistake.
    """

    tag: U16
    val: U64
