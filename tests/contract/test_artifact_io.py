"""ArtifactWriter and ArtifactReader over real servers."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.contract.conftest import connect
from tests.contract.servers import Server

from dbbackup.contract.errors import Failure
from dbbackup.contract.manifest import Part, StoredObject
from dbbackup.storage import retries
from dbbackup.storage import writer as upload_module
from dbbackup.storage.base import Storage
from dbbackup.storage.codec import compressor, decompress
from dbbackup.storage.reader import ArtifactReader
from dbbackup.storage.writer import PART_SIZE, ArtifactWriter

MIB = 1 << 20
BLOCK = os.urandom(MIB)


def blocks(size: int) -> Iterator[bytes]:
    """Blocks that differ from each other."""
    for at in range(0, size, MIB):
        head = at.to_bytes(8, "big")
        yield (head + BLOCK[8:])[: min(MIB, size - at)]


def store(storage: Storage, key: str, size: int, workers: int = 3) -> StoredObject:
    writer = ArtifactWriter(storage, key, workers=workers)
    write_all(writer, size)
    return writer.commit()


def write_all(writer: ArtifactWriter, size: int) -> None:
    for block in blocks(size):
        writer.write(block)


def nothing_left(storage: Storage) -> bool:
    """Asks for the one key too: MinIO lists no uploads below a prefix."""
    return not list(storage.list("")) and not list(storage.list_uploads("")) and not list(storage.list_uploads("dir/a"))


def corrupt(storage: Storage, stored: StoredObject) -> Failure:
    with pytest.raises(Failure) as caught:
        list(ArtifactReader(storage, "dir", stored))
    return caught.value


@pytest.mark.parametrize("size", [0, 1, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 3 * PART_SIZE, 40 * MIB + 12345])
def test_round_trip(storage: Storage, size: int) -> None:
    stored = store(storage, "dir/dump.sql.zst", size)
    data = b"".join(blocks(size))
    assert storage.get("dir/dump.sql.zst", 1 << 30) == data
    assert (stored.name, stored.size, stored.sha256) == ("dump.sql.zst", size, hashlib.sha256(data).hexdigest())
    at = 0
    for part in stored.parts:
        assert part.sha256 == hashlib.sha256(data[at : at + part.size]).hexdigest()
        at += part.size
    assert at == size
    assert len(stored.parts) == max(1, -(-size // PART_SIZE))
    reader = ArtifactReader(storage, "dir", stored)
    assert b"".join(reader) == data
    assert reader.bytes_read == size
    assert not list(storage.list_uploads("dir/a"))


def test_chunks_of_any_size_and_kind(storage: Storage) -> None:
    data = b"".join(blocks(20 * MIB))
    writer = ArtifactWriter(storage, "dir/a", workers=2)
    at, step = 0, 1
    while at < len(data):
        piece = data[at : at + step]
        writer.write((bytes, bytearray, memoryview)[step % 3](piece))
        at, step = at + step, step * 3 + 1
    stored = writer.commit()
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert writer.bytes_stored == len(data)
    assert b"".join(ArtifactReader(storage, "dir", stored)) == data


@pytest.mark.parametrize("size", [100, 30 * MIB])
def test_abort_leaves_nothing(storage: Storage, size: int) -> None:
    writer = ArtifactWriter(storage, "dir/a")
    for block in blocks(size):
        writer.write(block)
    writer.abort()
    writer.abort()
    assert nothing_left(storage)
    with pytest.raises(Failure):
        writer.write(b"more" * PART_SIZE)
    with pytest.raises(Failure):
        writer.commit()
    assert nothing_left(storage)


def test_abort_after_commit_keeps_the_object(storage: Storage) -> None:
    writer = ArtifactWriter(storage, "dir/a")
    writer.write(b"1" * 20 * MIB)
    writer.commit()
    writer.abort()
    assert storage.head("dir/a")


@pytest.mark.parametrize("limit", [100, 10 * MIB])
def test_too_large(storage: Storage, limit: int) -> None:
    writer = ArtifactWriter(storage, "dir/a", max_size=limit)
    for _ in range(10):
        writer.write(BLOCK[: limit // 10])
    with pytest.raises(Failure) as caught:
        writer.write(b"x")
    assert caught.value.reason.name == "ArtifactTooLarge"
    assert str(limit) in caught.value.message
    writer.abort()
    assert nothing_left(storage)


def test_the_rest_of_an_earlier_attempt_is_overwritten(storage: Storage) -> None:
    storage.put("dir/a", b"left behind", "text/plain")
    stored = store(storage, "dir/a", 9 * MIB)
    assert sum(map(len, ArtifactReader(storage, "dir", stored))) == 9 * MIB
    stored = store(storage, "dir/a", 10)
    assert storage.get("dir/a", 100) == next(blocks(10))


@pytest.mark.parametrize("size", [100, 20 * MIB])
def test_of_two_attempts_one_wins(storage: Storage, size: int) -> None:
    first, second = (ArtifactWriter(storage, "dir/a", if_absent=True) for _ in range(2))
    for writer, fill in ((first, b"1"), (second, b"2")):
        writer.write(fill * size)
    stored = first.commit()
    with pytest.raises(Failure) as caught:
        second.commit()
    assert caught.value.reason.name == "ArtifactExists"
    assert caught.value.reason.retryable
    second.abort()
    assert b"".join(ArtifactReader(storage, "dir", stored)) == b"1" * size
    assert not list(storage.list_uploads("dir/a"))


def test_progress_counts_what_is_stored(storage: Storage) -> None:
    writer = ArtifactWriter(storage, "dir/a")
    seen = set()
    for number, block in enumerate(blocks(40 * MIB), 1):
        writer.write(block)
        seen.add(writer.bytes_stored)
        assert writer.bytes_stored <= number * MIB
    writer.commit()
    assert writer.bytes_stored == 40 * MIB
    assert all(stored % PART_SIZE == 0 for stored in seen)


@pytest.mark.parametrize("workers", [1, 3])
def test_memory_is_bounded(storage: Storage, workers: int) -> None:
    tracemalloc.start()
    stored = store(storage, "dir/a", 100 * MIB, workers)
    written = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    for chunk in ArtifactReader(storage, "dir", stored, prefetch=2):
        assert len(chunk) <= PART_SIZE
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written < PART_SIZE * (workers + 2) + 6 * MIB
    assert read < PART_SIZE * 3 + 6 * MIB


def test_parallel_writers(storage: Storage) -> None:
    with ThreadPoolExecutor(5) as pool:
        stored = list(pool.map(lambda i: store(storage, f"dir/{i}", (10 + i) * MIB), range(5)))
    for index, each in enumerate(stored):
        assert each.size == (10 + index) * MIB
        assert sum(map(len, ArtifactReader(storage, "dir", each))) == each.size


def test_large_parts_are_fewer(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "PLANNED_PARTS", 2)
    monkeypatch.setattr(upload_module, "STEP", 1)
    writer = ArtifactWriter(storage, "dir/a", workers=2)
    for block in blocks(100 * MIB):
        writer.write(block)
    stored = writer.commit()
    assert [part.size // MIB for part in stored.parts] == [8, 8, 16, 32, 36]
    assert sum(map(len, ArtifactReader(storage, "dir", stored))) == 100 * MIB


# --- damage


@pytest.mark.parametrize("position", [0, 9 * MIB, 17 * MIB])
def test_a_flipped_bit_stops_before_its_part(storage: Storage, position: int) -> None:
    stored = store(storage, "dir/a", 17 * MIB + 1)
    data = bytearray(storage.get("dir/a", 1 << 30))
    data[position] ^= 1
    storage.put("dir/a", bytes(data), "text/plain")
    let_through: list[int] = []
    with pytest.raises(Failure) as caught:
        let_through.extend(map(len, ArtifactReader(storage, "dir", stored)))
    failure = caught.value
    assert failure.reason.name == "ArtifactCorrupt"
    assert sum(let_through) == position // PART_SIZE * PART_SIZE
    assert "dir/a" in failure.message
    assert f"part {position // PART_SIZE + 1} of 3" in failure.message


def test_truncated_missing_and_empty(storage: Storage) -> None:
    stored = store(storage, "dir/a", 10 * MIB)
    data = storage.get("dir/a", 1 << 30)
    for size in (0, PART_SIZE, 10 * MIB - 1):
        storage.put("dir/a", data[:size], "text/plain")
        assert corrupt(storage, stored).reason.name == "ArtifactCorrupt"
    storage.delete(["dir/a"])
    failure = corrupt(storage, stored)
    assert failure.reason.name == "ArtifactMissing"
    assert "dir/a" in failure.message
    empty = store(storage, "dir/b", 0)
    assert list(ArtifactReader(storage, "dir", empty)) == []
    storage.delete(["dir/b"])
    assert corrupt(storage, empty).reason.name == "ArtifactMissing"


def test_parts_in_another_order_are_detected_by_the_whole(storage: Storage) -> None:
    """Each part's digest can hold while the whole's does not: a manifest put together wrongly."""
    stored = store(storage, "dir/a", 1000)
    data = storage.get("dir/a", 1000)
    parts = tuple(Part(size=len(half), sha256=hashlib.sha256(half).hexdigest()) for half in (data[:500], data[500:]))
    wrong = stored.model_copy(update={"parts": parts, "sha256": "0" * 64})
    failure = corrupt(storage, wrong)
    assert failure.reason.name == "ArtifactCorrupt"
    assert "whole" in failure.message


def test_closed_reader_stops(storage: Storage) -> None:
    stored = store(storage, "dir/a", 40 * MIB)
    reader = ArtifactReader(storage, "dir", stored)
    iterator = iter(reader)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 60
    while any(thread.name.startswith("download") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- faults


def test_server_away_in_mid_upload_and_back(own_server: Server, tmp_path: Path, bucket: str) -> None:
    storage = connect(own_server.endpoint, tmp_path, bucket)
    storage.ensure_bucket(create=True)
    writer = ArtifactWriter(storage, "dir/a")
    size = 120 * MIB

    def away() -> None:
        own_server.kill()
        time.sleep(3)
        own_server.start()

    outage = threading.Thread(target=away)
    for number, block in enumerate(blocks(size)):
        writer.write(block)
        if number == 50:
            outage.start()
            time.sleep(0.3)
    outage.join()
    stored = writer.commit()
    assert hashlib.sha256(b"".join(ArtifactReader(storage, "dir", stored))).hexdigest() == stored.sha256


def test_server_away_for_good(own_server: Server, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PATIENCE", 2.0)
    storage = connect(own_server.endpoint, tmp_path, bucket)
    storage.ensure_bucket(create=True)
    writer = ArtifactWriter(storage, "dir/a")
    for block in blocks(20 * MIB):
        writer.write(block)
    own_server.kill()
    with pytest.raises(Failure) as caught:
        write_all(writer, 400 * MIB)
    assert caught.value.reason.name == "StorageUnavailable"
    with pytest.raises(Failure):
        writer.abort()
    own_server.start()
    writer.abort()
    assert nothing_left(storage)


def test_cancel_ends_a_writer_that_waits(own_server: Server, tmp_path: Path, bucket: str) -> None:
    storage = connect(own_server.endpoint, tmp_path, bucket)
    storage.ensure_bucket(create=True)
    writer = ArtifactWriter(storage, "dir/a")
    writer.write(b"1" * 9 * MIB)
    own_server.kill()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_all, writer, 100 * MIB)
        time.sleep(1)
        assert not writing.done()
        writer.cancel()
        failure = writing.exception(timeout=retries.PATIENCE / 2)
        assert isinstance(failure, Failure)
        assert failure.reason.name == "Terminated"
    own_server.start()
    writer.abort()
    assert nothing_left(storage)


def test_with_codec(storage: Storage) -> None:
    packer = compressor("zstd")
    writer = ArtifactWriter(storage, "dir/dump.sql.zst")
    line = b"1\tserver\t\\N\n"
    for _ in range(50):
        writer.write(packer.feed(line * 100_000))
        writer.write(packer.feed(BLOCK))
    writer.write(packer.finish())
    stored = writer.commit()
    assert len(stored.parts) > 5
    digest = hashlib.sha256()
    for chunk in decompress("zstd", ArtifactReader(storage, "dir", stored)):
        digest.update(chunk)
    assert digest.digest() == hashlib.sha256((line * 100_000 + BLOCK) * 50).digest()
