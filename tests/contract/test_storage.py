"""The Storage Protocol, held against real servers."""

from __future__ import annotations

import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.contract.conftest import Open, connect
from tests.contract.servers import OWNER, STRANGER, Server, free_ports

from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import key_component
from dbbackup.contract.run import StorageTarget
from dbbackup.storage import retries
from dbbackup.storage.base import Storage
from dbbackup.storage.directories import abort_uploads, delete_directory
from dbbackup.storage.s3 import S3Storage, open_storage

MIB = 1 << 20
AWKWARD = ["plain", "with space", "plus+and%25", "quote'\"", "ünïcødé-数据", "a&b<c>", "semi;colon?query=1#hash", "=2E=2E"]


def failing(call: object, *arguments: object, **named: object) -> Failure:
    with pytest.raises(Failure) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    return caught.value


def uploads(storage: Storage, key: str = "") -> list[str]:
    return [info.key for info in storage.list_uploads(key)]


def keys(storage: Storage, prefix: str = "") -> list[str]:
    return [info.key for info in storage.list(prefix)]


@contextmanager
def lost_replies(storage: Storage, operation: str, count: int) -> Iterator[list[str]]:
    """The server does as it was asked, `count` times its answer is lost; yields what was lost."""
    assert isinstance(storage, S3Storage)
    lost: list[str] = []

    def lose(**_: object) -> None:
        if len(lost) < count:
            lost.append(operation)
            raise ConnectionResetError("reply lost")

    events = storage.client.meta.events
    for name in (f"after-call.s3.{operation}", f"after-call-error.s3.{operation}"):
        events.register(name, lose)
    try:
        yield lost
    finally:
        for name in (f"after-call.s3.{operation}", f"after-call-error.s3.{operation}"):
            events.unregister(name, lose)


# --- bucket


def test_bucket_is_made_when_asked(open_: Open) -> None:
    storage = open_()
    failure = failing(storage.ensure_bucket, create=False)
    assert failure.reason.name == "BucketNotFound"
    storage.ensure_bucket(create=True)
    storage.ensure_bucket(create=True)
    storage.ensure_bucket(create=False)


def test_concurrent_creation_of_a_bucket_succeeds(open_: Open) -> None:
    storages = [open_() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda storage: storage.ensure_bucket(create=True), storages))
    storages[0].put("a", b"1", "text/plain")


def test_bucket_is_private(storage: Storage, server: Server, bucket: str) -> None:
    storage.put("secret", b"1", "text/plain")
    for path in ("", "/secret"):
        with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(f"{server.endpoint}/{bucket}{path}"):
            pass
        assert caught.value.code == 403
        caught.value.close()


def test_missing_bucket(open_: Open) -> None:
    storage = open_(bucket="no-such-bucket")
    for call in (
        lambda: storage.get("a", 10),
        lambda: storage.get_range("a", 0, 1),
        lambda: storage.put("a", b"1", "text/plain"),
        lambda: list(storage.list("")),
        lambda: list(storage.list_uploads("")),
        lambda: storage.start_upload("a", "text/plain"),
    ):
        failure = failing(call)
        assert failure.reason.name == "BucketNotFound", failure
        assert "no-such-bucket" in failure.message


# --- objects


