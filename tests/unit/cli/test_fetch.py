"""A download against a real serving pod's code in this process, through connections that break, lie
and end too early."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.artifacts import key_of, manifest_of, owner_of
from tests.unit.support.memory_storage import Memory

from dbbackup.cli import decompress, fetch
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import Kubectl
from dbbackup.cli.pod_client import TRIES, BrokenError, PodClient
from dbbackup.contract.manifest import Part, StoredObject
from dbbackup.contract.run import RunSpec, ServeOptions, StorageTarget
from dbbackup.dataplane.context import Run, Stop
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.paths import Paths
from dbbackup.dataplane.tools import serve
from dbbackup.storage.codec import compressor

OWNER = owner_of(1)
KEY = key_of(OWNER)
DUMP = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(4000))
PART = 30_000


class Flaky(PodClient):
    """Connects to a server in this process. `faults`, one an answer: after how many bytes it
    breaks, or a byte of it changes (negative)."""

    def __init__(self, port: int) -> None:
        super().__init__(Kubectl(), {}, None, sleep=lambda _: None)
        self._real = port
        self.faults: list[int] = []
        self.asked: list[str] = []
        self.waits: list[float] = []

    def _reach(self) -> int:
        return self._real

    def stream(self, path: str, query: Any, headers: Any) -> Any:
        self.asked.append(headers.get("Range", query.get("from", "")))
        inner = super().stream(path, query, headers)
        fault = self.faults.pop(0) if self.faults else None
        return inner if fault is None else _Broken(inner, fault)


class _Broken:
    def __init__(self, inner: Any, fault: int) -> None:
        self._inner, self._left, self._lies = inner, abs(fault), fault < 0

    def __enter__(self) -> Callable[[int], bytes]:
        read = self._inner.__enter__()

        def broken(most: int) -> bytes:
            data: bytes = read(min(most, max(self._left, 1)))
            if self._left <= 0 and self._lies:
                return data
            if self._left <= 0:
                raise BrokenError("cut")
            self._left -= len(data)
            if self._left <= 0 and self._lies:
                return data[:-1] + bytes([data[-1] ^ 1])
            return data

        return broken

    def __exit__(self, *error: Any) -> Any:
        return self._inner.__exit__(*error)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setattr(serve, "open_bucket", memory.open)
    return memory


def store(bucket: Memory, stored: bytes, algorithm: str = "none") -> bytes:
    """An artifact of so many bytes, in parts; its manifest."""
    parts = [stored[at : at + PART] for at in range(0, len(stored), PART)]
    made = StoredObject(
        name="dump.sql",
        size=len(stored),
        sha256=hashlib.sha256(stored).hexdigest(),
        parts=tuple(Part(size=len(part), sha256=hashlib.sha256(part).hexdigest()) for part in parts),
    )
    manifest = manifest_of(OWNER, objects=(made,), compression=algorithm, dump_bytes=len(DUMP)).to_bytes()
    bucket.fill({f"{KEY}/dump.sql": stored, f"{KEY}/manifest.json": manifest})
    return manifest


@pytest.fixture
def client(bucket: Memory) -> Iterator[Flaky]:
    store(bucket, DUMP)
    flaky = Flaky(0)
    options = ServeOptions(token_sha256=hashlib.sha256(flaky._token.encode()).hexdigest(), port=0)
    target = StorageTarget(name="default", bucket="b", prefix="/team/")
    spec = RunSpec(run="serve", owner=owner_of(0, "BackupStorage"), storage=target, serve=options)
    with serve.Server(("127.0.0.1", 0), serve.ServedStorage(Run(spec, Paths(), Reporter(io.StringIO()), Stop())), options) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(0.01))
        thread.start()
        flaky._real = server.server_address[1]
        yield flaky
        server.shutdown()
        thread.join()


def fetched(client: Flaky, path: Path) -> tuple[bytes, int]:
    """The file's bytes, and how many were counted in all."""
    counted: list[int] = []
    fetch.to_file(client, fetch.manifest(client, KEY), path, counted.append)
    return path.read_bytes(), sum(counted)


