"""The pages: everything that the API does, for people. Rendered on the server; a request by htmx
gets a fragment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dbbackup.api.objects import Raw
from dbbackup.console import actions, views
from dbbackup.console.actions import BackupRequest, Change, DeleteRequest, RestoreRequest, parse
from dbbackup.console.api import Api, schedule_change
from dbbackup.console.endpoints import PLURALS
from dbbackup.console.people import Right
from dbbackup.console.problems import HttpProblem
from dbbackup.console.render import Renderer, object_yaml
from dbbackup.console.resources import BACKUPS, RESTORES, SCHEDULES
from dbbackup.console.rows import AnyRow, row_of
from dbbackup.console.service import Caller, Service, check_path
from dbbackup.console.web import Gate, drop_cookie, read_form, set_cookie

SUGGESTIONS = 50
_KIND_OF = {plural: kind for kind, plural in PLURALS.items()}


def path_of(kind: str, namespace: str, name: str) -> str:
    return f"/namespaces/{namespace}/{PLURALS[kind]}/{name}"


def _go(path: str) -> Response:
    return RedirectResponse(path, 303)


class Pages:
    def __init__(self, service: Service, gate: Gate, api: Api, render: Renderer) -> None:
        self.service, self.gate, self.api, self.render = service, gate, api, render

    def routes(self) -> list[Route]:
        backup, schedule = "/namespaces/{namespace}/backups/{name}", "/namespaces/{namespace}/schedules/{name}"
        return [
            Route("/", self._home, methods=["GET"]),
            Route("/sign-in", self._sign_in, methods=["GET", "POST"]),
            Route("/sign-out", self._sign_out, methods=["POST"]),
            Route("/backups/new", self._new_backup, methods=["GET", "POST"]),
            Route("/{plural:plural}", self._list, methods=["GET"]),
            Route(f"{backup}/download", self.api.download, methods=["GET"]),
            Route(f"{backup}/restore", self._new_restore, methods=["GET", "POST"]),
            Route(f"{backup}/delete", self._delete, methods=["GET", "POST"]),
            Route(f"{backup}/pin", self._pin, methods=["POST"]),
            Route(f"{backup}/unpin", self._pin, methods=["POST"]),
            Route(f"{schedule}/suspend", self._schedule_action, methods=["POST"]),
            Route(f"{schedule}/resume", self._schedule_action, methods=["POST"]),
            Route(f"{schedule}/run-now", self._schedule_action, methods=["POST"]),
            Route("/namespaces/{namespace}/{plural:plural}/{name}", self._one, methods=["GET"]),
        ]

    async def _caller(self, request: Request) -> Caller:
        caller = await self.gate.caller(request)
        if caller.session is None:
            raise HttpProblem(401, "NotSignedIn", "Sign in to use this page.", "Sign in, or use the API below /api/v1.")
        self.service.count_read(caller)
        if "namespace" in request.path_params:
            check_path(request.path_params["namespace"], request.path_params.get("name", "x"))
        return caller

    # Signing in and out

    async def _home(self, request: Request) -> ASGIApp:
        await self._caller(request)
        return _go("/backups")

    async def _sign_in(self, request: Request) -> ASGIApp:
        following = views.local_path(request.query_params.get("next", "/backups"))
        if request.method != "POST":
            return self.render.page(request, None, "sign-in.html", next=following, why=request.query_params.get("why", ""))
        try:
            cookie = await self.gate.sign_in(request, (await read_form(request)).get("token", ""))
        except HttpProblem as problem:
            return self.render.page(request, None, "sign-in.html", problem.status, next=following, problem=problem)
        answer = _go(following)
        set_cookie(request, answer, cookie, self.service.config.session_lifetime.total_seconds())
        return answer

    async def _sign_out(self, request: Request) -> ASGIApp:
        caller = await self._caller(request)
        self.gate.sign_out(request, caller)
        answer = _go("/sign-in?why=out")
        drop_cookie(request, answer)
        return answer

    # Lists

    async def _list(self, request: Request) -> ASGIApp:
        caller, plural = await self._caller(request), request.path_params["plural"]
        kind, service, query = _KIND_OF[plural], self.service, views.Query.read(request.query_params)
        rows: Sequence[AnyRow] = getattr(service.cache, plural)()
        page = await service.list(caller, kind, rows, query)
        more: dict[str, Any] = {"plural": plural, "kind": kind, "page": page, "query": query, "states": views.STATES[kind]}
        if request.headers.get("hx-request"):
            return self.render.page(request, caller, f"_{plural}.html", **more)
        seen = await service.visible(caller, kind)
        known = service.cache.namespaces()
        spaces = sorted((known if seen is None else seen) | ({query.namespace} if query.namespace else set()))
        databases = sorted({row.database for row in rows if row.database and (seen is None or row.namespace in seen)})[:500]
        stores = await self._usage(caller, query) if plural == "backups" else []
        return self.render.page(request, caller, "list.html", namespaces=spaces, databases=databases, stores=stores, **more)

    async def _usage(self, caller: Caller, query: views.Query) -> list[AnyRow]:
        """The fullest three storages with a capacity, of those that the person may see there."""
        seen = await self.service.visible(caller, "BackupStorage", query.namespace)
        page = views.select(self.service.cache.storages(), views.Query(namespace=query.namespace, size=views.MOST), seen, self.service.now())
        full = [row for row in page.rows if row.capacity and row.used is not None]
        return sorted(full, key=lambda row: -(row.used or 0) / (row.capacity or 1))[:3]  # type: ignore[return-value]

    # One object

    async def _one(self, request: Request) -> ASGIApp:
        caller, path = await self._caller(request), request.path_params
        kind, namespace, name = _KIND_OF[path["plural"]], path["namespace"], path["name"]
        found = await self.service.get(caller, kind, namespace, name)
        may = await self._may(caller, kind, namespace, name)
        more: dict[str, Any] = {
            "kind": kind,
            "row": row_of(found),
            "obj": found,
            "status": found.get("status") or {},
            "spec": found.get("spec") or {},
            "may": may,
        }
        if request.headers.get("hx-request"):
            return self.render.page(request, caller, f"_{path['plural'][:-1]}.html", **more)
        shown = {label: change.yaml() for label, change in self._changes(kind, namespace, name, found, may).items()}
        return self.render.page(request, caller, "one.html", plural=path["plural"], yaml=object_yaml(found), changes=shown, **more)

    async def _may(self, caller: Caller, kind: str, namespace: str, name: str) -> Mapping[str, bool]:
        """Which actions the page offers."""
        needed: Mapping[str, Sequence[Right]] = {}
        if kind == "DatabaseBackup":
            change = Right("patch", BACKUPS, namespace, name)
            needed = {
                "pin": [change],
                "delete": [change, Right("delete", BACKUPS, namespace, name)],
                "restore": [Right("create", RESTORES, namespace)],
                "download": [Right("get", BACKUPS, namespace, name, "download")],
            }
        elif kind == "DatabaseBackupSchedule":
            needed = {"schedule": [Right("patch", SCHEDULES, namespace, name)]}
        answers = await asyncio.gather(*(self.service.may(caller, *rights) for rights in needed.values()))
        return dict(zip(needed, answers, strict=True))

    def _changes(self, kind: str, namespace: str, name: str, found: Raw, may: Mapping[str, bool]) -> dict[str, Change]:
        """The actions that need no form, for `Copy as YAML`."""
        row = row_of(found)
        if kind == "DatabaseBackup" and may["pin"]:
            pinned = bool(getattr(row, "pinned", False))
            return {"Unpin" if pinned else "Pin": actions.pin(namespace, name, pinned=not pinned)}
        if kind == "DatabaseBackupSchedule" and may["schedule"]:
            suspended = bool(getattr(row, "suspended", False))
            return {
                "Resume" if suspended else "Suspend": actions.suspend(namespace, name, suspended=not suspended),
                "Run now": actions.run_now(namespace, name, self.service.stamp()),
            }
        return {}

    # Forms: GET shows one; POST with `preview` shows what would be applied; POST does it

    async def _form(self, request: Request, caller: Caller, template: str, form: Mapping[str, str], make: Any, **more: Any) -> ASGIApp:
        """`make` turns the form into a Change. A refusal is shown above the form, which keeps what
        was typed."""
        if request.method != "POST":
            return self.render.page(request, caller, template, form=form, **more)
        try:
            change = make()
            if "preview" in form:
                return self.render.page(request, caller, template, form=form, preview=change.yaml(), **more)
            done = await self.service.perform(caller, change)
        except HttpProblem as problem:
            if problem.status not in (403, 409, 422, 429):
                raise
            return self.render.page(request, caller, template, problem.status, form=form, problem=problem, **more)
        return self._done(caller, change, done)

    def _done(self, caller: Caller, change: Change, done: Raw | None) -> Response:
        name = change.name or (done or {}).get("metadata", {}).get("name", "")
        words = {
            "create": f"Backup {name} was created.",
            "restore": f"Restore {name} was created.",
            "delete": f"Backup {name} is being deleted.",
            "pin": f"{name} is pinned: it does not expire.",
            "unpin": f"{name} is no longer pinned.",
            "suspend": f"{name} is suspended: it starts no runs.",
            "resume": f"{name} is resumed.",
            "run-now": f"{name} runs now.",
        }
        if caller.session is not None:
            caller.session.flash("good", words[change.action])
        if change.verb == "delete":
            return _go(f"/backups?{urlencode({'namespace': change.namespace})}")
        return _go(path_of(change.kind, change.namespace, name))

    async def _new_backup(self, request: Request) -> ASGIApp:
        caller = await self._caller(request)
        form = await read_form(request) if request.method == "POST" else {"namespace": request.query_params.get("namespace", "")[: views.TEXT]}
        seen = await self.service.visible(caller, "DatabaseBackup")
        stores_seen = await self.service.visible(caller, "BackupStorage")
        cache, namespace = self.service.cache, form.get("namespace", "")
        backups = [row for row in cache.backups() if (seen is None or row.namespace in seen) and namespace in ("", row.namespace)]
        stores = [row for row in cache.storages() if (stores_seen is None or row.namespace in stores_seen) and namespace in ("", row.namespace)]
        known = {
            "namespaces": sorted(cache.namespaces() if seen is None else seen),
            "secrets": sorted({row.secret for row in backups if row.secret})[:SUGGESTIONS],
            "storages": sorted({row.name for row in stores})[:SUGGESTIONS],
        }

        def make() -> Change:
            if not views.NAMESPACE.fullmatch(namespace):
                raise HttpProblem(422, "Invalid", "namespace: name the namespace of the database's Secret.", "Type the name of a namespace.")
            fields = {key: value for key, value in form.items() if key in ("name", "secret", "database", "storage", "format", "ttl")}
            return actions.create_backup(namespace, parse(BackupRequest, fields), caller.person.name)

        return await self._form(request, caller, "new-backup.html", form, make, known=known)

    async def _new_restore(self, request: Request) -> ASGIApp:
        caller, path = await self._caller(request), request.path_params
        namespace, name = path["namespace"], path["name"]
        found = await self.service.get(caller, "DatabaseBackup", namespace, name)
        row = row_of(found)
        if request.method == "POST":
            form = await read_form(request)
        else:
            form = {"secret": getattr(row, "secret", ""), "database": row.database, "onExisting": "Fail", "safetyBackup": "true"}

        def make() -> Change:
            fields: dict[str, Any] = {key: value for key, value in form.items() if key in ("name", "secret", "database", "onExisting", "confirm")}
            flags = {key: key in form for key in ("createDatabase", "safetyBackup")}
            return actions.create_restore(
                namespace, parse(RestoreRequest, {"confirm": "", **fields, **flags, "backup": name}), caller.person.name, preview="preview" in form
            )

        return await self._form(request, caller, "restore.html", form, make, row=row, obj=found, status=found.get("status") or {})

    async def _delete(self, request: Request) -> ASGIApp:
        caller, path = await self._caller(request), request.path_params
        namespace, name = path["namespace"], path["name"]
        found = await self.service.get(caller, "DatabaseBackup", namespace, name)
        form = await read_form(request) if request.method == "POST" else {"artifact": "delete", "uid": found["metadata"]["uid"]}

        def make() -> Change:
            fields = {"confirm": form.get("confirm", ""), "delete_artifact": form.get("artifact") != "keep", "uid": form.get("uid")}
            return actions.delete_backup(namespace, name, parse(DeleteRequest, fields), preview="preview" in form)

        return await self._form(request, caller, "delete.html", form, make, row=row_of(found), obj=found, status=found.get("status") or {})

    # Actions without a form

    async def _act(self, caller: Caller, change: Change) -> ASGIApp:
        return self._done(caller, change, await self.service.perform(caller, change))

    async def _pin(self, request: Request) -> ASGIApp:
        caller, path = await self._caller(request), request.path_params
        return await self._act(caller, actions.pin(path["namespace"], path["name"], pinned=request.url.path.endswith("/pin")))

    async def _schedule_action(self, request: Request) -> ASGIApp:
        caller = await self._caller(request)
        return await self._act(caller, schedule_change(request.url.path.rpartition("/")[2], request.path_params, self.service))