@pytest.mark.parametrize("size", [0, 1, 100, 5 * MIB + 1])
def test_put_and_get(storage: Storage, size: int) -> None:
    body = bytes(i * 7 % 251 for i in range(100)) * (size // 100 + 1)
    body = body[:size]
    storage.put("dir/object", body, "application/zstd")
    assert storage.get("dir/object", size) == body
    info = storage.head("dir/object")
    assert info
    assert (info.key, info.size) == ("dir/object", size)
    assert abs(time.time() - info.modified.timestamp()) < 60
    assert [(i.key, i.size) for i in storage.list("dir/")] == [("dir/object", size)]


def test_put_overwrites(storage: Storage) -> None:
    storage.put("a", b"first one", "text/plain")
    storage.put("a", b"second", "text/plain")
    assert storage.get("a", 100) == b"second"


def test_get_is_limited(storage: Storage) -> None:
    storage.put("a", b"x" * 11, "text/plain")
    assert failing(storage.get, "a", 10).reason.name == "ArtifactCorrupt"
    assert len(storage.get("a", 11)) == 11


def test_ranges(storage: Storage) -> None:
    body = bytes(range(256)) * 64
    storage.put("a", body, "text/plain")
    assert storage.get_range("a", 0, len(body)) == body
    assert storage.get_range("a", 1000, 24) == body[1000:1024]
    assert storage.get_range("a", len(body) - 1, 1) == body[-1:]
    for start, length in ((0, len(body) + 1), (len(body) - 1, 2), (len(body), 1), (len(body) + 5, 10)):
        failure = failing(storage.get_range, "a", start, length)
        assert failure.reason.name == "ArtifactCorrupt", failure


def test_missing_object(storage: Storage) -> None:
    assert storage.head("nothing") is None
    assert keys(storage) == []
    for call in (lambda: storage.get("dir/nothing", 10), lambda: storage.get_range("dir/nothing", 0, 10)):
        failure = failing(call)
        assert failure.reason.name == "ArtifactMissing"
        assert "dir/nothing" in failure.message
    storage.delete(["nothing", "dir/nothing"])
    storage.delete([])


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_keys(storage: Storage, name: str) -> None:
    key = f"top/{name}/dump.sql.zst"
    storage.put(key, b"body", "text/plain")
    assert storage.get(key, 10) == b"body"
    assert keys(storage, f"top/{name}/") == [key]
    info = storage.head(key)
    assert info
    assert info.key == key
    upload = storage.start_upload(key, "text/plain")
    assert uploads(storage, key) == [key]
    upload.abort()
    storage.delete([key, "top/other"])
    assert keys(storage) == []


@pytest.mark.parametrize("name", ["..", ".", "../../other", "a/b", "", "ü" * 300, "x\ny", *AWKWARD])
def test_key_components_stay_in_their_directory(storage: Storage, name: str) -> None:
    storage.put("outside", b"1", "text/plain")
    key = f"prefix/{key_component(name)}/manifest.json"
    storage.put(key, b"2", "text/plain")
    assert keys(storage) == ["outside", key]
    assert delete_directory(storage, f"prefix/{key_component(name)}") == 1
    assert keys(storage) == ["outside"]


def test_a_thousand_and_more(storage: Storage) -> None:
    wanted = [f"many/{i:05}" for i in range(2050)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: storage.put(key, b"x", "text/plain"), wanted))
    storage.put("manz", b"x", "text/plain")
    assert keys(storage, "many/") == wanted
    storage.delete(key for key in wanted)
    assert keys(storage) == ["manz"]


def test_many_uploads(storage: Storage, server: Server) -> None:
    if not server.lists_uploads_by_prefix:
        pytest.skip("the server lists the uploads of one exact key only")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: storage.start_upload(f"dir/{i:05}", "text/plain"), range(1020)))
    assert len(list(storage.list_uploads("dir/"))) == 1020
    assert abort_uploads(storage, "dir") == 1020
    assert list(storage.list_uploads("")) == []


def test_objects_of_one_directory_are_listed_together(storage: Storage) -> None:
    """Over the end of a page too; whether whole keys are sorted, or names directory by directory,
    differs from server to server."""
    directories = [f"d/{name}{number}" for name in ("app/", "app-2/", "app.3/") for number in range(120)]
    names = [f"{directory}/{name}" for directory in directories for name in ("RESTORE.md", "dump", "manifest.json")]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: storage.put(key, b"1", "text/plain"), names))
    listed = keys(storage, "d/")
    assert sorted(listed) == sorted(names)
    assert [key for key, _ in itertools.groupby(listed, lambda key: key.rpartition("/")[0])] == list(
        dict.fromkeys(key.rpartition("/")[0] for key in listed)
    )


# --- uploads


