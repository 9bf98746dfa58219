"""What one side of the wire writes the other reads, and it notices every damage."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator

import pytest

from dbbackup.contract import wire

STREAM = [b"SELECT 1;\n", b"", b"x" * 5000, b"last"]
WHOLE = b"".join(STREAM)


def read_all(read: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """All data up to the last frame, and the digest of the whole in it."""
    came = b""
    while (frame := wire.read_frame(read))[0]:
        came += frame[0]
    return came, frame[1]


def sent(chunks: list[bytes], skip: int = 0) -> bytes:
    return b"".join(wire.frames(iter(chunks), skip))


@pytest.mark.parametrize("skip", [0, 1, 9, 10, 11, 5009, len(WHOLE) - 1, len(WHOLE), len(WHOLE) + 5])
def test_frames_are_read_as_they_were_written(skip: int) -> None:
    data = io.BytesIO(sent(STREAM, skip))
    assert read_all(data.read) == (WHOLE[skip:], hashlib.sha256(WHOLE).digest())
    assert data.read() == b""


@pytest.mark.parametrize("most", [1, 7, 36, 5000])
def test_however_little_is_read_at_a_time(most: int) -> None:
    data = io.BytesIO(sent(STREAM))
    assert read_all(lambda size: data.read(min(size, most)))[0] == WHOLE


def test_the_format_stands() -> None:
    assert sent([b"ab", b"", b"cd"], 3) == (b"\0\0\0\1" + hashlib.sha256(b"d").digest() + b"d" + b"\0\0\0\0" + hashlib.sha256(b"abcd").digest())


def test_no_frame_is_larger_than_a_chunk() -> None:
    big = bytes(wire.CHUNK * 2 + 5)
    lengths = []
    data = io.BytesIO(sent([big]))
    while frame := wire.read_frame(data.read)[0]:
        lengths.append(len(frame))
    assert lengths == [wire.CHUNK, wire.CHUNK, 5]


def noticed(data: bytes, wanted: bytes) -> bool:
    """Whether the reader refuses the frames, or the digest at their end is not that of the data."""
    try:
        came, digest = read_all(io.BytesIO(data).read)
    except wire.DamagedError:
        return True
    return hashlib.sha256(came).digest() != digest or (came != wanted and digest != hashlib.sha256(wanted).digest())


def damaged(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        for bit in (1, 0x80):
            yield data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]  # changed
        yield data[:at] + data[at + 1 :]  # lost
        yield data[:at]  # cut short


def test_every_damage_is_noticed() -> None:
    data = sent([b"first", b"second"])
    assert not noticed(data, b"firstsecond")
    assert [index for index, other in enumerate(damaged(data)) if not noticed(other, b"firstsecond")] == []


def test_a_lost_frame_is_noticed() -> None:
    whole = list(wire.frames(iter([b"first", b"second"]), 0))
    assert noticed(whole[0] + whole[2], b"firstsecond")


@pytest.mark.parametrize("length", [wire.CHUNK + 1, 0xFFFFFFFF])
def test_a_length_that_is_no_frames_is_refused_before_it_is_read(length: int) -> None:
    head = io.BytesIO(length.to_bytes(4, "big") + bytes(32))
    with pytest.raises(wire.DamagedError, match="more than"):
        wire.read_frame(head.read)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 100), (7, 50)])
def test_ranges(start: int, end: int) -> None:
    assert wire.parse_range(wire.range_header(start, end), 100) == (start, end)


@pytest.mark.parametrize(
    ("header", "span"), [("bytes=7-", (7, 100)), ("bytes=7-900", (7, 100)), ("", None), ("bytes=-5", None), ("bytes=0-1,3-4", None)]
)
def test_ranges_of_others(header: str, span: tuple[int, int] | None) -> None:
    assert wire.parse_range(header, 100) == span


def test_the_token() -> None:
    assert wire.bearer("abc") == "Bearer abc"
    assert wire.token_sha256("abc") == hashlib.sha256(b"abc").hexdigest()
    assert wire.token_sha256("\udcff"), "of any header"
