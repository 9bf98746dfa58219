from __future__ import annotations

import gzip
import os
import subprocess
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbbackup.contract.errors import Failure
from dbbackup.contract.formats import Algorithm
from dbbackup.storage.codec import CHUNK, compressor, decompress, decompressor

ALGORITHMS: list[Algorithm] = ["zstd", "gzip", "none"]
STOCK = {"zstd": ["zstd", "-dc"], "gzip": ["gzip", "-dc"], "none": ["cat"]}


def pack(algorithm: Algorithm, data: bytes, step: int = 65536, **options: int) -> bytes:
    packer = compressor(algorithm, **options)
    return b"".join(packer.feed(data[at : at + step]) for at in range(0, len(data), step)) + packer.finish()


def pieces(data: bytes, step: int) -> Iterator[bytes]:
    return (data[at : at + step] for at in range(0, len(data), step))


def text(size: int) -> bytes:
    line = b"10.20.%d.%d\tserver-%d\t2026-11-%02d 10:00:00+00\tactive\t\\N\n"
    rows = b"".join(line % (i % 256, i * 7 % 256, i, i % 28) for i in range(size // 40))
    return rows[:size]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=60)
@given(data=st.binary(max_size=5000), step=st.integers(1, 700), read=st.integers(1, 700))
def test_round_trip(algorithm: Algorithm, data: bytes, step: int, read: int) -> None:
    packed = pack(algorithm, data, step, threads=0)
    assert b"".join(decompress(algorithm, pieces(packed, read))) == data


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("options", [{}, {"level": 9}, {"threads": 0}, {"threads": 2, "level": 1}])
def test_stock_tools_read_it(algorithm: Algorithm, options: dict[str, int]) -> None:
    data = text(600_000)
    packed = pack(algorithm, data, **options)
    assert subprocess.run(STOCK[algorithm], input=packed, capture_output=True, check=True).stdout == data
    assert algorithm == "none" or len(packed) < len(data) / 3


def test_zstd_frames_carry_a_checksum() -> None:
    packed = pack("zstd", b"x" * 1000)
    assert packed[4] & 4, "Content_Checksum_flag"


@pytest.mark.parametrize("algorithm", ["zstd", "gzip"])
def test_every_truncation_is_detected(algorithm: Algorithm) -> None:
    packed = pack(algorithm, text(1200), threads=0)
    for size in range(len(packed)):
        with pytest.raises(Failure) as caught:
            list(decompress(algorithm, [packed[:size]], "team-a/dump.sql.zst"))
        assert caught.value.reason.name == "ArtifactCorrupt"
        assert "team-a/dump.sql.zst" in caught.value.message


def outcome(algorithm: Algorithm, packed: bytes) -> bytes | str:
    try:
        return b"".join(decompress(algorithm, [packed]))
    except Failure as failure:
        return failure.reason.name


@pytest.mark.parametrize("algorithm", ["zstd", "gzip"])
def test_every_flipped_bit_of_the_data_is_detected(algorithm: Algorithm) -> None:
    """But for bits of the header that carry no data (gzip's time and system)."""
    data = text(1200)
    packed = bytearray(pack(algorithm, data, threads=0))
    for position in range(len(packed)):
        damaged = bytes(packed[:position]) + bytes([packed[position] ^ 0x10]) + bytes(packed[position + 1 :])
        assert outcome(algorithm, damaged) in {data, "ArtifactCorrupt"}, position


@pytest.mark.parametrize("algorithm", ["zstd", "gzip"])
def test_several_frames(algorithm: Algorithm) -> None:
    packed = pack(algorithm, b"one ") + pack(algorithm, b"") + pack(algorithm, b"two")
    for step in (1, 7, len(packed)):
        assert b"".join(decompress(algorithm, pieces(packed, step))) == b"one two"
    with pytest.raises(Failure):
        list(decompress(algorithm, [packed[:-1]]))
    for tail in (b"\x00", b"rubbish that follows"):
        with pytest.raises(Failure):
            list(decompress(algorithm, [packed + tail]))


def test_many_small_frames_in_one_chunk_take_linear_time() -> None:
    packed = pack("zstd", b"x", threads=0) * 20_000
    assert sum(map(len, decompress("zstd", [packed]))) == 20_000


@pytest.mark.parametrize("algorithm", ["zstd", "gzip"])
def test_a_decompression_bomb_is_yielded_in_small_chunks(algorithm: Algorithm) -> None:
    packer = compressor(algorithm, threads=0)
    zeros = bytes(1 << 20)
    bomb = b"".join(packer.feed(zeros) for _ in range(48)) + packer.finish()
    assert len(bomb) < 2 << 20
    tracemalloc.start()
    total = 0
    for chunk in decompress(algorithm, [bomb]):
        assert len(chunk) <= CHUNK
        total += len(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 48 << 20
    assert peak < 8 << 20


def test_a_window_beyond_the_stock_limit_is_refused() -> None:
    packed = subprocess.run(["zstd", "-q", "--ultra", "--long=30", "-c"], input=os.urandom(200_000), capture_output=True, check=True).stdout
    header = bytearray(packed)
    assert not header[4] & 0x20, "a frame with a window descriptor"
    with pytest.raises(Failure) as caught:
        list(decompress("zstd", [bytes(header)]))
    assert caught.value.reason.name == "ArtifactCorrupt"


def test_plain_chunks_are_bounded_too() -> None:
    decoder = decompressor("none")
    chunks = list(decoder.feed(bytes(3 * CHUNK + 5)))
    assert [len(chunk) for chunk in chunks] == [CHUNK, CHUNK, CHUNK, 5]
    decoder.finish()


@pytest.mark.parametrize("algorithm", ["zstd", "gzip"])
def test_other_data_is_refused_as_a_stream(algorithm: Algorithm) -> None:
    for rubbish in (b"", b"-- PostgreSQL database dump", gzip.compress(b"x") if algorithm == "zstd" else pack("zstd", b"x"), zlib.compress(b"x")):
        with pytest.raises(Failure) as caught:
            list(decompress(algorithm, [rubbish]))
        assert caught.value.reason.name == "ArtifactCorrupt"
