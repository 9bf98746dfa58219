"""Inventories and prunes of real S3 servers, by runs of the Job's entry point in this process."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.contract.servers import LISTED, OWNER, READER, STRANGER, Server
from tests.integration.artifacts import ROOT as BELOW
from tests.integration.artifacts import Upkeep, key_of, known, objects_of, owner_of, put
from tests.root import ROOT

from dbbackup.contract.keys import transaction_key
from dbbackup.contract.run import PruneItem, PruneOptions, StorageTarget
from dbbackup.dataplane.bucket import open_bucket
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.upkeep import inventory as inventory_module
from dbbackup.storage.base import Storage
from dbbackup.storage.s3 import S3Storage

MIB = 1 << 20
_numbers = iter(range(1, 1000))

SERVERS = [pytest.param(server, id=server.name, marks=pytest.mark.xdist_group(f"inventory-{server.name}")) for server in LISTED]


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made: Server = request.param(tmp_path_factory.mktemp(request.param.name))
    try:
        made.start()
        made.add_stranger()
        yield made
    finally:
        made.kill()


Open = Callable[..., Upkeep]


@pytest.fixture
def open_(server: Server, tmp_path: Path) -> Open:
    """`open_(bucket=..., keys=...)`: a BackupStorage, by default with a bucket of its own and as
    its owner."""

    def make(bucket: str | None = None, keys: tuple[str, str] = OWNER, prefix: str = "team") -> Upkeep:
        number = next(_numbers)
        path = tmp_path / f"mounts-{number}"
        (path / "storage").mkdir(parents=True)
        (path / "storage" / "accessKeyId").write_text(keys[0])
        (path / "storage" / "secretAccessKey").write_text(keys[1])
        target = StorageTarget(
            name="default",
            bucket=bucket or f"inventory-{os.getpid()}-{number}",
            prefix=prefix,
            endpoint=server.endpoint,
            credentials_secret="s3",
            create_bucket=True,
        )
        return Upkeep(target, path)

    return make


@pytest.fixture
def upkeep(open_: Open) -> Upkeep:
    """With an empty bucket."""
    made = open_()
    made.storage.ensure_bucket(create=True)
    return made


def fill(storage: Storage, objects: list[dict[str, bytes]]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda artifact: put(storage, artifact), objects))


# the storage is tried


def test_a_bucket_is_created_tested_and_left_empty(open_: Open) -> None:
    upkeep = open_()
    began = time.time()
    ended = upkeep.inventory()
    assert ended.code == 0, ended.log
    report = ended.report.inventory
    assert report
    assert report.conditional_writes
    assert -2 < report.now.timestamp() - began < 60
    assert (report.artifacts, report.bytes, report.oldest, report.foreign, ended.inventory) == (0, 0, None, 0, {})
    assert upkeep.stored() == []


def test_a_bucket_that_is_missing(open_: Open) -> None:
    upkeep = open_()
    upkeep.target = upkeep.target.model_copy(update={"create_bucket": False})
    assert upkeep.inventory().reason == "BucketNotFound"


def test_credentials_that_may_not_write(upkeep: Upkeep, open_: Open, server: Server) -> None:
    put(upkeep.storage, objects_of(owner_of(1)))
    server.let_read(upkeep.target.bucket)
    before = upkeep.stored()
    ended = open_(upkeep.target.bucket, READER).inventory()
    assert ended.reason == "StorageAccessDenied", ended.log
    assert ended.message.startswith("the storage was tested, and writing an object failed: ")
    assert (ended.report.inventory, ended.report.pages) == (None, None)
    assert upkeep.stored() == before


def test_credentials_that_may_do_nothing(upkeep: Upkeep, open_: Open) -> None:
    assert open_(upkeep.target.bucket, STRANGER).inventory().reason == "StorageAccessDenied"
    assert open_(upkeep.target.bucket, ("nobody", "wrong")).inventory().reason in {"StorageAuthenticationFailed", "StorageAccessDenied"}


# what is there


@pytest.mark.parametrize("prefix", ["team", ""])
def test_everything_is_reported_and_only_debris_is_deleted(open_: Open, prefix: str) -> None:
    upkeep = open_(prefix=prefix)
    storage = upkeep.storage
    storage.ensure_bucket(create=True)
    strip = len("team/") if not prefix else 0

    def here(objects: dict[str, bytes]) -> dict[str, bytes]:
        return {key[strip:]: body for key, body in objects.items()}

    first, second, dead, busy = (owner_of(number) for number in range(4))
    safety = owner_of(4, "DatabaseRestore")
    put(storage, here(objects_of(first) | objects_of(second, database="app-2", schedule="nightly") | objects_of(safety, suffix="-safety")))
    record = transaction_key(prefix, safety)
    kept = {
        record: b"{}",
        f"{key_of(busy)}/dump.sql.zst"[strip:]: b"half",
        f"{key_of(first)}/notes.txt"[strip:]: b"a person's",
        f"{key_of(owner_of(5))}/film.mp4"[strip:]: b"a person's",
        f"{key_of(owner_of(5))}/dump.sql.zst"[strip:]: b"a person's",
        f"{BELOW}holidays/2026/beach/1.jpg"[strip:]: b"a person's",
        f"{BELOW}readme.txt"[strip:]: b"a person's",
        "team/demo2/db_5432/app/20261101T030000Z-x-0d6c8f3e/dump.sql": b"another namespace's",
    }
    put(storage, kept)
    stays = upkeep.stored()
    put(storage, {f"{key_of(dead)}/dump.sql.zst"[strip:]: b"half", f"{key_of(dead)}/RESTORE.md"[strip:]: b"x"})
    for owner in (dead, busy):
        storage.start_upload(f"{key_of(owner)}/dump.custom.zst"[strip:], "text/plain").part(1, b"x" * 5 * MIB)
    storage.start_upload(f"{BELOW}holidays/film.mp4"[strip:], "video/mp4").part(1, b"x")

    young = upkeep.inventory(busy=(busy.uid[:8],), sweep_after_seconds=3600)
    assert young.report.inventory
    assert (young.report.inventory.debris, young.report.inventory.uploads, young.report.inventory.swept) == (1, 1, 0)
    assert len(upkeep.stored()) == len(stays) + 2

    ended = upkeep.inventory(known=known([first]), busy=(busy.uid[:8],))
    report = ended.report.inventory
    assert report
    assert (report.artifacts, report.debris, report.uploads, report.swept, report.foreign) == (3, 1, 1, 2, 5)
    assert (report.oldest, report.newest) == (first.created_at, safety.created_at)
    assert upkeep.stored() == stays
    assert upkeep.uploads() == sorted([f"{key_of(busy)}/dump.custom.zst"[strip:], f"{BELOW}holidays/film.mp4"[strip:]])
    items = ended.inventory
    assert {key: item.manifest is not None for key, item in items.items()} == {
        key_of(first)[strip:]: False,
        key_of(second, database="app-2")[strip:]: True,
        key_of(safety, suffix="-safety")[strip:]: True,
    }
    assert [item.problem for item in items.values()] == [None] * 3
    made = items[key_of(second, database="app-2")[strip:]].manifest
    assert made
    assert (made.owner, made.schedule, made.safety) == (second, "nightly", False)

    again = upkeep.inventory(busy=(busy.uid[:8],))
    assert again.report.inventory
    assert (again.report.inventory.debris, again.report.inventory.uploads, again.report.inventory.swept) == (0, 0, 0)
    assert upkeep.stored() == stays


def test_a_bucket_half_wiped(upkeep: Upkeep) -> None:
    """Somebody deleted part of the bucket: each artifact is reported with what is left of it."""
    storage = upkeep.storage
    fill(storage, [objects_of(owner_of(number)) for number in range(6)])
    storage.delete([f"{key_of(owner_of(0))}/dump.sql.zst"])
    storage.put(f"{key_of(owner_of(1))}/dump.sql.zst", b"cut", "application/zstd")
    storage.put(f"{key_of(owner_of(2))}/manifest.json", b"{}", "application/json")
    storage.delete([f"{key_of(owner_of(3))}/manifest.json"])
    storage.delete([f"{key_of(owner_of(4))}/{name}" for name in ("manifest.json", "dump.sql.zst", "RESTORE.md")])
    ended = upkeep.inventory(sweep_after_seconds=3600)
    problems = {key: item.problem for key, item in ended.inventory.items()}
    assert problems.pop(key_of(owner_of(2)), "").startswith("ManifestInvalid: ")  # type: ignore[union-attr]
    assert problems == {
        key_of(owner_of(0)): "dump.sql.zst is missing",
        key_of(owner_of(1)): "dump.sql.zst has 3 bytes, its manifest says 8",
        key_of(owner_of(5)): None,
    }
    assert ended.report.inventory
    assert ended.report.inventory.debris == 1
    known_ones = upkeep.inventory(known=known([owner_of(0), owner_of(5)]), sweep_after_seconds=3600).inventory
    assert known_ones[key_of(owner_of(0))].problem == "its dump is missing"
    assert known_ones[key_of(owner_of(5))].problem is None
    items = [(key_of(owner), owner.uid) for owner in map(owner_of, range(6))]
    pruned = upkeep.prune(items).pruned
    assert [key for key, item in pruned.items() if item.problem] == [key_of(owner_of(2))], "whose manifest says not whose it is"
    assert {key.rpartition("/")[0] for key in upkeep.stored()} == {key_of(owner_of(2))}


# prune


def test_three_hundred_artifacts_go_in_one_run_and_a_second_finds_nothing(upkeep: Upkeep) -> None:
    owners = [owner_of(number) for number in range(300)]
    fill(upkeep.storage, [objects_of(owner) for owner in [*owners, owner_of(300)]])
    items = [(key_of(owner), owner.uid) for owner in owners]
    began = time.monotonic()
    ended = upkeep.prune(items)
    print(f"300 artifacts pruned in {time.monotonic() - began:.2f} s")
    assert ended.code == 0, ended.log
    assert list(ended.pruned) == [key for key, _ in items]
    assert not any(item.problem for item in ended.pruned.values())
    assert {key.rpartition("/")[0] for key in upkeep.stored()} == {key_of(owner_of(300))}
    again = upkeep.prune(items)
    assert (again.code, again.pruned) == (0, ended.pruned)


def test_artifacts_of_other_owners_stay(upkeep: Upkeep) -> None:
    mine, other = owner_of(1), owner_of(2)
    fill(upkeep.storage, [objects_of(mine), objects_of(other)])
    leaf = key_of(mine).rpartition("/")[2]
    elsewhere = f"team/demo2/db_5432/app/{leaf}"
    forged = mine.model_copy(update={"uid": mine.uid[:8] + "-0000"})
    put(upkeep.storage, {f"{elsewhere}/manifest.json": b"x", f"{elsewhere}/dump.sql": b"x"})
    before = upkeep.stored()
    keys = [elsewhere, f"team/demo/db_5432/../../demo2/db_5432/app/{leaf}", f"team/demo/db_5432/..{leaf}", "team/demo", "", key_of(mine) + "/"]
    ended = upkeep.prune([*((key, mine.uid) for key in keys), (key_of(mine), forged.uid), (key_of(other), mine.uid)])
    assert ended.code == 0
    assert all("nothing was deleted" in str(item.problem) for item in ended.pruned.values())
    assert len(ended.pruned) == len(keys) + 2
    assert upkeep.stored() == before


def test_in_a_missing_bucket_everything_counts_as_deleted(open_: Open) -> None:
    upkeep = open_()
    ended = upkeep.prune([(key_of(owner_of(1)), owner_of(1).uid)])
    assert (ended.code, [item.problem for item in ended.pruned.values()]) == (0, [None])
    assert ended.report.warnings


def test_a_prune_without_permission_reports_each_item(upkeep: Upkeep, open_: Open, server: Server) -> None:
    owners = [owner_of(number) for number in range(3)]
    fill(upkeep.storage, [objects_of(owner) for owner in owners])
    server.let_read(upkeep.target.bucket)
    before = upkeep.stored()
    ended = open_(upkeep.target.bucket, READER).prune([(key_of(owner), owner.uid) for owner in [*owners, owner_of(9)]])
    assert ended.code == 0, ended.log
    assert ["StorageAccessDenied" in str(item.problem) for item in ended.pruned.values()] == [True, True, True, False]
    assert upkeep.stored() == before


KILLED = """
import os, signal, sys
from pathlib import Path
from dbbackup.dataplane import main
from dbbackup.dataplane.paths import Paths
from dbbackup.storage import s3

