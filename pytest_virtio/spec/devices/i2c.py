"""The I2C adapter device, id 34: feature bits and queues (virtio 1.3 section 5.16, Linux virtio_i2c.h).

It must not know configuration space, requests or anything else of the device but its features and queues.
"""

from __future__ import annotations

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature, Requirement, TransportFeature
from pytest_virtio.spec.queues import in_order

__all__ = ("I2C", "I2cFeature")


class I2cFeature(Feature, prefix="VIRTIO_I2C_F_"):
    """Feature bits of the I2C adapter device."""

    ZERO_LENGTH_REQUEST = 0


I2C = DeviceType(
    34,
    "i2c",
    "I2C adapter device",
    I2cFeature,
    in_order(("request", "requestq")),
    # Mandatory: whoever complies with the specification offers and accepts it.
    requirements=(
        Requirement((TransportFeature.VERSION_1,), (I2cFeature.ZERO_LENGTH_REQUEST,), "5.16.6.3", "5.16.6.4"),
    ),
)
