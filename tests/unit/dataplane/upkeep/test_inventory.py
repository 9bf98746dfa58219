"""What an inventory makes of a bucket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.artifacts import ROOT, EndedRun, key_of, known, manifest_of, objects_of, owner_of
from tests.unit.support.memory_storage import NOW, Memory, changed, failing, run, without

from dbbackup.contract import keys
from dbbackup.contract.errors import Failure, ReasonName
from dbbackup.contract.keys import Leaf, parse_directory, split_key
from dbbackup.contract.run import InventoryOptions
from dbbackup.dataplane import bucket as bucket_module
from dbbackup.dataplane import main
from dbbackup.dataplane.context import Stop
from dbbackup.dataplane.upkeep import inventory as inventory_module
from dbbackup.storage.base import ObjectInfo, UploadInfo

DAY = timedelta(days=1)
OLD = 4 * DAY


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setattr(inventory_module, "open_bucket", memory.open)
    return memory


@pytest.fixture
def inventory(bucket: Memory, tmp_path: Path) -> Callable[..., EndedRun]:
    return lambda **options: run(tmp_path, "inventory", inventory=InventoryOptions(**options))


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> list[Stop]:
    """The last is the run's that is under way."""
    made: list[Stop] = []

    class Watched(Stop):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(main, "Stop", Watched)
    return made


# where things lie


@pytest.mark.parametrize(
    ("text", "leaf"),
    [
        ("20261123T010203Z-nightly-0d6c8f3e", Leaf(datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC), "nightly", "0d6c8f3e")),
        ("20261123T010203Z-a-b.c-0d6c8f3e", Leaf(datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC), "a-b.c", "0d6c8f3e")),
        ("20261123T010203Z-nightly-safety-0d6c8f3e", Leaf(datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC), "nightly-safety", "0d6c8f3e")),
        ("20261323T010203Z-nightly-0d6c8f3e", None),
        ("20261123T010203Z-nightly-0D6C8F3E", None),
        ("20261123T010203Z-nightly-0d6c8f3", None),
        ("20261123T010203Z--0d6c8f3e", None),
        ("20261123T010203Z-night ly-0d6c8f3e", None),
        ("x20261123T010203Z-nightly-0d6c8f3e", None),
        ("20261123T010203Z-nightly-0d6c8f3e\n", None),
    ],
)
def test_the_name_of_an_artifacts_directory(text: str, leaf: Leaf | None) -> None:
    assert parse_directory(ROOT, f"{ROOT}db_5432/app/{text}") == leaf


def test_every_leaf_is_parsed_back() -> None:
    for number, kind in ((1, "DatabaseBackup"), (2, "DatabaseRestore")):
        owner = owner_of(number, kind).model_copy(update={"name": "ünï." + "x" * 300})
        found = parse_directory(ROOT, key_of(owner, database="../ä b", suffix=keys.SAFETY_SUFFIX))
        assert found
        assert (found.time, found.short_uid) == (owner.created_at, owner.uid[:8])


@pytest.mark.parametrize("key", ["db_5432/{}", "{}", "a/b/c/{}", "../app/{}", "a/../{}", "/app/{}", "a/b/{}/", "a/b/{}/x", "a b/c/{}", "a/b/x{}"])
def test_other_keys_are_no_artifacts_directory(key: str) -> None:
    leaf = "20261123T010203Z-nightly-0d6c8f3e"
    assert parse_directory(ROOT, f"{ROOT}a/b/{leaf}")
    assert parse_directory(ROOT, ROOT + key.format(leaf)) is None
    assert parse_directory(ROOT, f"other/demo/a/b/{leaf}") is None
    assert parse_directory(ROOT, f"a/b/{leaf}") is None


def test_split_key() -> None:
    assert split_key("r/", "r/a/b/c/d") == ("r/a/b/c", "d")
    assert split_key("r/", "r/a/b/c/d/e") == ("r/a/b/c", "d/e")
    assert split_key("r/", "r/a/b/c/") == ("r/a/b/c", "")
    assert split_key("r/", "r/a/b/c") is None
    assert split_key("r/", "x/a/b/c/d") is None
    assert (keys.root("/team//x/", "demo"), keys.root("", "demo")) == ("team/x/demo/", "demo/")