def test_an_upload_has_its_start_time(storage: Storage) -> None:
    storage.start_upload("a", "text/plain").part(1, b"1")
    (found,) = storage.list_uploads("a")
    assert abs(time.time() - found.initiated.timestamp()) < 60


def test_upload_shows_only_when_complete(storage: Storage) -> None:
    parts = [bytes([n]) * (5 * MIB + n) for n in (1, 2, 3)]
    storage.put("dir/a", b"before", "text/plain")
    upload = storage.start_upload("dir/a", "application/zstd")
    for number in (2, 3, 1):
        upload.part(number, memoryview(parts[number - 1]))
    assert storage.get("dir/a", 10) == b"before"
    assert uploads(storage, "dir/a") == ["dir/a"]
    upload.complete()
    whole = b"".join(parts)
    assert storage.get("dir/a", 1 << 30) == whole
    assert storage.get_range("dir/a", 5 * MIB, 10) == whole[5 * MIB : 5 * MIB + 10]
    assert list(storage.list_uploads("")) == []
    upload.abort()
    assert storage.head("dir/a")


def test_part_can_be_sent_again(storage: Storage) -> None:
    upload = storage.start_upload("a", "text/plain")
    upload.part(1, b"wrong" * MIB)
    upload.part(1, b"right" * MIB)
    upload.complete()
    assert storage.get("a", 1 << 30) == b"right" * MIB


def test_abort_leaves_nothing(storage: Storage) -> None:
    upload = storage.start_upload("dir/a", "text/plain")
    upload.part(1, b"x" * 5 * MIB)
    upload.abort()
    upload.abort()
    assert list(storage.list_uploads("")) == []
    assert keys(storage) == []


def test_uploads_of_one_key_are_apart(storage: Storage) -> None:
    first, second = (storage.start_upload("a", "text/plain") for _ in range(2))
    first.part(1, b"1" * 5 * MIB)
    second.part(1, b"2" * 5 * MIB)
    first.abort()
    second.complete()
    assert storage.get("a", 1 << 30) == b"2" * 5 * MIB


def test_damage_on_the_way_is_refused(storage: Storage) -> None:
    """A part whose bytes are not those that were signed must not be kept."""
    assert isinstance(storage, S3Storage)

    def damage(request: object, **_: object) -> None:
        body = request.body  # type: ignore[attr-defined]
        body._view = memoryview(b"y" + bytes(body._view[1:]))

    upload = storage.start_upload("a", "text/plain")
    storage.client.meta.events.register("before-send.s3.UploadPart", damage)
    patience, retries.PATIENCE = retries.PATIENCE, 1.0
    try:
        failure = failing(upload.part, 1, b"x" * 5 * MIB)
    finally:
        retries.PATIENCE = patience
        storage.client.meta.events.unregister("before-send.s3.UploadPart", damage)
    assert failure.reason.name == "StorageUnavailable", failure
    upload.part(1, b"z" * 5 * MIB)
    upload.complete()
    assert storage.get("a", 1 << 30) == b"z" * 5 * MIB


# --- conditions


def test_put_if_absent(storage: Storage) -> None:
    storage.put("a", b"first", "text/plain", if_absent=True)
    for body in (b"second", b"first"):
        failure = failing(storage.put, "a", body, "text/plain", if_absent=True)
        assert failure.reason.name == "ArtifactExists", failure
    assert storage.get("a", 10) == b"first"
    storage.delete(["a"])
    storage.put("a", b"third", "text/plain", if_absent=True)


def test_upload_if_absent(storage: Storage) -> None:
    uploads = [storage.start_upload("a", "text/plain", if_absent=True) for _ in range(2)]
    for number, upload in enumerate(uploads):
        upload.part(1, bytes([number]) * 5 * MIB)
    uploads[1].complete()
    assert failing(uploads[0].complete).reason.name == "ArtifactExists"
    uploads[0].abort()
    assert storage.get("a", 1 << 30) == b"\1" * 5 * MIB
    assert not list(storage.list_uploads(""))