@pytest.mark.parametrize("faults", [[], [1], [10_000, 20_000, 5], [0, 0, 0], [-1], [-30_000, 5], [100, 100, 100, 100, 100, 100, 100, 100]])
def test_it_arrives_whole_whatever_breaks(client: Flaky, tmp_path: Path, faults: list[int]) -> None:
    client.faults = faults
    assert fetched(client, tmp_path / "x.part") == (DUMP, len(DUMP))


@pytest.mark.parametrize("kept", [0, 1, PART, PART + 7, len(DUMP) - 1, len(DUMP)])
def test_what_is_there_is_not_fetched_again(client: Flaky, tmp_path: Path, kept: int) -> None:
    (tmp_path / "x.part").write_bytes(DUMP[:kept])
    assert fetched(client, tmp_path / "x.part") == (DUMP, len(DUMP))
    wanted = [span for span in client.asked if span]
    assert (wanted[0].startswith(f"bytes={kept}-") if wanted else kept) or not kept


@pytest.mark.parametrize("at", [0, PART - 1, PART + 5, len(DUMP) - 1])
def test_what_is_there_and_wrong_is_found(client: Flaky, tmp_path: Path, at: int) -> None:
    wrong = bytearray(DUMP)
    wrong[at] ^= 1
    (tmp_path / "x.part").write_bytes(bytes(wrong) + b"and more")
    assert fetched(client, tmp_path / "x.part")[0] == DUMP
    assert len(client.asked) == 1, "only the part that is wrong"


def test_the_beginning_of_a_part_that_was_wrong_is_no_fault_of_the_bucket(client: Flaky, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(b"XXXX")
    assert fetched(client, tmp_path / "x.part") == (DUMP, len(DUMP))


def test_a_damaged_artifact_is_fetched_twice_before_it_is_reported(client: Flaky, bucket: Memory, tmp_path: Path) -> None:
    bucket.fill({f"{KEY}/dump.sql": DUMP[:PART] + b"X" + DUMP[PART + 1 :]})
    with pytest.raises(CliError, match="part 2 of 5 has SHA-256") as raised:
        fetched(client, tmp_path / "x.part")
    assert raised.value.code is CliExit.CORRUPT
    assert len(client.asked) == 3


def test_it_gives_up_where_nothing_comes(client: Flaky, tmp_path: Path) -> None:
    client.faults = [PART, *[0] * TRIES]
    with pytest.raises(CliError, match=f"broke off {TRIES} times in a row") as raised:
        fetched(client, tmp_path / "x.part")
    assert raised.value.code is CliExit.INTERRUPTED
    assert (tmp_path / "x.part").read_bytes() == DUMP[:PART]


def test_in_memory_no_part_is_let_through_unchecked(client: Flaky, bucket: Memory) -> None:
    client.faults = [5, -7]
    artifact = fetch.manifest(client, KEY)
    assert b"".join(fetch.stored_parts(client, artifact, lambda _: None)) == DUMP
    bucket.fill({f"{KEY}/dump.sql": DUMP[:PART] + b"X" + DUMP[PART + 1 :]})
    came: list[bytes] = []
    with pytest.raises(CliError):
        came.extend(fetch.stored_parts(client, artifact, lambda _: None))
    assert b"".join(came) == DUMP[:PART]


@pytest.mark.parametrize("faults", [[], [10], [36, 50_000], [-50], [0, 0, 0]])
@pytest.mark.parametrize("have", [0, 77, len(DUMP)])
def test_frames_arrive_whole(client: Flaky, faults: list[int], have: int) -> None:
    client.faults = faults
    artifact = fetch.manifest(client, KEY)
    came = fetch.framed(client, artifact, hashlib.sha256(DUMP[:have]), have, lambda _: None)
    assert b"".join(came) == DUMP[have:]


def test_frames_after_something_else_are_refused(client: Flaky) -> None:
    with pytest.raises(CliError, match="not the dump"):
        list(fetch.framed(client, fetch.manifest(client, KEY), hashlib.sha256(b"x"), 1, lambda _: None))


def test_a_manifest_is_the_recorded_one_and_no_other(client: Flaky, bucket: Memory) -> None:
    digest = hashlib.sha256(bucket.objects[f"{KEY}/manifest.json"]).hexdigest()
    assert fetch.manifest(client, KEY, digest).sha256 == hashlib.sha256(DUMP).hexdigest()
    with pytest.raises(CliError, match="the backup recorded") as raised:
        fetch.manifest(client, KEY, "0" * 64)
    assert raised.value.code is CliExit.CORRUPT


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b'"formatVersion": 1', b'"formatVersion": 2', CliExit.FAILED),
        (b'"encrypted": false', b'"encrypted": true', CliExit.FAILED),
        (b'"dump.sql"', b'"../dump.sql"', CliExit.CORRUPT),
        (b'"dumpBytes"', b'"bytes"', CliExit.CORRUPT),
        (b'"size": 30000', b'"size": 30001', CliExit.CORRUPT),
        (b"{", b"[", CliExit.CORRUPT),
    ],
)
def test_manifests_that_cannot_be_used(bucket: Memory, old: bytes, new: bytes, code: CliExit) -> None:
    manifest = store(bucket, DUMP)
    assert old in manifest
    with pytest.raises(CliError) as raised:
        fetch.parse(manifest.replace(old, new, 1), KEY)
    assert raised.value.code is code


