"""The HTTP API, version 1: one table, from which the routes and the OpenAPI document both come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dbbackup.console import actions, views
from dbbackup.console.actions import BackupRequest, Change, DeleteRequest, RestoreRequest, parse
from dbbackup.console.download import Downloads
from dbbackup.console.rows import AnyRow, BackupRow, RestoreRow, ScheduleRow, StorageRow, badges, row_of
from dbbackup.console.service import Caller, Service, check_path
from dbbackup.console.web import Gate, read_json

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
Handler = Callable[[Request], Awaitable[ASGIApp]]
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
    """`right` is what Kubernetes must allow the caller; `query` describes the parameters of the query string; `kind` is that of the answer."""

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


class Api:
    def __init__(self, service: Service, gate: Gate, downloads: Downloads) -> None:
        self.service, self.gate, self.downloads = service, gate, downloads

    def routes(self) -> list[Route]:
        handlers: Mapping[str, Handler] = {
            "openapi": self._openapi,
            "me": self._me,
            "create-backup": self._create_backup,
            "delete-backup": self._delete_backup,
            "pin": self._pin,
            "unpin": self._pin,
            "download": self.download,
            "create-restore": self._create_restore,
            "suspend": self._schedule,
            "resume": self._schedule,
            "run-now": self._schedule,
        }
        found = []
        for endpoint in ENDPOINTS:
            handler = handlers.get(endpoint.name) or (self._list(endpoint.kind) if endpoint.answer == "list" else self._get(endpoint.kind))
            found.append(Route(endpoint.full_path, handler, methods=[endpoint.method], name=endpoint.name))
        return found

    async def _caller(self, request: Request) -> Caller:
        caller = await self.gate.caller(request)
        self.service.count_read(caller)
        if "namespace" in request.path_params:
            check_path(request.path_params["namespace"], request.path_params.get("name", "x"))
        return caller

    async def _openapi(self, _request: Request) -> ASGIApp:
        from dbbackup.console.openapi import document  # noqa: PLC0415 - it is made from this module

        return JSONResponse(document())

    async def _me(self, request: Request) -> ASGIApp:
        person = (await self._caller(request)).person
        return JSONResponse({"name": person.name, "groups": list(person.groups)})

    def told(self, row: AnyRow) -> dict[str, Any]:
        told: dict[str, Any] = ADAPTERS[row.kind].dump_python(row, mode="json", by_alias=True)
        return {**told, "badges": [badge.text for badge in badges(row, self.service.now())]}

    def _list(self, kind: str) -> Handler:
        async def handler(request: Request) -> ASGIApp:
            caller, cache = await self._caller(request), self.service.cache
            rows: Sequence[AnyRow] = getattr(cache, PLURALS[kind])()
            page = await self.service.list(caller, kind, rows, views.Query.read(request.query_params))
            items = [self.told(row) for row in page.rows]
            return JSONResponse({"items": items, "total": page.total, "page": page.number, "pages": page.pages})

        return handler

    def _get(self, kind: str) -> Handler:
        async def handler(request: Request) -> ASGIApp:
            caller, path = await self._caller(request), request.path_params
            found = await self.service.get(caller, kind, path["namespace"], path["name"])
            return JSONResponse({**self.told(row_of(found)), "object": found})

        return handler

    async def _do(self, request: Request, caller: Caller, change: Change, status: int = 200) -> ASGIApp:
        if dry_run(request):
            return PlainTextResponse(change.yaml(), media_type="application/yaml")
        done = await self.service.perform(caller, change)
        return JSONResponse({} if done is None else {**self.told(row_of(done)), "object": done}, status)

    async def _create_backup(self, request: Request) -> ASGIApp:
        caller = await self._caller(request)
        wanted = parse(BackupRequest, await read_json(request))
        return await self._do(request, caller, actions.create_backup(request.path_params["namespace"], wanted, caller.person.name), 201)

    async def _create_restore(self, request: Request) -> ASGIApp:
        caller = await self._caller(request)
        wanted = parse(RestoreRequest, await read_json(request))
        return await self._do(
            request, caller, actions.create_restore(request.path_params["namespace"], wanted, caller.person.name, preview=dry_run(request)), 201
        )

    async def _delete_backup(self, request: Request) -> ASGIApp:
        caller, path = await self._caller(request), request.path_params
        asked = {"confirm": "", **{key: value for key, value in request.query_params.items() if key != "dryRun"}}
        return await self._do(
            request, caller, actions.delete_backup(path["namespace"], path["name"], parse(DeleteRequest, asked), preview=dry_run(request))
        )

    async def _pin(self, request: Request) -> ASGIApp:
        caller, path = await self._caller(request), request.path_params
        return await self._do(request, caller, actions.pin(path["namespace"], path["name"], pinned=request.method == "PUT"))

    async def _schedule(self, request: Request) -> ASGIApp:
        caller, path = await self._caller(request), request.path_params
        return await self._do(request, caller, schedule_change(request.url.path.rpartition("/")[2], path, self.service))

    async def download(self, request: Request) -> ASGIApp:
        """Also the page's: a file is a file."""
        caller, path = await self._caller(request), request.path_params
        raw = request.query_params.get("raw", "").lower() in ("1", "true")
        return await self.downloads.respond(caller, path["namespace"], path["name"], raw=raw, head=request.method == "HEAD")


def dry_run(request: Request) -> bool:
    return request.query_params.get("dryRun", "").lower() in ("1", "true")


def schedule_change(action: str, path: Mapping[str, str], service: Service) -> Change:
    """`action` is suspend, resume or run-now."""
    if action == "run-now":
        return actions.run_now(path["namespace"], path["name"], service.stamp())
    return actions.suspend(path["namespace"], path["name"], suspended=action == "suspend")
