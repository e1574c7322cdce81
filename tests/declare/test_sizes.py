"""Sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.declare.sizes import parse_size
from pytest_virtio.errors import UsageError

POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@given(st.integers(1, 10**6), st.sampled_from(sorted(POWERS)), st.sampled_from(["", "B", "iB"]), st.booleans())
def test_units_are_powers_of_1024(number: int, unit: str, bytes_word: str, space: bool) -> None:
    if not unit and bytes_word == "iB":
        bytes_word = "B"
    written = f" {number}{' ' if space else ''}{unit.lower()}{bytes_word} "
    assert parse_size(written, "size") == number * 1024 ** POWERS[unit]


@given(st.integers(1))
def test_a_number_is_bytes(number: int) -> None:
    assert parse_size(number, "size") == number


@pytest.mark.parametrize(
    "value", ["", "M", "64X", "1.5G", "-1", "0", "0M", 0, -4096, True, 1.5, None, "64iB", "٣", "6 4M", "9" * 5000, [1]]
)
def test_everything_else_is_refused_with_the_value_shown(value: object) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(value, "size")  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"size={value!r} is not a size. Write a number of bytes above 0, or one with K, M, G or T: '64M'."
    )