def test_lost_reply_to_a_put_if_absent(storage: Storage) -> None:
    """The second try finds what the first one wrote, and is content; what someone else wrote is not
    taken for it."""
    with lost_replies(storage, "PutObject", 1) as lost:
        storage.put("a", b"mine", "text/plain", if_absent=True)
    assert lost == ["PutObject"]
    with lost_replies(storage, "PutObject", 1), pytest.raises(Failure) as caught:
        storage.put("a", b"also", "text/plain", if_absent=True)
    assert caught.value.reason.name == "ArtifactExists"
    assert storage.get("a", 10) == b"mine"


# --- faults


def test_unknown_access_key(open_: Open, storage: Storage) -> None:
    failure = failing(open_(keys=("nobody", OWNER[1])).ensure_bucket, create=False)
    assert failure.reason.name == "StorageAuthenticationFailed", failure


def test_wrong_secret_key(open_: Open, storage: Storage) -> None:
    storage.put("a", b"1", "text/plain")
    wrong = open_(keys=(OWNER[0], "not-the-owners-secret"))
    for call in (
        lambda: wrong.ensure_bucket(create=True),
        lambda: wrong.get("a", 1),
        lambda: wrong.head("a"),
        lambda: wrong.put("b", b"1", "text/plain"),
        lambda: wrong.delete(["a"]),
        lambda: wrong.delete(["a", "b"]),
        lambda: wrong.start_upload("a", "text/plain"),
    ):
        failure = failing(call)
        assert failure.reason.name == "StorageAuthenticationFailed", failure
        assert "not-the-owners-secret" not in str(failure)
    assert storage.get("a", 1) == b"1"


def test_credentials_of_the_environment(storage: Storage, server: Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Secret botocore's default chain is asked, as for IRSA and Pod Identity."""
    target = StorageTarget(name="contract", bucket=bucket, endpoint=server.endpoint)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    failure = failing(open_storage(target).ensure_bucket, create=False)
    assert failure.reason.name == "StorageAuthenticationFailed", failure
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", OWNER[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", OWNER[1])
    open_storage(target).ensure_bucket(create=False)


def test_forbidden(open_: Open, storage: Storage, server: Server, bucket: str) -> None:
    if server.name == "minio":
        pytest.skip("the server is started without a second user")
    storage.put("a", b"1", "text/plain")
    stranger = open_(keys=STRANGER)
    for call in (
        lambda: stranger.ensure_bucket(create=True),
        lambda: stranger.get("a", 1),
        lambda: stranger.head("a"),
        lambda: stranger.put("b", b"1", "text/plain"),
        lambda: stranger.delete(["a"]),
        lambda: stranger.delete(["a", "b"]),
        lambda: stranger.start_upload("a", "text/plain"),
        lambda: list(stranger.list_uploads("")),
    ):
        failure = failing(call)
        assert failure.reason.name == "StorageAccessDenied", failure
        assert bucket in failure.message
    assert keys(storage) == ["a"]


def test_invalid_bucket_name(open_: Open) -> None:
    assert failing(open_(bucket="a").ensure_bucket, create=True).reason.name == "InvalidSpec"


