"""The least-privilege policies of docs/storage-setup.md, word for word on real servers: they are
enough, and they are no more."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.contract.servers import OWNER, SeaweedFS, Server, Versitygw
from tests.integration.artifacts import NAMESPACE, Upkeep, key_of, manifest_of, owner_of, put
from tests.integration.conftest import Job
from tests.root import ROOT

from dbbackup.contract.errors import Failure
from dbbackup.contract.keys import directory
from dbbackup.contract.run import BackupOptions, CleanupOptions, PruneItem, PruneOptions, RestoreOptions, StorageTarget
from dbbackup.storage.base import Storage

BUCKET, PREFIX = "shop-backups", "prod"
USER = ("shop-backups", "A-LONG-SECRET")
MIB = 1 << 20


@cache
def documents() -> list[dict[str, Any]]:
    """The page's blocks of JSON."""
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "storage-setup.md").read_text(), re.DOTALL)]


def policy() -> dict[str, Any]:
    """As a policy of versitygw's bucket: the page says what is added."""
    (found,) = [document for document in documents() if "Statement" in document]
    return {**found, "Statement": [{**statement, "Principal": {"AWS": [USER[0]]}} for statement in found["Statement"]]}


class Configured(SeaweedFS):
    """With the page's own entry beside the owner's."""

    def command(self) -> list[str]:
        command = super().command()
        path = self.directory / "s3.json"
        config = json.loads(path.read_text())
        (entry,) = [document for document in documents() if "identities" in document]
        config["identities"] += entry["identities"]
        path.write_text(json.dumps(config))
        return command


def prepare(server: Server) -> None:
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    if isinstance(server, Versitygw):
        server.add_user(*USER)
        client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy()))


SERVERS = [pytest.param(server, id=server.name, marks=pytest.mark.xdist_group(f"policies-{server.name}")) for server in (Versitygw, Configured)]


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made: Server = request.param(tmp_path_factory.mktemp(request.param.name))
    try:
        made.start()
        prepare(made)
        yield made
    finally:
        made.kill()


@pytest.fixture
def limited(server: Server, tmp_path: Path) -> Callable[[tuple[str, str]], Upkeep]:
    def make(keys: tuple[str, str]) -> Upkeep:
        path = tmp_path / keys[0]
        (path / "storage").mkdir(parents=True)
        (path / "storage" / "accessKeyId").write_text(keys[0])
        (path / "storage" / "secretAccessKey").write_text(keys[1])
        return Upkeep(StorageTarget(name="default", bucket=BUCKET, prefix=PREFIX, endpoint=server.endpoint, credentials_secret="s3"), path)

    return make


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except Failure as failure:
        return failure.reason.name == "StorageAccessDenied"
    return False


def test_nothing_outside_the_prefix_can_be_seen_or_changed(limited: Callable[[tuple[str, str]], Upkeep]) -> None:
    everything, storage = limited(OWNER).storage, limited(USER).storage
    put(everything, {"other/x": b"x", "prod2/x": b"x", "prod/shop/x": b"x"})
    for call in (
        lambda: list(storage.list("")),
        lambda: list(storage.list("other/")),
        lambda: list(storage.list("prod2/")),
        lambda: storage.get("other/x", 10),
        lambda: storage.put("prod2/y", b"y", "text/plain"),
        lambda: storage.delete(["other/x"]),
        lambda: storage.delete(["other/x", "prod2/x"]),
        lambda: storage.start_upload("other/y", "text/plain"),
    ):
        assert refused(call)
    assert [info.key for info in storage.list("prod/shop/x")] == ["prod/shop/x"]
    assert {info.key for info in everything.list("")} >= {"other/x", "prod2/x", "prod/shop/x"}


def test_an_inventory_and_a_prune(limited: Callable[[tuple[str, str]], Upkeep]) -> None:
    everything, upkeep = limited(OWNER).storage, limited(USER)
    mine, dead = owner_of(1), owner_of(2)

    def key(number: int) -> str:
        return key_of(owner_of(number)).replace("team/", f"{PREFIX}/", 1)

    put(everything, {f"{key(1)}/dump.sql.zst": b"the dump", f"{key(1)}/manifest.json": manifest_of(mine).to_bytes()})
    put(everything, {f"{key(2)}/dump.sql.zst": b"half"})
    everything.start_upload(f"{key(2)}/dump.custom.zst", "text/plain").part(1, b"x" * 5 * MIB)
    ended = upkeep.inventory()
    assert ended.code == 0, ended.log
    assert ended.report.inventory
    assert (ended.report.inventory.swept, ended.report.warnings, list(ended.inventory)) == (2, (), [key(1)])
    assert [item.problem for item in upkeep.prune([(key(1), mine.uid), (key(2), dead.uid)]).pruned.values()] == [None, None]
    assert list(everything.list(f"{PREFIX}/{NAMESPACE}/")) == []


def test_a_backup_a_restore_and_a_cleanup(server: Server, job: Job, database: str) -> None:
    """All that Jobs ask of the storage, a failed backup and a restore that replaces among it."""
    job.postgres.execute("CREATE TABLE public.t AS SELECT i, md5(i::text) FROM generate_series(1, 1000) i", database)
    (job.paths.storage_secret / "accessKeyId").write_text(USER[0])
    (job.paths.storage_secret / "secretAccessKey").write_text(USER[1])
    job.storage_target = StorageTarget(name="default", bucket=BUCKET, prefix=PREFIX, endpoint=server.endpoint, credentials_secret="s3")
    before = keys(job.storage)
    own = directory(PREFIX, job.owner, job.postgres.host, job.postgres.port, database)
    job.storage.start_upload(f"{own}/dump.sql.zst", "text/plain").part(1, b"x" * 5 * MIB)
    made = job.backup()
    assert made.code == 0, made.log
    assert made.report.artifact
    restore = job.another("restore", kind="DatabaseRestore")
    restored = restore.run(restore.spec("restore", restore=RestoreOptions(key=made.report.artifact.key, on_existing="Replace")))
    assert restored.code == 0, restored.log
    assert restored.report.safety_backup
    small = job.another("small")
    small.storage_target = small.storage_target.model_copy(update={"max_artifact_size": 10})
    assert small.run(small.spec("backup", backup=BackupOptions())).reason == "ArtifactTooLarge"
    cleaned = job.run(job.spec("cleanup", cleanup=CleanupOptions(key=made.report.artifact.key)))
    assert cleaned.code == 0, cleaned.log
    safety = PruneItem(key=restored.report.safety_backup.key, uid=restore.owner.uid)
    assert job.run(job.spec("prune", prune=PruneOptions(items=(safety,)))).code == 0
    left = [key for key in keys(job.storage) if key not in before]
    assert [key.rpartition("/")[0] for key in left] == [f"{PREFIX}/{NAMESPACE}/=restores"]


def keys(storage: Storage) -> list[str]:
    return [info.key for info in storage.list(f"{PREFIX}/")]
