"""The table of endpoints, the source of the routes and of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter

from dbbackup.console import views
from dbbackup.console.actions import BackupRequest, DeleteRequest, RestoreRequest
from dbbackup.console.rows import AnyRow, BackupRow, RestoreRow, ScheduleRow, StorageRow

PREFIX = "/api/v1"


ROWS: Mapping[str, type[AnyRow]] = {
    "DatabaseBackup": BackupRow,
    "DatabaseRestore": RestoreRow,
    "DatabaseBackupSchedule": ScheduleRow,
    "BackupStorage": StorageRow,
}


PLURALS = {"DatabaseBackup": "backups", "DatabaseRestore": "restores", "DatabaseBackupSchedule": "schedules", "BackupStorage": "storages"}


ADAPTERS: Mapping[str, TypeAdapter[Any]] = {kind: TypeAdapter(row) for kind, row in ROWS.items()}


Answer = Literal["document", "me", "list", "object", "created", "changed", "deleted", "file"]


FILTERS = {
    "namespace": "Only objects in this namespace; without it, in every namespace in which you may list them.",
    "state": "Only objects with this badge.",
    "database": "Only objects of this database.",
    "q": "Words that must all occur in the name, namespace, database, reason or similar fields.",
    "page": "RowPage, from 1.",
    "size": f"Objects per page: {views.PAGE_SIZE} by default, {views.MOST} at most.",
}


DRY_RUN = {"dryRun": "`true`: nothing is changed; the answer is what would be applied, as YAML."}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`right` is what Kubernetes must allow the caller; `query` describes the parameters of the
    query string; `kind` is the kind of object in the answer."""

    method: str
    path: str
    name: str
    summary: str
    right: str
    answer: Answer
    kind: str = ""
    query: Mapping[str, str] | None = None
    body: type[BaseModel] | None = None

    @property
    def full_path(self) -> str:
        return PREFIX + self.path


def _reads() -> list[Endpoint]:
    found = []
    for kind, plural in PLURALS.items():
        resource = f"{kind.lower()}s"
        listed = f"list {resource}"
        states = FILTERS | {"state": f"Only objects with this badge: {', '.join(views.STATES[kind])}."}
        found.append(Endpoint("GET", f"/{plural}", f"list-{plural}", f"Lists {kind} objects, the newest first.", listed, "list", kind, states))
        one = f"Gets one {kind}, with the object as stored in Kubernetes."
        found.append(Endpoint("GET", f"/namespaces/{{namespace}}/{plural}/{{name}}", f"get-{plural}", one, f"get {resource}", "object", kind))
    return found


_ONE_BACKUP, _ONE_SCHEDULE = "/namespaces/{namespace}/backups/{name}", "/namespaces/{namespace}/schedules/{name}"


_DELETE = {name: field.description or "" for name, field in ((f.alias or n, f) for n, f in DeleteRequest.model_fields.items())}


_BACKUP, _RESTORE, _SCHEDULE = "DatabaseBackup", "DatabaseRestore", "DatabaseBackupSchedule"


_PATCH_BACKUP, _PATCH_SCHEDULE = "patch databasebackups", "patch databasebackupschedules"


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint("GET", "/openapi.json", "openapi", "This API as an OpenAPI document.", "none, not even a sign-in", "document"),
    Endpoint("GET", "/me", "me", "Your name and groups in Kubernetes.", "none", "me"),
    *_reads(),
    Endpoint(
        "POST",
        "/namespaces/{namespace}/backups",
        "create-backup",
        "Backs up a database.",
        "create databasebackups",
        "created",
        _BACKUP,
        DRY_RUN,
        BackupRequest,
    ),
    Endpoint(
        "DELETE",
        _ONE_BACKUP,
        "delete-backup",
        "Deletes a backup, and its artifact unless `deleteArtifact` is false.",
        "patch and delete databasebackups",
        "deleted",
        _BACKUP,
        _DELETE | DRY_RUN,
    ),
    Endpoint("PUT", f"{_ONE_BACKUP}/pin", "pin", "Pins a backup: it does not expire.", _PATCH_BACKUP, "changed", _BACKUP, DRY_RUN),
    Endpoint("DELETE", f"{_ONE_BACKUP}/pin", "unpin", "Unpins a backup.", _PATCH_BACKUP, "changed", _BACKUP, DRY_RUN),
    Endpoint(
        "GET",
        f"{_ONE_BACKUP}/download",
        "download",
        "Downloads the artifact: SQL, or pg_dump's archive if the format is custom.",
        "get databasebackups/download",
        "file",
        _BACKUP,
        {"raw": "`1`: as stored, compressed."},
    ),
    Endpoint(
        "POST",
        "/namespaces/{namespace}/restores",
        "create-restore",
        "Restores a backup into a database.",
        "create databaserestores",
        "created",
        _RESTORE,
        DRY_RUN,
        RestoreRequest,
    ),
    Endpoint("POST", f"{_ONE_SCHEDULE}/suspend", "suspend", "Suspends a schedule.", _PATCH_SCHEDULE, "changed", _SCHEDULE, DRY_RUN),
    Endpoint("POST", f"{_ONE_SCHEDULE}/resume", "resume", "Resumes a suspended schedule.", _PATCH_SCHEDULE, "changed", _SCHEDULE, DRY_RUN),
    Endpoint("POST", f"{_ONE_SCHEDULE}/run-now", "run-now", "Runs a schedule now.", _PATCH_SCHEDULE, "changed", _SCHEDULE, DRY_RUN),
)