# what is there


def test_everything_is_classified_by_its_place_and_name(bucket: Memory, inventory: Callable[..., EndedRun]) -> None:
    first, second, third = owner_of(1), owner_of(2), owner_of(3)
    safety, gone, alien, busy = owner_of(4, "DatabaseRestore"), owner_of(5), owner_of(6), owner_of(7)
    expires = NOW + DAY
    bucket.fill(objects_of(first), age=OLD)
    bucket.fill(objects_of(second, database="other", expires_at=expires, schedule="nightly"), age=OLD)
    bucket.fill(objects_of(third))
    bucket.fill(objects_of(safety, suffix="-safety"))
    bucket.fill({f"{key_of(gone)}/dump.sql.zst": b"half", f"{key_of(gone)}/RESTORE.md": b"x"}, age=OLD)
    bucket.fill({f"{key_of(busy)}/dump.sql.zst": b"half"}, age=OLD)
    foreign = {
        f"{key_of(alien)}/dump.sql.zst": b"x",
        f"{key_of(alien)}/notes.txt": b"x",
        f"{key_of(first)}/dump.sql.zst.bak": b"x",
        f"{key_of(first)}/deeper/manifest.json": b"x",
        f"{ROOT}readme": b"x",
        f"{ROOT}db_5432/app/readme": b"x",
        f"{ROOT}db_5432/app/20261123T010203Z-x/manifest.json": b"x",
        f"{ROOT}a/b/c/d/20261123T010203Z-x-0d6c8f3e/manifest.json": b"x",
        f"{ROOT}=restores/deeper/x.json": b"x",
        f"{ROOT}=probe/deeper/x": b"x",
        f"{ROOT}folder/": b"",
    }
    records = {f"{ROOT}=restores/20261123T010203Z-restore-0d6c8f3e.json": b"{}"}
    outside = {"team/demo2/db_5432/app/20261123T010203Z-x-0d6c8f3e/dump.sql": b"x", "team/demo": b"x", "other": b"x"}
    bucket.fill({**foreign, **records, **outside}, age=OLD)
    bucket.fill({f"{ROOT}=probe/old": b"x"}, age=timedelta(hours=2))
    bucket.fill({f"{ROOT}=probe/new": b"x"}, age=timedelta(minutes=50))
    kept = {key: body for key, body in bucket.objects.items() if key not in (f"{ROOT}=probe/old", *(k for k in bucket.objects if key_of(gone) in k))}
    size = sum(len(body) for key, body in bucket.objects.items() if key.startswith(ROOT))
    bucket.asked.clear()

    ended = inventory(known=known([first, third]), busy=(busy.uid[:8],), sweep_after_seconds=3 * 86400)

    assert ended.code == 0, ended.log
    assert bucket.objects == kept
    assert {key: item.manifest is None for key, item in ended.inventory.items()} == {
        key_of(first): True,
        key_of(second, database="other"): False,
        key_of(third): True,
        key_of(safety, suffix="-safety"): False,
    }
    assert all(item.problem is None for item in ended.inventory.values())
    item = ended.inventory[key_of(second, database="other")]
    assert item.manifest
    assert (item.size_bytes, item.modified) == (sum(len(body) for key, body in kept.items() if item.key in key), NOW - OLD)
    assert (item.manifest.owner, item.manifest.expires_at, item.manifest.schedule, item.manifest.safety) == (second, expires, "nightly", False)
    assert (item.manifest.artifact.key, item.manifest.database.identity) == (item.key, "db:5432/other")
    summary = ended.inventory[key_of(safety, suffix="-safety")].manifest
    assert summary
    assert summary.safety
    report = ended.report.inventory
    assert report
    assert (report.now, report.conditional_writes, report.artifacts, report.bytes) == (NOW, True, 4, size)
    assert (report.oldest, report.newest) == (first.created_at, safety.created_at)
    assert (report.debris, report.uploads, report.swept, report.foreign) == (1, 0, 1, len(foreign))
    assert [key for operation, key in bucket.asked if operation == "list"] == [ROOT], "one pass"
    read = {key for operation, key in bucket.asked if operation == "get" and "=probe" not in key}
    assert read == {f"{item.key}/manifest.json", f"{summary.artifact.key}/manifest.json"}, "only of those that are not known"