def test_the_pods_refusal_is_passed_on(client: Flaky) -> None:
    with pytest.raises(CliError, match="ArtifactMissing") as raised:
        fetch.manifest(client, key_of(owner_of(2)))
    assert raised.value.code is CliExit.NOT_FOUND


# Decompression


def zstd(data: bytes) -> bytes:
    made = compressor("zstd", 1)
    return made.feed(data) + made.finish()


def stored_as(algorithm: str, data: bytes) -> bytes:
    return zstd(data) if algorithm == "zstd" else gzip.compress(data) if algorithm == "gzip" else data


@pytest.mark.parametrize("algorithm", ["zstd", "gzip", "none"])
@pytest.mark.parametrize("frames", [1, 3])
def test_decompression(algorithm: str, frames: int) -> None:
    stored = stored_as(algorithm, DUMP) * frames
    pieces = [stored[at : at + 1000] for at in range(0, len(stored), 1000)]
    assert b"".join(decompress.decompress(algorithm, pieces)) == DUMP * frames


def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.skipif(not shutil.which("zstd"), reason="the program is what is tried")
def test_by_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    no_library(monkeypatch)
    assert decompress.zstd_decoder() is None
    assert b"".join(decompress.decompress("zstd", [zstd(DUMP)])) == DUMP

    def broken() -> Iterator[bytes]:
        yield zstd(DUMP)[:100]
        raise CliError("the part was wrong", CliExit.CORRUPT)

    with pytest.raises(CliError, match="the part was wrong"):
        list(decompress.decompress("zstd", broken()))
    with pytest.raises(CliError, match="cannot be decompressed"):
        list(decompress.decompress("zstd", [zstd(DUMP)[:-10]]))


def test_what_can_be_undone_here(monkeypatch: pytest.MonkeyPatch) -> None:
    no_library(monkeypatch)
    monkeypatch.setenv("PATH", "")
    assert [decompress.available(algorithm) for algorithm in ("zstd", "gzip", "none")] == [False, True, True]


@pytest.mark.parametrize("algorithm", ["zstd", "gzip"])
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-5], lambda data: data[:50] + b"XX" + data[52:], lambda data: b"", lambda data: data + b"trailing"]
)
def test_damaged_streams(algorithm: str, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CliError) as raised:
        list(decompress.decompress(algorithm, [damage(stored_as(algorithm, DUMP))]))
    assert raised.value.code is CliExit.CORRUPT


def test_a_dump_has_the_length_that_the_manifest_says(bucket: Memory) -> None:
    artifact = fetch.parse(store(bucket, DUMP), KEY)
    with pytest.raises(CliError, match="its manifest says"):
        list(fetch.unpacked(artifact, iter([DUMP[:-1]])))


def test_an_unknown_algorithm() -> None:
    with pytest.raises(CliError, match="lz77"):
        list(decompress.decompress("lz77", [b""]))
