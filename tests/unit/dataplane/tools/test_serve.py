"""What a serving pod hands out, to whom, and when it ends."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.artifacts import ROOT, key_of, manifest_of, objects_of, owner_of
from tests.unit.support.memory_storage import Memory, failing, run

from dbbackup.contract import wire
from dbbackup.contract.errors import Failure
from dbbackup.contract.manifest import Part, StoredObject
from dbbackup.contract.report import InventoryItem
from dbbackup.contract.run import RunSpec, ServeOptions, StorageTarget
from dbbackup.dataplane.context import Run, Stop
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.paths import Paths
from dbbackup.dataplane.tools import serve
from dbbackup.dataplane.tools.serve import ServedStorage, Server
from dbbackup.storage.codec import compressor

TOKEN = "only its maker knows"
OPTIONS = ServeOptions(token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest(), port=0, idle_seconds=1)
SQL = b"SELECT 1;\n" * 300_000
OWNER = owner_of(1)
KEY = key_of(OWNER)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setattr(serve, "open_bucket", memory.open)
    zstd = compressor("zstd", 1)
    stored = zstd.feed(SQL) + zstd.finish()
    parts = [stored[at : at + 500] for at in range(0, len(stored), 500)]
    made = StoredObject(
        name="dump.sql.zst",
        size=len(stored),
        sha256=hashlib.sha256(stored).hexdigest(),
        parts=tuple(Part(size=len(part), sha256=hashlib.sha256(part).hexdigest()) for part in parts),
    )
    manifest = manifest_of(OWNER, objects=(made,), dump_bytes=len(SQL))
    memory.fill({f"{KEY}/dump.sql.zst": stored, f"{KEY}/manifest.json": manifest.to_bytes()})
    memory.fill({f"secret/{ROOT}x": b"of another namespace"})
    return memory


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def server(bucket: Memory, log: io.StringIO) -> Iterator[Server]:
    spec = RunSpec(run="serve", owner=owner_of(0, "BackupStorage"), storage=StorageTarget(name="default", bucket="b", prefix="/team/"), serve=OPTIONS)
    with Server(("127.0.0.1", 0), ServedStorage(Run(spec, Paths(), Reporter(log), Stop())), OPTIONS) as made:
        thread = threading.Thread(target=lambda: made.serve_forever(0.01))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def get(server: Server) -> Callable[..., tuple[int, bytes, dict[str, str]]]:
    def ask(path: str, token: str = TOKEN, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection(*server.server_address[:2], timeout=5)  # type: ignore[arg-type]
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}", **headers})
            response = connection.getresponse()
            return response.status, response.read(), dict(response.headers.items())
        finally:
            connection.close()

    return ask


def test_only_a_client_with_the_token_is_answered(get: Callable[..., tuple[int, bytes, dict[str, str]]], bucket: Memory) -> None:
    for token in ("", "another", OPTIONS.token_sha256):
        status, body, _ = get(f"/v1/manifest?key={KEY}", token)
        assert status == 403
        assert b"manifest" not in body
    assert not bucket.asked


def test_a_manifest_comes_with_its_digest(get: Callable[..., tuple[int, bytes, dict[str, str]]], bucket: Memory) -> None:
    status, body, headers = get(f"/v1/manifest?key={KEY}")
    assert (status, body) == (200, bucket.objects[f"{KEY}/manifest.json"])
    assert headers[wire.DIGEST_HEADER] == hashlib.sha256(body).hexdigest()
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("wanted", "span"), [("", slice(None)), ("bytes=0-99", slice(0, 100)), ("bytes=7-", slice(7, None))])
def test_any_range_of_the_stored_artifact(
    get: Callable[..., tuple[int, bytes, dict[str, str]]], bucket: Memory, monkeypatch: pytest.MonkeyPatch, wanted: str, span: slice
) -> None:
    monkeypatch.setattr(serve, "PIECE", 30)
    stored = bucket.objects[f"{KEY}/dump.sql.zst"]
    status, body, headers = get(f"/v1/artifact?key={KEY}", **({"Range": wanted} if wanted else {}))
    assert body == stored[span]
    assert status == (206 if wanted else 200)
    assert headers["Content-Range"].endswith(f"/{len(stored)}")


@pytest.mark.parametrize(
    "key", ["", "../x", f"secret/{ROOT}x", f"{ROOT}=restores/x", KEY.replace("demo", "other"), f"{KEY}/../../x", f"{KEY}/dump.sql.zst"]
)
def test_nothing_outside_of_the_namespaces_artifacts_is_served(
    get: Callable[..., tuple[int, bytes, dict[str, str]]], bucket: Memory, key: str
) -> None:
    for path in ("manifest", "artifact", "sql"):
        status, body, _ = get(f"/v1/{path}?key={key}")
        assert status == 400
        assert json.loads(body)["reason"] == "InvalidSpec"
    assert not [asked for asked in bucket.asked if asked[0] == "get"]


def test_missing_artifacts_and_failures_are_reported(get: Callable[..., tuple[int, bytes, dict[str, str]]], bucket: Memory) -> None:
    status, body, _ = get(f"/v1/artifact?key={key_of(owner_of(2))}")
    assert (status, json.loads(body)["reason"]) == (404, "ArtifactMissing")
    bucket.before = failing("get", "StorageUnavailable", "dump")
    status, body, _ = get(f"/v1/artifact?key={KEY}")
    assert (status, json.loads(body)["reason"]) == (502, "StorageUnavailable")
    assert json.loads(body)["hint"]


def unframed(body: bytes) -> tuple[bytes, bytes | None]:
    """The data, and the digest of the end."""
    data = b""
    while body:
        size, digest, body = int.from_bytes(body[:4], "big"), body[4:36], body[36:]
        if not size:
            return data, digest
        assert hashlib.sha256(body[:size]).digest() == digest
        data, body = data + body[:size], body[size:]
    return data, None


@pytest.mark.parametrize("start", [0, 1, 1_500_000, len(SQL)])
def test_sql_in_frames_from_anywhere(get: Callable[..., tuple[int, bytes, dict[str, str]]], start: int) -> None:
    status, body, _ = get(f"/v1/sql?key={KEY}&from={start}")
    assert status == 200
    assert unframed(body) == (SQL[start:], hashlib.sha256(SQL).digest())


def test_sql_of_a_damaged_artifact_has_no_end(get: Callable[..., tuple[int, bytes, dict[str, str]]], bucket: Memory) -> None:
    stored = bytearray(bucket.objects[f"{KEY}/dump.sql.zst"])
    stored[-1] ^= 1
    bucket.fill({f"{KEY}/dump.sql.zst": bytes(stored)})
    status, body, _ = get(f"/v1/sql?key={KEY}")
    assert status == 502 or unframed(body)[1] is None


def test_the_list_of_artifacts(get: Callable[..., tuple[int, bytes, dict[str, str]]], bucket: Memory) -> None:
    bucket.fill(objects_of(owner_of(3)))
    bucket.fill({f"{ROOT}=probe/old": b"x", f"{key_of(owner_of(4))}/dump.sql.zst": b"never sealed"})
    status, body, _ = get("/v1/artifacts")
    items = [InventoryItem.model_validate_json(line) for line in body.splitlines()]
    assert status == 200
    assert sorted(item.key for item in items) == sorted([KEY, key_of(owner_of(3))])
    assert all(item.manifest and item.manifest.database.name == "app" for item in items)
    assert not [asked for asked in bucket.asked if asked[0] in ("put", "delete")], "it is only looked at"


def test_it_ends_without_requests(bucket: Memory, tmp_path: Path) -> None:
    ended = run(tmp_path, "serve", serve=OPTIONS.model_copy(update={"idle_seconds": 0}), timeout_seconds=30)
    assert ended.code == 0
    assert "serving on 127.0.0.1" in ended.log


def test_it_does_not_end_under_a_request(server: Server) -> None:
    server._last = -1e9
    assert server.idle()
    server.request_began()
    assert not server.idle()
    server.request_ended()
    assert not server.idle()


def test_it_ends_at_its_timeout(bucket: Memory, tmp_path: Path) -> None:
    ended = run(tmp_path, "serve", serve=OPTIONS.model_copy(update={"idle_seconds": 60}), timeout_seconds=1)
    assert ended.reason == "Timeout"


def test_without_a_token_it_does_not_serve(bucket: Memory) -> None:
    spec = RunSpec(run="serve", owner=owner_of(0, "BackupStorage"), storage=StorageTarget(name="d", bucket="b"), serve=ServeOptions(token_sha256=""))
    with pytest.raises(Failure, match="tokenSha256"):
        serve.execute(Run(spec, Paths(), Reporter(), Stop()))


def test_each_served_artifact_is_logged_once(get: Callable[..., tuple[int, bytes, dict[str, str]]], log: io.StringIO) -> None:
    for wanted in ("bytes=0-9", "bytes=10-19"):
        assert get(f"/v1/artifact?key={KEY}", Range=wanted)[0] == 206
    get(f"/v1/sql?key={KEY}")
    get("/v1/artifacts")
    get("/v1/artifact?key=../x")
    get(f"/v1/artifact?key={KEY}", "another token")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["action"], line.get("target")) for line in lines if line.get("audit")] == [("download", KEY), ("list", None)]