def test_an_empty_bucket(inventory: Callable[..., EndedRun]) -> None:
    ended = inventory()
    assert ended.report.inventory
    assert (ended.code, ended.inventory, ended.report.inventory.artifacts, ended.report.inventory.oldest) == (0, {}, 0, None)


def test_directories_come_in_whatever_order_the_server_lists_them(bucket: Memory, inventory: Callable[..., EndedRun]) -> None:
    """SeaweedFS lists directory by directory, where AWS sorts whole keys: `app-2/` comes before
    `app/` on one, after it on the other."""
    for number, database in enumerate(["app", "app-2", "app.3"]):
        bucket.fill(objects_of(owner_of(number), database=database))

    listed = sorted(bucket.objects, key=lambda key: key.split("/"))
    assert listed != sorted(bucket.objects)
    bucket.list = lambda prefix: (bucket.info(key) for key in listed if key.startswith(prefix))  # type: ignore[method-assign]
    ended = inventory()
    assert len(ended.inventory) == 3
    assert ended.report.inventory
    assert (ended.report.inventory.debris, ended.report.inventory.foreign) == (0, 0)


OTHER = owner_of(90)


@pytest.mark.parametrize(
    ("name", "body", "problem", "usable"),
    [
        ("manifest.json", b"", "ManifestInvalid: ", False),
        ("manifest.json", b"{}", "ManifestInvalid: ", False),
        ("manifest.json", manifest_of(OTHER).to_bytes(), "belongs to DatabaseBackup demo/nightly-90", False),
        ("manifest.json", manifest_of(owner_of(1).model_copy(update={"kind": "BackupStorage"})).to_bytes(), "belongs to BackupStorage", False),
        (
            "manifest.json",
            manifest_of(owner_of(1)).to_bytes().replace(b'"2026-11-01T04:00:02Z"', b'"2026-11-01T04:00:02"'),
            "without a time zone",
            False,
        ),
        ("manifest.json", manifest_of(owner_of(1), expires_at=NOW.replace(tzinfo=None)).to_bytes(), "without a time zone", False),
        ("manifest.json", manifest_of(owner_of(1), schedule="x" * 5000).to_bytes(), "longer than any", False),
        ("manifest.json", manifest_of(owner_of(1)).to_bytes().replace(b'"formatVersion": 1', b'"formatVersion": 2'), "FormatUnsupported: ", False),
        ("manifest.json", manifest_of(owner_of(1), encrypted=True).to_bytes(), "the artifact is encrypted", True),
        ("dump.sql.zst", None, "dump.sql.zst is missing", True),
        ("dump.sql.zst", b"the du", "dump.sql.zst has 6 bytes, its manifest says 8", True),
    ],
)
def test_an_unusable_artifact_is_reported_with_its_problem(
    bucket: Memory, inventory: Callable[..., EndedRun], name: str, body: bytes | None, problem: str, *, usable: bool
) -> None:
    """A manifest that can be read is reported nevertheless, as its expiry counts."""
    objects = objects_of(owner_of(1))
    bucket.fill(without(objects, name) if body is None else changed(objects, name, body))
    bucket.fill(objects_of(owner_of(2)))
    ended = inventory()
    assert ended.code == 0, ended.log
    item = ended.inventory[key_of(owner_of(1))]
    assert item.problem
    assert problem in item.problem
    assert (item.manifest is not None) is usable
    assert ended.inventory[key_of(owner_of(2))].problem is None


def test_a_known_artifact_without_its_dump_is_reported(bucket: Memory, inventory: Callable[..., EndedRun]) -> None:
    bucket.fill(without(objects_of(owner_of(1)), "dump.sql.zst"))
    assert inventory(known=known([owner_of(1)])).inventory[key_of(owner_of(1))].problem == "its dump is missing"


