"""The timer/clock device, id 17: feature bits and queues (Linux virtio_rtc.h; virtio 1.3 only reserves the id).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import Queue, in_order

__all__ = ("RTC", "RtcFeature")


class RtcFeature(Feature, prefix="VIRTIO_RTC_F_"):
    """Feature bits of the timer/clock device."""

    ALARM = 0


RTC = DeviceType(
    17,
    "rtc",
    "timer/clock device",
    RtcFeature,
    in_order(("request", "requestq"), Queue(("alarm", "alarmq"), RtcFeature.ALARM)),
    kept=("alarm",),
)
