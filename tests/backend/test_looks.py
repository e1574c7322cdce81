"""Which offers can not be of the declared type."""

from __future__ import annotations

import pytest

from pytest_virtio.backend.looks import wrong_type
from pytest_virtio.spec.device_type import DeviceType
from pytest_virtio.spec.devices import BLK, DEVICE_TYPES, FS, I2C, NET, RNG, VSOCK

OF_STORAGE_DAEMON, OF_TESTPMD, OF_PASST = 0x175007E46, 0xD7C66E7CB, 0x144008002
OF_VIRTIOFSD, OF_VSOCK = 0x175000000, 0x161000000
"""As in docs/vhost-user.md."""


@pytest.mark.parametrize(
    ("features", "type"),
    [
        (OF_STORAGE_DAEMON, BLK),
        (OF_TESTPMD, NET),
        (OF_VIRTIOFSD, FS),
        (OF_VSOCK, VSOCK),
        (0, RNG),
        (1 << 7, FS),
        (1 << 127, RNG),
        # Reserved for what all device types have (virtio 1.3, 2.2).
        (0x3FFFFFF000000, RNG),
    ],
)
def test_what_can_be(features: int, type: DeviceType) -> None:
    assert wrong_type(features, type) == ""


@pytest.mark.parametrize("type", DEVICE_TYPES.values(), ids=lambda type: type.name)
def test_all_that_a_type_has_and_one_more_can_be(type: DeviceType) -> None:
    own = sum(1 << bit for bit in range(128) if type.feature_names.is_known(bit))
    one = next(bit for bit in range(128) if bit not in range(24, 50) and not own >> bit & 1)
    assert wrong_type(own | 1 << one, type) == ""


def test_two_that_it_does_not_have() -> None:
    said = wrong_type(OF_STORAGE_DAEMON, I2C)
    assert said == (
        "offers feature bits 1, 2, 6, 9, 10, 11, 12, 13, 14, of which I2C adapter device knows none: it looks like "
        "VhostUserBlk. Declare it so, or have QEMU not told of them: "
        "mask={1, 2, 6, 9, 10, 11, 12, 13, 14}"
    )


@pytest.mark.parametrize(
    ("features", "program", "like"),
    [
        (OF_STORAGE_DAEMON, "", "VhostUserBlk"),
        (OF_TESTPMD, "", "VhostUserNet"),
        # SIZE_MAX and LIFETIME of a disk, GUEST_CSUM and MRG_RXBUF of a card.
        (OF_PASST, "", "VhostUserBlk"),
        (OF_PASST, "passt", "VhostUserNet"),
        # It can't be what its name says.
        (OF_TESTPMD, "qemu-storage-daemon", "VhostUserNet"),
    ],
)
def test_the_nearest_is_named(features: int, program: str, like: str) -> None:
    assert f"it looks like {like}. Declare it so" in wrong_type(features, I2C, program)


@pytest.mark.parametrize("features", [OF_VIRTIOFSD, OF_VSOCK])
def test_what_offers_nothing_of_its_own_can_be_anything(features: int) -> None:
    """The blind spot in docs/vhost-user.md."""
    assert not any(wrong_type(features, type) for type in DEVICE_TYPES.values())


def test_a_network_card_can_have_nearly_all_bits() -> None:
    """The other one."""
    assert not any(wrong_type(offer, NET) for offer in (OF_STORAGE_DAEMON, OF_VIRTIOFSD, OF_VSOCK))


def test_two_that_nobody_has() -> None:
    assert "bits 1, 2, 3, " in (said := wrong_type(0xFFFFFF, FS))
    assert "looks like no device type that is known here. Look whether it is the daemon that you mean, or " in said
