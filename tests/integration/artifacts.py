"""Sealed artifacts that no database was dumped for: what an inventory and a prune look at."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from dbbackup.contract import pages
from dbbackup.contract.keys import directory
from dbbackup.contract.manifest import Contents, Manifest, Part, SourceDatabase, StoredObject
from dbbackup.contract.model import Model
from dbbackup.contract.report import InventoryItem, PrunedItem, Report
from dbbackup.contract.run import InventoryOptions, Owner, PruneItem, PruneOptions, RunSpec, StorageTarget
from dbbackup.dataplane import main
from dbbackup.dataplane.logs import Reporter
from dbbackup.dataplane.paths import Paths
from dbbackup.storage.base import Storage
from dbbackup.storage.s3 import open_storage

NAMESPACE = "demo"
PREFIX = "team"
ROOT = f"{PREFIX}/{NAMESPACE}/"
BEGIN = datetime(2026, 11, 1, 3, tzinfo=UTC)

M = TypeVar("M", bound=Model)


def owner_of(number: int, kind: str = "DatabaseBackup", namespace: str = NAMESPACE) -> Owner:
    """The `number`th object, made that many hours after BEGIN."""
    uid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{kind} {number}"))
    made = {"kind": kind, "namespace": namespace, "name": f"nightly-{number}", "uid": uid, "created_at": BEGIN + timedelta(hours=number)}
    return Owner.model_validate(made)


def manifest_of(owner: Owner, database: str = "app", body: bytes = b"the dump", **changes: Any) -> Manifest:
    digest = hashlib.sha256(body).hexdigest()
    made = Manifest(
        operator_version="1",
        owner=owner,
        database=SourceDatabase(
            identity=f"db:5432/{database}",
            host="db",
            port=5432,
            name=database,
            server_version="17.5",
            server_version_num=170005,
            size_bytes=1000,
            encoding="UTF8",
            collate="C",
            ctype="C",
        ),
        format="plain",
        compression="zstd",
        pg_dump_version="17.5",
        started_at=owner.created_at + timedelta(seconds=1),
        finished_at=owner.created_at + timedelta(seconds=2),
        objects=(StoredObject(name="dump.sql.zst", size=len(body), sha256=digest, parts=(Part(size=len(body), sha256=digest),)),),
        contents=Contents(),
        dump_bytes=100,
        rows=7,
    )
    return made.model_copy(update=changes)


def key_of(owner: Owner, database: str = "app", suffix: str = "") -> str:
    return directory(PREFIX, owner, "db", 5432, database, suffix)


def objects_of(owner: Owner, database: str = "app", suffix: str = "", **changes: Any) -> dict[str, bytes]:
    """Key -> body of a whole artifact, in the order in which a backup writes them."""
    key = key_of(owner, database, suffix)
    manifest = manifest_of(owner, database, **changes).to_bytes()
    return {f"{key}/dump.sql.zst": b"the dump", f"{key}/RESTORE.md": b"# Restore", f"{key}/manifest.json": manifest}


def put(storage: Storage, objects: dict[str, bytes]) -> None:
    for key, body in objects.items():
        storage.put(key, body, "application/octet-stream")


@dataclass(slots=True)
class EndedRun:
    """What a run left."""

    code: int
    report: Report
    log: str

    @property
    def reason(self) -> str | None:
        return self.report.failure.reason if self.report.failure else None

    @property
    def message(self) -> str:
        return self.report.failure.message if self.report.failure else ""

    def items(self, model: type[M]) -> list[M]:
        assert self.report.pages, self.log
        return list(pages.read(self.log.splitlines(), self.report.pages, model))

    @property
    def inventory(self) -> dict[str, InventoryItem]:
        return {item.key: item for item in self.items(InventoryItem)}

    @property
    def pruned(self) -> dict[str, PrunedItem]:
        return {item.key: item for item in self.items(PrunedItem)}


@dataclass(slots=True)
class Upkeep:
    """Runs of a BackupStorage, in this process, with mounts below `path`."""

    target: StorageTarget
    path: Path
    owner: Owner = field(default_factory=lambda: owner_of(0, "BackupStorage"))

    @property
    def paths(self) -> Paths:
        return Paths(storage_secret=self.path / "storage", termination_log=self.path / "report", secret_grace=0.3)

    @property
    def storage(self) -> Storage:
        return open_storage(self.target, secret_dir=str(self.path / "storage"))

    def stored(self) -> list[str]:
        """All keys in the bucket."""
        return sorted(info.key for info in self.storage.list(""))

    def uploads(self) -> list[str]:
        return sorted(upload.key for upload in self.storage.list_uploads(""))

    def spec(self, kind: str, **fields: Any) -> RunSpec:
        return RunSpec.model_validate({"run": kind, "owner": self.owner, "storage": self.target, "timeout_seconds": 300, **fields})

    def run(self, spec: RunSpec) -> EndedRun:
        stream = io.StringIO()
        code = main.run(spec, self.paths, Reporter(stream))
        return EndedRun(code, Report.model_validate_json((self.path / "report").read_text()), stream.getvalue())

    def inventory(self, **options: Any) -> EndedRun:
        """Of everything, and nothing is young enough to be left, unless `options` say otherwise."""
        return self.run(self.spec("inventory", inventory=InventoryOptions(**{"sweep_after_seconds": 0, **options})))

    def prune(self, items: Iterable[tuple[str, str]]) -> EndedRun:
        """`items` are keys with UIDs."""
        options = PruneOptions(items=tuple(PruneItem(key=key, uid=uid) for key, uid in items))
        return self.run(self.spec("prune", prune=options))


def known(owners: Iterable[Owner]) -> str:
    """Of an inventory's options: these objects are there."""
    return "".join(owner.uid[:8] for owner in owners)
