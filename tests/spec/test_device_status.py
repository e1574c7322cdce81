"""Names of status bits against the numbers of virtio 1.3 section 2.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.spec.status import INITIALISATION_ORDER, DeviceStatus, status_names, unknown_status_bits


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (0, set()),
        (1, {"ACKNOWLEDGE"}),
        (0x0F, {"ACKNOWLEDGE", "DRIVER", "FEATURES_OK", "DRIVER_OK"}),
        (0xC0, {"NEEDS_RESET", "FAILED"}),
        (0x33, {"ACKNOWLEDGE", "DRIVER", "0x30"}),
        (0x100, {"0x100"}),
    ],
)
def test_names(value: int, names: set[str]) -> None:
    assert status_names(value) == names


@given(st.integers(0, 0xFFFF))
def test_no_bit_is_lost(value: int) -> None:
    names = status_names(value)
    known = sum(DeviceStatus[name].value for name in names if name in DeviceStatus.__members__)
    assert known | unknown_status_bits(names) == value


def test_names_that_only_look_hexadecimal_are_no_bits() -> None:
    assert unknown_status_bits({"0xzz", "DRIVER", "0x"}) == 0
    assert unknown_status_bits({"0xzz", "0x30"}) == unknown_status_bits({"0x30"}) != 0


def test_order_of_initialisation() -> None:
    assert [stage.value for stage in INITIALISATION_ORDER] == [1, 2, 8, 4]
