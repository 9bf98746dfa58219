"""Downloads: whole, or visibly broken; never a byte of a part whose digest does not hold."""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.integration.artifacts import key_of, manifest_of, owner_of
from tests.unit.support.console_world import Answer, World, backup, obj, signed_in
from tests.unit.support.memory_storage import Memory

from dbbackup.console import download
from dbbackup.console.config import ConsoleConfig
from dbbackup.contract.manifest import Manifest, Part, StoredObject
from dbbackup.storage.codec import compressor

SQL = b"".join(b"INSERT INTO t VALUES (%d);\n" % (n * 2654435761 % 2**32) for n in range(100_000))
PART = 200_000
OWNER = owner_of(1, namespace="shop")
KEY = key_of(OWNER)


def stored(body: bytes, name: str) -> StoredObject:
    parts = tuple(
        Part(size=len(part), sha256=hashlib.sha256(part).hexdigest()) for part in (body[at : at + PART] for at in range(0, len(body), PART))
    )
    return StoredObject(name=name, size=len(body), sha256=hashlib.sha256(body).hexdigest(), parts=parts)


def artifact(algorithm: Any = "zstd", **changes: Any) -> tuple[Manifest, bytes]:
    packer = compressor(algorithm)
    body = packer.feed(SQL) + packer.finish()
    extension = {"zstd": ".zst", "gzip": ".gz", "none": ""}[algorithm]
    whole = stored(body, f"dump.sql{extension}")
    return manifest_of(OWNER, objects=(whole,), compression=algorithm, dump_bytes=len(SQL), **changes), body


@asynccontextmanager
async def world(
    monkeypatch: pytest.MonkeyPatch, manifest: Manifest, body: bytes, memory: Memory | None = None, **status: Any
) -> AsyncIterator[tuple[World, Memory]]:
    """A signed-in person, a Completed backup whose artifact lies in a bucket in memory, credentials
    at hand."""
    bucket = memory or Memory()
    document = manifest.to_bytes()
    bucket.objects = {f"{KEY}/manifest.json": document, f"{KEY}/{manifest.artifact.name}": body}
    asked: list[Any] = []

    def connect(*arguments: Any) -> Memory:
        asked.append(arguments)
        return bucket

    monkeypatch.setattr(download, "_connect", connect)
    found = {"artifact": {"key": KEY, "bucket": "b", "manifestSha256": hashlib.sha256(document).hexdigest()}, **status}
    storage = obj("BackupStorage", "default", spec={"s3": {"bucket": "b", "credentialsSecretRef": {"name": "s3"}}})
    config = ConsoleConfig(download_namespaces=frozenset({"shop"}), max_downloads=2)
    async with signed_in(backup("nightly", status=found), storage, config=config) as made:
        made.kube.secret("shop", "s3", accessKeyId="id", secretAccessKey="key")
        yield made, bucket
        assert made.downloads._running == 0, "every slot was given back"
        assert all(keys == ("id", "key") for _, keys, _ in asked)


async def fetch(made: World, query: str = "", method: str = "GET") -> Answer:
    return await made.request(method, f"/api/v1/namespaces/shop/backups/nightly/download{query}")