@pytest.mark.parametrize(
    ("reason", "code", "items"),
    [("StorageAccessDenied", 0, 2), ("ArtifactMissing", 0, 1), ("ArtifactCorrupt", 0, 2), ("StorageUnavailable", 10, None)],
)
def test_a_manifest_that_cannot_be_read(bucket: Memory, inventory: Callable[..., EndedRun], reason: ReasonName, code: int, items: int | None) -> None:
    """A storage that is away fails the run. An artifact that was deleted since it was listed is
    none."""
    bucket.fill(objects_of(owner_of(1)) | objects_of(owner_of(2)))
    bucket.before = failing("get", reason, key_of(owner_of(1)))
    ended = inventory()
    assert ended.code == code
    if items is None:
        assert (ended.report.inventory, ended.report.pages) == (None, None)
        return
    assert ended.report.inventory
    assert (len(ended.inventory), ended.report.inventory.artifacts) == (items, items)


def test_large_manifests_are_read_one_at_a_time(bucket: Memory, inventory: Callable[..., EndedRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "_LARGE", 10_000)
    for number in range(12):
        bucket.fill(objects_of(owner_of(number), schedule=None, pg_dump_version="x" * (20_000 if number < 6 else 10)))
    at_work: dict[bool, int] = {True: 0, False: 0}
    most = dict(at_work)
    lock = threading.Lock()

    class Slow(Memory):
        def get(self, key: str, limit: int) -> bytes:
            large = len(bucket.objects[key]) > 10_000
            with lock:
                at_work[large] += 1
                most[large] = max(most[large], at_work[large])
            time.sleep(0.02)
            with lock:
                at_work[large] -= 1
            return Memory.get(bucket, key, limit)

    bucket.get = Slow().get  # type: ignore[method-assign]
    assert len(inventory().inventory) == 12
    assert most[True] == 1
    assert most[False] > 1


# what dead runs left


@pytest.mark.parametrize(("age", "swept"), [(3 * DAY, 1), (3 * DAY - timedelta(seconds=1), 0), (-DAY, 0)])
def test_only_what_is_old_is_swept_by_its_newest_object(bucket: Memory, inventory: Callable[..., EndedRun], age: timedelta, swept: int) -> None:
    key = key_of(owner_of(1))
    bucket.fill({f"{key}/RESTORE.md": b"x"}, age=9 * DAY)
    bucket.fill({f"{key}/dump.sql.zst": b"x"}, age=age)
    bucket.uploads = [UploadInfo(f"{key_of(owner_of(2))}/dump.sql.zst", "1", NOW - age)]
    ended = inventory()
    assert ended.report.inventory
    assert (ended.report.inventory.debris, ended.report.inventory.uploads, ended.report.inventory.swept) == (1, 1, 2 * swept)
    assert (len(bucket.objects), len(bucket.uploads)) == (2 - 2 * swept, 1 - swept)
    assert ("removed" in ended.log) == bool(swept)
    assert ended.inventory == {}


def test_the_storages_clock_counts(bucket: Memory, inventory: Callable[..., EndedRun]) -> None:
    """Not this machine's, which may be years ahead."""
    bucket.fill({f"{key_of(owner_of(1))}/dump.sql.zst": b"x"}, age=DAY)
    bucket.now = datetime(2000, 1, 1, tzinfo=UTC)
    bucket.modified = dict.fromkeys(bucket.objects, bucket.now - DAY)
    ended = inventory()
    assert ended.report.inventory
    assert (ended.report.inventory.now, ended.report.inventory.swept) == (bucket.now, 0)


def test_a_manifest_that_appears_after_the_listing_keeps_its_artifact(bucket: Memory, inventory: Callable[..., EndedRun]) -> None:
    objects = objects_of(owner_of(1))
    bucket.fill(without(objects, "manifest.json"), age=OLD)

    def seal(asked: str, key: str) -> None:
        if asked == "head" and key_of(owner_of(1)) in key:
            bucket.fill(objects)

    bucket.before = seal
    ended = inventory()
    assert ended.report.inventory
    assert (ended.report.inventory.debris, ended.report.inventory.swept) == (1, 0)
    assert bucket.objects == objects


def test_uploads_of_others_are_not_touched(bucket: Memory, inventory: Callable[..., EndedRun]) -> None:
    keys = [f"{ROOT}film.mp4", f"{key_of(owner_of(1))}/film.mp4", f"{ROOT}a/b/c/dump.sql.zst", f"{key_of(owner_of(2))}/dump.sql.zst"]
    sealed = f"{key_of(owner_of(3))}/dump.custom.zst"
    bucket.uploads = [UploadInfo(key, "1", NOW - OLD) for key in [*keys, sealed]]
    bucket.fill(objects_of(owner_of(3)))
    ended = inventory(busy=(owner_of(2).uid[:8],))
    assert ended.report.inventory
    assert (ended.report.inventory.uploads, ended.report.inventory.swept) == (1, 1)
    assert [upload.key for upload in bucket.uploads] == keys
    assert len(ended.inventory) == 1


@pytest.mark.parametrize(("reason", "code"), [("StorageRefused", 0), ("StorageAccessDenied", 22), ("StorageUnavailable", 10)])
def test_a_server_that_lists_no_uploads(bucket: Memory, inventory: Callable[..., EndedRun], reason: ReasonName, code: int) -> None:
    bucket.fill(objects_of(owner_of(1)))
    bucket.before = failing("list_uploads", reason)
    ended = inventory()
    assert ended.code == code
    if not code:
        assert len(ended.inventory) == 1
        assert "let a lifecycle rule of the bucket abort them" in ended.report.warnings[0]


@pytest.mark.parametrize("operation", ["delete", "abort_upload"])
def test_a_locked_object_is_reported_and_fails_nothing(bucket: Memory, inventory: Callable[..., EndedRun], operation: str) -> None:
    locked = key_of(owner_of(1))
    for number in (1, 2):
        bucket.fill({f"{key_of(owner_of(number))}/dump.sql.zst": b"x"}, age=OLD)
        bucket.uploads.append(UploadInfo(f"{key_of(owner_of(number))}/dump.custom.zst", "1", NOW - OLD))
    bucket.before = failing(operation, "StorageAccessDenied", locked)
    ended = inventory()
    assert ended.code == 0
    assert ended.report.inventory
    assert (ended.report.inventory.debris, ended.report.inventory.uploads, ended.report.inventory.swept) == (2, 2, 3)
    assert len(bucket.objects) + len(bucket.uploads) == 1
    assert "some abandoned objects could not be removed" in ended.report.warnings[0]
    bucket.before = failing(operation, "StorageUnavailable", locked)
    assert inventory().code == 10


@pytest.mark.parametrize("operation", ["put", "list", "get", "head", "delete", "list_uploads"])
def test_a_stopped_run_reports_only_that(bucket: Memory, inventory: Callable[..., EndedRun], stops: list[Stop], operation: str) -> None:
    bucket.fill(objects_of(owner_of(1)) | {f"{key_of(owner_of(2))}/dump.sql.zst": b"x"}, age=OLD)
    bucket.uploads = [UploadInfo(f"{key_of(owner_of(3))}/dump.sql.zst", "1", NOW - OLD)]

    def stop(asked: str, key: str) -> None:
        if asked == operation:
            stops[-1].set(Failure("Terminated", "stopped"))

    bucket.before = stop
    ended = inventory()
    assert (ended.reason, ended.report.inventory, ended.report.pages) == ("Terminated", None, None)
    assert len(bucket.uploads) == 1, "nothing was begun after it"


def test_a_listing_of_others_objects_ends_when_the_run_is_stopped(bucket: Memory, inventory: Callable[..., EndedRun], stops: list[Stop]) -> None:
    listed = 0

    def endless(prefix: str) -> Iterator[ObjectInfo]:
        nonlocal listed
        for listed in range(1, 10_000):
            if listed == 5:
                stops[-1].set(Failure("Terminated", "stopped"))
            yield ObjectInfo(f"{ROOT}film-{listed}.mp4", 1, NOW, "")

    bucket.list = endless  # type: ignore[method-assign]
    assert inventory().reason == "Terminated"
    assert listed == 5
