"""What a prune takes from a bucket, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.artifacts import ROOT, EndedRun, key_of, manifest_of, objects_of, owner_of
from tests.unit.support.memory_storage import Memory, changed, failing, run, without

from dbbackup.contract.run import PruneItem, PruneOptions
from dbbackup.dataplane.upkeep import prune as prune_module


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setattr(prune_module, "open_bucket", memory.open)
    return memory


@pytest.fixture
def prune(bucket: Memory, tmp_path: Path) -> Callable[..., EndedRun]:
    return lambda *items: run(tmp_path, "prune", prune=PruneOptions(items=tuple(PruneItem(key=key, uid=uid) for key, uid in items)))


def test_items_are_deleted_manifests_first(bucket: Memory, prune: Callable[..., EndedRun]) -> None:
    owners = [owner_of(number) for number in range(3)]
    safety = owner_of(3, "DatabaseRestore")
    for owner in owners:
        bucket.fill(objects_of(owner))
    bucket.fill(objects_of(safety, suffix="-safety"))
    stays = {f"{key_of(owners[0])}/notes.txt": b"x", **objects_of(owner_of(9))}
    bucket.fill(stays)
    items = [(key_of(owner), owner.uid) for owner in owners] + [(key_of(safety, suffix="-safety"), safety.uid)]
    ended = prune(*items)
    assert ended.code == 0, ended.log
    assert bucket.objects == stays
    assert {key: item.problem for key, item in ended.pruned.items()} == {key: None for key, _ in items}
    deleted = [key.rpartition("/")[2] for operation, key in bucket.asked if operation == "delete"]
    assert deleted[:4] == ["manifest.json"] * 4
    assert len(deleted) == 12
    again = prune(*items)
    assert (again.code, again.pruned, bucket.objects) == (0, ended.pruned, stays)


def test_the_rest_of_an_interrupted_run_is_deleted(bucket: Memory, prune: Callable[..., EndedRun]) -> None:
    bucket.fill(without(objects_of(owner_of(1)), "manifest.json"))
    ended = prune((key_of(owner_of(1)), owner_of(1).uid), (key_of(owner_of(2)), owner_of(2).uid))
    assert [item.problem for item in ended.pruned.values()] == [None, None]
    assert bucket.objects == {}


@pytest.mark.parametrize(
    "key",
    [
        "",
        ROOT,
        "team/demo/db_5432/app",
        "{leaf}",
        "other/demo/db_5432/app/{leaf}",
        "team/demo2/db_5432/app/{leaf}",
        "team/demo/db_5432/app/../{leaf}",
        "team/demo/../other/app/{leaf}",
        "team/demo/db_5432/app/{leaf}/",
        "team/demo/db_5432/app/{leaf}/x",
        "team/demo/db_5432/app/x{leaf}",
    ],
)
def test_a_key_that_is_no_artifacts_of_the_namespace_is_refused(bucket: Memory, prune: Callable[..., EndedRun], key: str) -> None:
    leaf = key_of(owner_of(1)).rpartition("/")[2]
    key = key.format(leaf=leaf)
    objects = {f"{key}/manifest.json": manifest_of(owner_of(1)).to_bytes(), f"{key}/dump.sql.zst": b"x", **objects_of(owner_of(2))}
    bucket.fill(objects)
    ended = prune((key, owner_of(1).uid))
    assert ended.code == 0
    problem = ended.pruned[key].problem
    assert problem
    assert "not an artifact's directory below team/demo/: nothing was deleted" in problem
    assert bucket.objects == objects


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            manifest_of(owner_of(1).model_copy(update={"uid": owner_of(1).uid[:8] + "-another"})).to_bytes(),
            "belongs to DatabaseBackup demo/nightly-1",
        ),
        (b"{}", "its owner is unknown: ManifestInvalid"),
        (
            manifest_of(owner_of(1), objects=(manifest_of(owner_of(1)).artifact.model_copy(update={"name": "film.mp4"}),)).to_bytes(),
            "contains film.mp4, which this operator does not know",
        ),
    ],
)
def test_an_artifact_that_is_not_the_items_own_stays(bucket: Memory, prune: Callable[..., EndedRun], body: bytes, problem: str) -> None:
    objects = changed(objects_of(owner_of(1)), "manifest.json", body)
    bucket.fill(objects | objects_of(owner_of(2)))
    ended = prune((key_of(owner_of(1)), owner_of(1).uid), (key_of(owner_of(2)), owner_of(2).uid))
    assert ended.code == 0
    found = ended.pruned[key_of(owner_of(1))].problem
    assert found
    assert problem in found
    assert "nothing was deleted" in found
    assert ended.pruned[key_of(owner_of(2))].problem is None
    assert bucket.objects == objects


def test_the_directory_of_another_object_stays(bucket: Memory, prune: Callable[..., EndedRun]) -> None:
    """Without a manifest, too, where only the directory's name says whose it is."""
    bucket.fill(without(objects_of(owner_of(1)), "manifest.json"))
    ended = prune((key_of(owner_of(1)), owner_of(2).uid))
    assert "is not the directory of the object with UID" in str(ended.pruned[key_of(owner_of(1))].problem)
    assert len(bucket.objects) == 2


@pytest.mark.parametrize(("name", "left"), [("manifest.json", 3), ("dump.sql.zst", 1)])
def test_what_the_server_refuses_to_delete_is_that_items_problem(bucket: Memory, prune: Callable[..., EndedRun], name: str, left: int) -> None:
    owners = [owner_of(number) for number in range(5)]
    for owner in owners:
        bucket.fill(objects_of(owner))
    bucket.before = failing("delete", "StorageAccessDenied", f"{key_of(owners[2])}/{name}")
    ended = prune(*((key_of(owner), owner.uid) for owner in owners))
    assert ended.code == 0
    assert [item.key for item in ended.pruned.values() if item.problem] == [key_of(owners[2])]
    assert "the server said no" in str(ended.pruned[key_of(owners[2])].problem)
    assert {key.rpartition("/")[0] for key in bucket.objects} == {key_of(owners[2])}
    assert len(bucket.objects) == left


@pytest.mark.parametrize("operation", ["list", "get", "delete"])
def test_a_storage_that_is_away_fails_the_prune(bucket: Memory, prune: Callable[..., EndedRun], operation: str) -> None:
    bucket.fill(objects_of(owner_of(1)))
    bucket.before = failing(operation, "StorageUnavailable")
    ended = prune((key_of(owner_of(1)), owner_of(1).uid))
    assert (ended.reason, ended.report.pages) == ("StorageUnavailable", None)


def test_in_a_missing_bucket_everything_counts_as_deleted(bucket: Memory, prune: Callable[..., EndedRun]) -> None:
    bucket.before = failing("ensure_bucket", "BucketNotFound")
    ended = prune((key_of(owner_of(1)), owner_of(1).uid), ("elsewhere", owner_of(2).uid))
    assert ended.code == 0
    assert [bool(item.problem) for item in ended.pruned.values()] == [False, True]
    bucket.before = failing("ensure_bucket", "StorageAccessDenied")
    assert prune((key_of(owner_of(1)), owner_of(1).uid)).reason == "StorageAccessDenied"
