"""The crypto device, id 20: feature bits and queues (virtio 1.3 section 5.9, Linux virtio_crypto.h).

It must not know ciphers, configuration space or anything else of the device but its features and queues.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.features import Feature
from pytest_virtio.spec.queues import QueueNames

__all__ = ("CRYPTO", "CryptoFeature")


class CryptoFeature(Feature, prefix="VIRTIO_CRYPTO_F_"):
    """Feature bits of the crypto device."""

    REVISION_1 = 0
    CIPHER_STATELESS_MODE = 1
    HASH_STATELESS_MODE = 2
    MAC_STATELESS_MODE = 3
    AEAD_STATELESS_MODE = 4
    AKCIPHER_STATELESS_MODE = 5


def _queues(count: int, features: int) -> Iterator[QueueNames]:
    """Name the data queues, and the last one as the control queue (section 5.9.2)."""
    for index in range(count - 1):
        yield f"data{index}", f"dataq{index + 1}"
    yield "ctrl", "controlq"


CRYPTO = DeviceType(20, "crypto", "crypto device", CryptoFeature, _queues)