def test_unreachable(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PATIENCE", 1.5)
    storage = open_(endpoint=f"http://127.0.0.1:{free_ports(1)[0]}")
    started = time.monotonic()
    failure = failing(storage.ensure_bucket, create=True)
    assert failure.reason.name == "StorageUnavailable"
    assert time.monotonic() - started > 1
    assert failure.reason.retryable


def test_tls_against_a_plain_server(open_: Open, server: Server) -> None:
    failure = failing(open_(endpoint=server.endpoint.replace("http:", "https:")).ensure_bucket, create=False)
    assert failure.reason.name == "StorageTLSFailed", failure


def test_server_away_in_mid_upload_and_back(own_server: Server, tmp_path: Path, bucket: str) -> None:
    storage = connect(own_server.endpoint, tmp_path, bucket)
    storage.ensure_bucket(create=True)
    upload = storage.start_upload("a", "text/plain")
    upload.part(1, b"1" * 5 * MIB)
    own_server.kill()
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(upload.part, 2, b"2" * 5 * MIB)
        time.sleep(2)
        assert not second.done()
        own_server.start()
        second.result(timeout=60)
    upload.complete()
    assert storage.get("a", 1 << 30) == b"1" * 5 * MIB + b"2" * 5 * MIB


def test_server_away_for_good(own_server: Server, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PATIENCE", 2.0)
    storage = connect(own_server.endpoint, tmp_path, bucket)
    storage.ensure_bucket(create=True)
    upload = storage.start_upload("a", "text/plain")
    upload.part(1, b"1" * 5 * MIB)
    own_server.kill()
    failure = failing(upload.part, 2, b"2" * 5 * MIB)
    assert failure.reason.name == "StorageUnavailable"
    monkeypatch.setattr("dbbackup.storage.retries.time.sleep", pytest.fail)  # what is known to be away is not waited for again
    assert failing(upload.abort).reason.name == "StorageUnavailable"


def test_abort_ends_a_part_that_waits(own_server: Server, tmp_path: Path, bucket: str) -> None:
    storage = connect(own_server.endpoint, tmp_path, bucket)
    storage.ensure_bucket(create=True)
    upload = storage.start_upload("a", "text/plain")
    own_server.kill()
    with ThreadPoolExecutor(2) as pool:
        part = pool.submit(upload.part, 1, b"1" * 5 * MIB)
        time.sleep(1)
        abort = pool.submit(upload.abort)
        assert part.exception(timeout=retries.PATIENCE / 2)
        own_server.start()
        abort.result(timeout=60)
    assert list(storage.list_uploads("")) == []


@pytest.mark.parametrize("if_absent", [False, True])
def test_lost_reply_to_a_completion(storage: Storage, if_absent: bool) -> None:
    """The server completed, the answer was lost: the second try finds no upload, and the object
    says that all is well."""
    upload = storage.start_upload("a", "text/plain", if_absent=if_absent)
    upload.part(1, b"1" * 5 * MIB)
    with lost_replies(storage, "CompleteMultipartUpload", 1) as lost:
        upload.complete()
    assert lost == ["CompleteMultipartUpload"]
    assert storage.get("a", 1 << 30) == b"1" * 5 * MIB


def test_completion_lost_to_someone_else(storage: Storage) -> None:
    """An object of the same size that another upload made is not taken for this one's."""
    first, second = (storage.start_upload("a", "text/plain", if_absent=True) for _ in range(2))
    first.part(1, b"1" * 5 * MIB)
    second.part(1, b"2" * 5 * MIB)
    second.complete()
    with lost_replies(storage, "CompleteMultipartUpload", 1), pytest.raises(Failure) as caught:
        first.complete()
    assert caught.value.reason.name == "ArtifactExists"


def test_upload_that_someone_aborted(storage: Storage) -> None:
    upload = storage.start_upload("dir/dump.custom.zst", "text/plain")
    upload.part(1, b"1" * 5 * MIB)
    abort_uploads(storage, "dir")
    assert failing(upload.complete).reason.name == "StorageRefused"
    assert keys(storage) == []
    upload.abort()


# --- directories


def test_delete_directory(storage: Storage) -> None:
    for key in ("d/manifest.json", "d/dump.sql.zst", "d/RESTORE.md", "d2/manifest.json", "e"):
        storage.put(key, json.dumps(key).encode(), "text/plain")
    storage.start_upload("d/dump.sql.zst", "text/plain").part(1, b"1" * 5 * MIB)
    storage.start_upload("d2/dump.sql.zst", "text/plain")
    assert delete_directory(storage, "d") == 3
    assert keys(storage) == ["d2/manifest.json", "e"]
    assert uploads(storage, "d/dump.sql.zst") == []
    assert uploads(storage, "d2/dump.sql.zst") == ["d2/dump.sql.zst"]
    assert delete_directory(storage, "d") == 0
