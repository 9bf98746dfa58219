"""The table of endpoints, from which the routes and the OpenAPI document are both made."""

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
    "namespace": "Objects of this namespace only; otherwise of all in which you may list them.",
    "state": "Objects with this badge only.",
    "database": "Objects of this database only.",
    "q": "Words that must all occur in name, namespace, database, reason or the like.",
    "page": "Page, from 1.",
    "size": f"Objects of a page: {views.PAGE_SIZE} when absent, {views.MOST} at most.",
}


DRY_RUN = {"dryRun": "`true`: nothing is done; the answer is what would be applied, as YAML."}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`right` is what Kubernetes must allow the caller; `query` describes the parameters of the
    query string; `kind` is that of the answer."""

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
        states = FILTERS | {"state": f"Objects with this badge only: {', '.join(views.STATES[kind])}."}
        found.append(Endpoint("GET", f"/{plural}", f"list-{plural}", f"Lists {kind} objects, the newest first.", listed, "list", kind, states))
        one = f"Gets one {kind}, with the object as Kubernetes has it."
        found.append(Endpoint("GET", f"/namespaces/{{namespace}}/{plural}/{{name}}", f"get-{plural}", one, f"get {resource}", "object", kind))
    return found


_ONE_BACKUP, _ONE_SCHEDULE = "/namespaces/{namespace}/backups/{name}", "/namespaces/{namespace}/schedules/{name}"


_DELETE = {name: field.description or "" for name, field in ((f.alias or n, f) for n, f in DeleteRequest.model_fields.items())}


_BACKUP, _RESTORE, _SCHEDULE = "DatabaseBackup", "DatabaseRestore", "DatabaseBackupSchedule"


_PATCH_BACKUP, _PATCH_SCHEDULE = "patch databasebackups", "patch databasebackupschedules"


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint("GET", "/openapi.json", "openapi", "This API as an OpenAPI document.", "none, not even to be signed in", "document"),
    Endpoint("GET", "/me", "me", "Who Kubernetes says that you are.", "none", "me"),
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
        "Deletes a backup, and its artifact unless told otherwise.",
        "patch and delete databasebackups",
        "deleted",
        _BACKUP,
        _DELETE | DRY_RUN,
    ),
    Endpoint("PUT", f"{_ONE_BACKUP}/pin", "pin", "Pins a backup: it does not expire.", _PATCH_BACKUP, "changed", _BACKUP, DRY_RUN),
    Endpoint("DELETE", f"{_ONE_BACKUP}/pin", "unpin", "Takes the pin off a backup.", _PATCH_BACKUP, "changed", _BACKUP, DRY_RUN),
    Endpoint(
        "GET",
        f"{_ONE_BACKUP}/download",
        "download",
        "Downloads the artifact: SQL, or pg_dump's archive of a custom one.",
        "get databasebackups/download",
        "file",
        _BACKUP,
        {"raw": "`1`: as stored, which is compressed."},
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
    Endpoint("POST", f"{_ONE_SCHEDULE}/run-now", "run-now", "Has a schedule run now.", _PATCH_SCHEDULE, "changed", _SCHEDULE, DRY_RUN),
)
