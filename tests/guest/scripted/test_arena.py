"""Guest RAM is given out in blocks that don't overlap, and taken back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_virtio.errors import UsageError
from pytest_virtio.guest.scripted.arena import FIRST, SMALLEST, Arena

END = FIRST + (1 << 20)

SIZES = st.integers(min_value=0, max_value=9000)
ALIGNMENTS = st.integers(min_value=0, max_value=13).map(lambda power: 1 << power)


@given(st.lists(st.tuples(SIZES, ALIGNMENTS, st.booleans()), max_size=60))
def test_blocks_are_aligned_and_do_not_overlap(wanted: list[tuple[int, int, bool]]) -> None:
    arena, held = Arena(END), dict[int, int]()
    for size, align, keep in wanted:
        address = arena.allocate(size, align)
        assert address % align == 0
        assert address >= FIRST
        assert address + size <= END
        assert all(address + size <= other or other + length <= address for other, length in held.items() if length)
        if keep:
            held[address] = size
        else:
            arena.free(address)


def test_what_was_given_back_is_given_out_again() -> None:
    arena = Arena(END)
    for size in (1, 100, 5000, 1 << 18) * 1000:
        arena.free(arena.allocate(size))


def test_it_ends_where_ram_does() -> None:
    arena = Arena(FIRST + 4 * SMALLEST)
    assert [arena.allocate(SMALLEST) for _ in range(4)] == [FIRST + SMALLEST * n for n in range(4)]
    with pytest.raises(UsageError) as caught:
        arena.allocate(1)
    assert str(caught.value) == (
        "guest RAM is used up: 0x40 bytes more are wanted of 0x100100; give the VM more by memory="
    )
    arena.free(FIRST)
    assert arena.allocate(1) == FIRST


@pytest.mark.parametrize(("size", "align"), [(-1, 1), (1, 0), (1, 3), (1, -4)])
def test_numbers_that_mean_nothing(size: int, align: int) -> None:
    with pytest.raises(UsageError, match="sizes are 0 or more, alignments powers of 2"):
        Arena(END).allocate(size, align)


def test_what_is_freed_from_the_top_down_serves_any_size() -> None:
    arena = Arena(FIRST + 0x10000)
    for size in (64, 4096, 0x10000):
        blocks = [arena.allocate(size) for _ in range(0x10000 // size)]
        with pytest.raises(UsageError, match="used up"):
            arena.allocate(64)
        for block in reversed(blocks):
            arena.free(block)