left = int(sys.argv[2])
batch = s3.S3Storage._delete_batch

def killing(self, keys):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return batch(self, keys)

s3._BATCH, s3.S3Storage._delete_batch = 100, killing
path = Path(sys.argv[1])
from dbbackup.contract.run import RunSpec
sys.exit(main.run(RunSpec.model_validate_json(sys.stdin.read()), Paths(storage_secret=path / "storage", termination_log=path / "report")))
"""


def test_a_prune_that_is_killed_is_finished_by_the_next(upkeep: Upkeep) -> None:
    """After so many batches of 100 objects: what has lost its manifest is no backup any more, what
    has it is whole, and the next run ends it."""
    owners = [owner_of(number) for number in range(250)]
    fill(upkeep.storage, [objects_of(owner) for owner in [*owners, owner_of(999)]])
    items = [(key_of(owner), owner.uid) for owner in owners]
    spec = upkeep.spec("prune", prune=PruneOptions(items=tuple(PruneItem(key=key, uid=uid) for key, uid in items)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    for batches, sealed, total in ((1, 150, 653), (2, 0, 503), (2, 0, 303)):
        command = [sys.executable, "-c", KILLED, str(upkeep.path), str(batches)]
        done = subprocess.run(command, env=environment, input=spec.to_json().encode(), capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stdout
        left = upkeep.stored()
        whole = {key.rpartition("/")[0] for key in left if key.endswith("/manifest.json")} - {key_of(owner_of(999))}
        assert (len(whole), len(left)) == (sealed, total)
        assert {f"{key}/{name}" for key in whole for name in ("manifest.json", "dump.sql.zst", "RESTORE.md")} <= set(left)
        assert len(upkeep.inventory(sweep_after_seconds=3600).inventory) == sealed + 1
    ended = upkeep.prune(items)
    assert [item.problem for item in ended.pruned.values()] == [None] * 250
    assert {key.rpartition("/")[0] for key in upkeep.stored()} == {key_of(owner_of(999))}


# figures


def count_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Requests of the storage that inventories open, by operation."""
    calls: Counter[str] = Counter()

    def opened(run: Run) -> Storage:
        storage = open_bucket(run)
        assert isinstance(storage, S3Storage)
        storage.client.meta.events.register("before-call.s3", lambda model, **_: calls.update([model.name]))
        return storage

    monkeypatch.setattr(inventory_module, "open_bucket", opened)
    return calls


