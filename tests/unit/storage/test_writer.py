from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbackup.storage.writer import MAX_PARTS, MEMORY, PART_SIZE, part_size

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
LARGEST_OBJECT = 5 * TIB
LARGEST_PART = 5 * GIB


def parts_for(size: int, expected: int | None) -> list[int]:
    parts: list[int] = []
    while size > 0:
        parts.append(min(size, part_size(len(parts) + 1, expected)))
        size -= parts[-1]
    return parts


@given(expected=st.one_of(st.none(), st.integers(0, LARGEST_OBJECT)))
def test_parts_are_what_the_protocol_allows(expected: int | None) -> None:
    for number in (1, 5000, MAX_PARTS):
        size = part_size(number, expected)
        assert PART_SIZE <= size <= LARGEST_PART or number == MAX_PARTS
        assert size % MIB == 0
        assert size <= part_size(number + 1, expected)


@pytest.mark.parametrize("size", [1, PART_SIZE, GIB, 100 * GIB, TIB, LARGEST_OBJECT])
def test_the_expected_size_has_parts_of_one_size(size: int) -> None:
    parts = parts_for(size, size)
    assert len(parts) <= 6000
    assert len(set(parts[:-1])) <= 1


@pytest.mark.parametrize("expected", [None, 0, GIB])
@pytest.mark.parametrize("size", [40 * GIB, 100 * GIB, TIB])
def test_a_larger_size_than_expected_fits_too(expected: int | None, size: int) -> None:
    assert len(parts_for(size, expected)) <= MAX_PARTS


def test_usual_sizes_keep_small_parts() -> None:
    assert part_size(1, 40 * GIB) == PART_SIZE
    assert 2 * part_size(1, 250 * GIB) <= MEMORY
