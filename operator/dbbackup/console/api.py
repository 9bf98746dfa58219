"""The HTTP API, version 1: the handlers for the endpoints in `endpoints`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dbbackup.console import actions, views
from dbbackup.console.actions import BackupRequest, Change, DeleteRequest, RestoreRequest, parse
from dbbackup.console.download import Downloads
from dbbackup.console.endpoints import ADAPTERS, ENDPOINTS, PLURALS
from dbbackup.console.openapi import document
from dbbackup.console.rows import AnyRow, badges, row_of
from dbbackup.console.service import Caller, Service, check_path
from dbbackup.console.web import Gate, read_json

Handler = Callable[[Request], Awaitable[ASGIApp]]


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
        return JSONResponse(document())

    async def _me(self, request: Request) -> ASGIApp:
        person = (await self._caller(request)).person
        return JSONResponse({"name": person.name, "groups": list(person.groups)})

    def row_json(self, row: AnyRow) -> dict[str, Any]:
        fields: dict[str, Any] = ADAPTERS[row.kind].dump_python(row, mode="json", by_alias=True)
        return {**fields, "badges": [badge.text for badge in badges(row, self.service.now())]}

    def _list(self, kind: str) -> Handler:
        async def handler(request: Request) -> ASGIApp:
            caller, cache = await self._caller(request), self.service.cache
            rows: Sequence[AnyRow] = getattr(cache, PLURALS[kind])()
            page = await self.service.list(caller, kind, rows, views.Query.read(request.query_params))
            items = [self.row_json(row) for row in page.rows]
            return JSONResponse({"items": items, "total": page.total, "page": page.number, "pages": page.pages})

        return handler

    def _get(self, kind: str) -> Handler:
        async def handler(request: Request) -> ASGIApp:
            caller, path = await self._caller(request), request.path_params
            found = await self.service.get(caller, kind, path["namespace"], path["name"])
            return JSONResponse({**self.row_json(row_of(found)), "object": found})

        return handler

    async def _do(self, request: Request, caller: Caller, change: Change, status: int = 200) -> ASGIApp:
        if dry_run(request):
            return PlainTextResponse(change.yaml(), media_type="application/yaml")
        done = await self.service.perform(caller, change)
        return JSONResponse({} if done is None else {**self.row_json(row_of(done)), "object": done}, status)

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
        fields = {"confirm": "", **{key: value for key, value in request.query_params.items() if key != "dryRun"}}
        return await self._do(
            request, caller, actions.delete_backup(path["namespace"], path["name"], parse(DeleteRequest, fields), preview=dry_run(request))
        )

    async def _pin(self, request: Request) -> ASGIApp:
        caller, path = await self._caller(request), request.path_params
        return await self._do(request, caller, actions.pin(path["namespace"], path["name"], pinned=request.method == "PUT"))

    async def _schedule(self, request: Request) -> ASGIApp:
        caller, path = await self._caller(request), request.path_params
        return await self._do(request, caller, schedule_change(request.url.path.rpartition("/")[2], path, self.service))

    async def download(self, request: Request) -> ASGIApp:
        """For the page too."""
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
