"""The GPIO device, id 41: feature bits and queues (virtio 1.3 section 5.18, Linux virtio_gpio.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import Queue, in_order

__all__ = ("GPIO", "GpioFeature")


class GpioFeature(Feature, prefix="VIRTIO_GPIO_F_"):
    """Feature bits of the GPIO device."""

    IRQ = 0


GPIO = DeviceType(
    41,
    "gpio",
    "GPIO device",
    GpioFeature,
    in_order(("request", "requestq"), Queue(("event", "eventq"), GpioFeature.IRQ)),
    kept=("event",),
)