@pytest.mark.parametrize("algorithm", ["zstd", "gzip", "none"])
async def test_sql(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(monkeypatch, *artifact(algorithm)) as (made, _):
        answer = await fetch(made)
        assert (answer.status, answer.broken) == (200, False)
        assert answer.body == SQL
        assert answer.headers["content-type"] == "application/sql"
        assert answer.headers["content-length"] == str(len(SQL))
        assert answer.headers["content-disposition"] == 'attachment; filename="nightly.sql"'
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_as_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, body = artifact()
    async with world(monkeypatch, manifest, body) as (made, _):
        answer = await fetch(made, "?raw=1")
        assert answer.body == body
        assert answer.headers["content-disposition"] == 'attachment; filename="nightly.sql.zst"'
        assert answer.headers["content-type"] == "application/zstd"


async def test_a_custom_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, body = artifact(format="custom")
    async with world(monkeypatch, manifest, body) as (made, _):
        answer = await fetch(made)
        assert answer.headers["content-disposition"] == 'attachment; filename="nightly.dump"'
        assert answer.headers["content-type"] == "application/octet-stream"


async def test_a_look_at_the_headers_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(monkeypatch, *artifact()) as (made, bucket):
        answer = await fetch(made, method="HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert [operation for operation, _ in bucket.asked if operation == "get_range"] == []


async def test_a_missing_artifact_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(monkeypatch, *artifact()) as (made, bucket):
        for key in (f"{KEY}/dump.sql.zst", f"{KEY}/manifest.json"):
            del bucket.objects[key]
            answer = await fetch(made)
            assert answer.status == 404
            assert '"ArtifactMissing"' in answer.text
            assert "is not in the bucket" in answer.text


def damaged(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


@pytest.mark.parametrize("raw", ["", "?raw=1"])
async def test_a_damaged_first_part_is_an_error(raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, body = artifact()
    async with world(monkeypatch, manifest, damaged(body, 10)) as (made, _):
        answer = await fetch(made, raw)
        assert answer.status == 502
        assert '"ArtifactCorrupt"' in answer.text


@pytest.mark.parametrize("raw", ["", "?raw=1"])
async def test_a_damaged_later_part_breaks_the_stream(raw: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of the damaged part is passed on, and the end is no clean one."""
    manifest, body = artifact()
    assert len(body) > 2 * PART
    async with world(monkeypatch, manifest, damaged(body, len(body) - 5)) as (made, _):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            answer = await fetch(made, raw)
        assert answer.status == 200
        assert answer.broken
        assert len(answer.body) < int(answer.headers["content-length"])
        assert (body if raw else SQL).startswith(answer.body)
        if raw:
            assert len(answer.body) <= len(body) // PART * PART
        audited = [vars(record)["audited"] for record in caplog.records if "audited" in vars(record)]
        assert [line["outcome"] for line in audited] == ["allowed", "failed"]


@pytest.mark.parametrize("said", [len(SQL) - 1, len(SQL) + 1])
async def test_a_wrong_length_breaks_the_stream(said: int, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, body = artifact()
    async with world(monkeypatch, manifest.model_copy(update={"dump_bytes": said}), body) as (made, _):
        answer = await fetch(made)
        assert answer.broken
        assert len(answer.body) <= said


async def test_another_manifest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write to the bucket can slip nobody another backup."""
    manifest, body = artifact()
    async with world(monkeypatch, manifest, body) as (made, bucket):
        bucket.objects[f"{KEY}/manifest.json"] = manifest.model_copy(update={"rows": 1}).to_bytes()
        answer = await fetch(made)
        assert answer.status == 502
        assert '"ManifestDigestMismatch"' in answer.text


async def test_a_stream_that_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    body = zlib.compress(SQL)[:-10]
    whole = stored(body, "dump.sql.gz")
    manifest = manifest_of(OWNER, objects=(whole,), compression="gzip", dump_bytes=len(SQL))
    async with world(monkeypatch, manifest, body) as (made, _):
        answer = await fetch(made)
        assert answer.broken or answer.status == 502


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        ({"phase": "Running"}, 409, "NotCompleted"),
        ({"phase": "Failed"}, 409, "NotCompleted"),
        ({"phase": "Expired"}, 404, "ArtifactMissing"),
        ({"phase": "Failed", "failure": {"reason": "ArtifactMissing"}}, 404, "ArtifactMissing"),
        ({"artifact": {"key": KEY, "bucket": "another"}}, 404, "ArtifactMissing"),
    ],
)
async def test_what_is_no_download(status: dict[str, Any], code: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(monkeypatch, *artifact(), **status) as (made, bucket):
        answer = await fetch(made)
        assert answer.status == code
        assert f'"{reason}"' in answer.text
        assert bucket.asked == []


async def test_secrets_are_read_only_where_the_chart_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(monkeypatch, *artifact()) as (made, bucket):
        monkeypatch.setattr(made.service, "config", ConsoleConfig())
        answer = await fetch(made)
        assert answer.status == 403
        assert "console.downloadNamespaces" in answer.text
        assert "kubectl dbbackup download nightly -n shop" in answer.text
        assert bucket.asked == []


async def test_the_consoles_own_cloud_identity_is_used_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(monkeypatch, *artifact()) as (made, bucket):
        made.kube.put(obj("BackupStorage", "default", spec={"s3": {"bucket": "b"}}))
        assert (await fetch(made)).status == 403
        assert bucket.asked == []


@pytest.mark.parametrize("secret", [None, {"accessKeyId": "id"}, {"accessKeyId": "id", "secretAccessKey": ""}])
async def test_credentials_that_are_not_there(secret: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(monkeypatch, *artifact()) as (made, _):
        del made.kube.objects["secrets", "shop", "s3"]
        if secret is not None:
            made.kube.secret("shop", "s3", **secret)
        answer = await fetch(made)
        assert answer.status == 502
        assert ("SecretMissing" if secret is None else "KeyMissing") in answer.text


async def test_downloads_at_a_time_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(monkeypatch, *artifact()) as (made, _):
        made.downloads._running = 2
        answer = await fetch(made)
        assert answer.status == 503
        assert answer.headers["retry-after"]
        made.downloads._running = 0


async def test_large_parts_are_for_the_cli(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, body = artifact()
    monkeypatch.setattr(download, "LARGEST_PART", PART - 1)
    async with world(monkeypatch, manifest, body) as (made, _):
        answer = await fetch(made)
        assert answer.status == 501
        assert "kubectl dbbackup download" in answer.text


def test_the_last_chunk_waits_for_the_end() -> None:
    seen: list[str] = []

    def chunks() -> Any:
        for name in "abc":
            seen.append(name)
            yield name.encode()
        seen.append("end")

    found = [(chunk, seen[-1]) for chunk in download.hold_back_last(chunks())]
    assert found == [(b"a", "b"), (b"b", "c"), (b"c", "end")]