def test_one_listing_call_for_a_thousand_keys(upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    count = int(os.environ.get("DBBACKUP_TEST_ARTIFACTS", "800"))
    owners = [owner_of(number) for number in range(count)]
    fill(upkeep.storage, [objects_of(owner) for owner in owners])
    calls = count_calls(monkeypatch)
    for known_owners in (owners, []):
        calls.clear()
        began = time.monotonic()
        ended = upkeep.inventory(known=known(known_owners))
        print(f"{count} artifacts, {len(known_owners)} known: {time.monotonic() - began:.2f} s, log of {len(ended.log) >> 10} KiB, {dict(calls)}")
        assert ended.code == 0, ended.log
        assert len(ended.inventory) == count
        assert calls.pop("ListObjectsV2") <= math.ceil(3 * count / 1000) + 1, "one more looks for the bucket"
        assert calls.pop("ListMultipartUploads") == 1
        assert calls.pop("GetObject") == 1 + count - len(known_owners)
        assert sum(calls.values()) <= 5, f"the probe's: {calls}"


@pytest.mark.parametrize("known_ones", ["", "known"])
def test_ten_thousand_artifacts_in_bounded_memory(known_ones: str) -> None:
    """In a process of its own, of a server that costs nothing."""
    command = [sys.executable, "-m", "tests.integration.synthetic", "10000", known_ones]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True)
    figures = json.loads(done.stdout)
    print(figures)
    assert figures["mebibytes"] < 16
    assert figures["log"] < 5 * MIB
    assert figures["calls"]["ListObjectsV2"] <= figures["keys"] / 1000 + 2
    assert figures["seconds"] < 60
