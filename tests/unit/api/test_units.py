"""Durations and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbackup.api.units import MAX_DURATION, MAX_TTL, duration_text, parse_duration, parse_quantity, parse_ttl, size_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("30d", 2592000), ("2w", 1209600), ("0h5m", 300), ("365d", MAX_DURATION)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "1", "h", "1 week", "1.5h", "-1h", "366d", "1000000s", "1h ", "1H", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|above zero"):
        parse_duration(text)


def test_a_duration_that_may_be_zero() -> None:
    assert parse_duration("0s", least=0) == 0
    with pytest.raises(ValueError, match="at most 365d"):
        parse_duration("366d", least=0)


@pytest.mark.parametrize(("text", "ttl"), [("never", "never"), ("30d", 2592000), ("36500d", MAX_TTL), ("1h30m", 5400)])
def test_times_to_live(text: str, ttl: int | str) -> None:
    assert parse_ttl(text) == ttl


@pytest.mark.parametrize("text", ["", "Never", "0d", "forever", "36501d", "30"])
def test_what_is_no_time_to_live(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|at most 36500d"):
        parse_ttl(text)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1024, 1024),
        ("1024", 1024),
        ("1Gi", 2**30),
        ("1.5Gi", 3 * 2**29),
        ("500M", 500_000_000),
        ("1k", 1000),
        ("1e9", 10**9),
        ("1E", 10**18),
        ("2E3", 2000),
        ("100m", 1),
        (".5Ki", 512),
    ],
)
def test_quantities(value: str | int, size: int) -> None:
    assert parse_quantity(value) == size


@pytest.mark.parametrize("value", ["", "1 Gi", "1GB", "Gi", "-1Gi", "1K", "0x10", "1e", "1Gib"])
def test_what_is_no_quantity(value: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_quantity(value)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (393216, "384 KiB"),
        (1536, "1.5 KiB"),
        (2**20 - 1, "1 MiB"),
        (10 * 2**20, "10 MiB"),
        (int(9.97 * 2**20), "10 MiB"),
        (int(1.23 * 2**30), "1.2 GiB"),
        (2**60, "1024 PiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert size_text(size) == text


@given(st.integers(min_value=0, max_value=2**50))
def test_a_size_never_reads_off_by_more_than_one_in_twenty(size: int) -> None:
    number, unit = size_text(size).split()
    shown = float(number) * {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50}[unit]
    assert abs(shown - size) <= 0.05 * size + 0.5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "<1s"), (0.4, "<1s"), (0.5, "1s"), (4.2, "4s"), (59.6, "1m"), (65, "1m 5s"), (3600, "1h"), (3605, "1h"), (7380, "2h 3m"), (273600, "3d 4h")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
