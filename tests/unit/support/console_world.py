"""The console in one process, for tests of what it answers: an API server of a few lines in place
of Kubernetes, and requests without a socket."""

from __future__ import annotations

import asyncio
import base64
import copy
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from dbbackup.console.app import build
from dbbackup.console.cache import RowCache
from dbbackup.console.config import ConsoleConfig
from dbbackup.console.download import Downloads
from dbbackup.console.people import People
from dbbackup.console.resources import KINDS
from dbbackup.console.service import Service
from dbbackup.console.sessions import Sessions
from dbbackup.kube import ApiError, Resource

Raw = dict[str, Any]
NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
HOST = "console.test"


def obj(kind: str, name: str, namespace: str = "shop", *, created: str = "2026-11-24T11:00:00Z", spec: Raw | None = None, **more: Any) -> Raw:
    """`more` are parts of the object: status, or metadata's annotations and labels."""
    meta = {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}", "resourceVersion": "1", "creationTimestamp": created}
    meta |= {key: more.pop(key) for key in ("annotations", "labels", "finalizers", "deletionTimestamp") if key in more}
    return {"apiVersion": "dbbackup.io/v1", "kind": kind, "metadata": meta, "spec": spec or {}, **more}


def backup(name: str, namespace: str = "shop", phase: str = "Completed", **more: Any) -> Raw:
    status = {
        "phase": phase,
        "size": "1 MiB",
        "sizeBytes": 1 << 20,
        "database": {"name": "app"},
        "expires": "2026-12-24 11:00",
        **more.pop("status", {}),
    }
    spec = {"database": {"secretRef": {"name": "app-db"}}, "storageRef": {"name": "default"}, "format": "plain"}
    return obj("DatabaseBackup", name, namespace, spec=spec, status=status, **more)


class Clock:
    def now(self) -> datetime:
        return NOW


@dataclass
class FakeKube:
    """`rights`: user -> what they may, as `verb resource namespace` with `*` for any; `tokens`:
    token -> user."""

    tokens: dict[str, str] = field(default_factory=lambda: {"token-anna": "anna"})
    rights: dict[str, set[str]] = field(default_factory=lambda: {"anna": {"* * shop"}})
    objects: dict[tuple[str, str, str], Raw] = field(default_factory=dict)
    asked: list[Raw] = field(default_factory=list)
    writes: list[tuple[str, str, str, Any]] = field(default_factory=list)
    conflicts: int = 0
    clock: Clock = field(default_factory=Clock)

    def put(self, *objects: Raw) -> None:
        for item in objects:
            plural = KINDS[item["kind"]].plural
            self.objects[plural, item["metadata"]["namespace"], item["metadata"]["name"]] = item

    async def get(self, resource: Resource, namespace: str, name: str) -> Raw | None:
        return copy.deepcopy(self.objects.get((resource.plural, namespace, name)))

    async def create(self, resource: Resource, namespace: str | None, body: Mapping[str, Any]) -> Raw:
        if resource.plural == "tokenreviews":
            user = self.tokens.get(body["spec"]["token"])
            status = {"authenticated": True, "user": {"username": user, "uid": "1", "groups": ["all"], "extra": {"x": ["y"]}}} if user else {}
            return {"status": status}
        if resource.plural == "subjectaccessreviews":
            self.asked.append(dict(body["spec"]))
            return {"status": {"allowed": self._may(body["spec"]["user"], body["spec"]["resourceAttributes"])}}
        meta = dict(body["metadata"])
        meta.setdefault("name", meta.pop("generateName", "x") + "abc12")
        made = obj(body["kind"], meta["name"], str(namespace), spec=body["spec"], annotations=meta.get("annotations", {}))
        if (resource.plural, namespace, meta["name"]) in self.objects:
            raise ApiError(409, "AlreadyExists", "there")
        self.put(made)
        self.writes.append(("create", str(namespace), meta["name"], dict(body)))
        return made

    def _may(self, user: str, asked: Raw) -> bool:
        plural = asked["resource"] + (f"/{asked['subresource']}" if asked["subresource"] else "")
        for right in self.rights.get(user, ()):
            verb, resource, namespace = right.split()
            if verb in ("*", asked["verb"]) and resource in ("*", plural) and namespace in ("*", asked["namespace"] or "*ALL*"):
                return True
        return False

    async def patch(self, _resource: Resource, namespace: str, name: str, _version: str, body: Mapping[str, Any]) -> Raw:
        if self.conflicts:
            self.conflicts -= 1
            raise ApiError(409, "Conflict", "changed")
        self.writes.append(("patch", namespace, name, dict(body)))
        return self.objects[_resource.plural, namespace, name]

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        self.writes.append(("delete", namespace, name, uid))
        self.objects.pop((resource.plural, namespace, name), None)

    def secret(self, namespace: str, name: str, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self.objects["secrets", namespace, name] = {"data": data}


@dataclass(frozen=True)
class Answer:
    """`broken`: it ended before its body did."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    broken: bool

    @property
    def text(self) -> str:
        return self.body.decode()


class World:
    def __init__(self, kube: FakeKube, config: ConsoleConfig | None = None) -> None:
        self.kube = kube
        self.cache = RowCache()
        for item in kube.objects.values():
            if "kind" in item:
                self.cache.put(item)
        anything: Any = kube
        self.people = People(anything)
        self.service = Service(anything, self.cache, self.people, config or ConsoleConfig())
        self.downloads = Downloads(self.service)
        self.sessions = Sessions(3600)
        self.app = build(self.service, self.sessions, self.downloads)
        self.cookie = ""

    async def request(self, method: str, path: str, *, body: bytes = b"", source: str = "10.0.0.1", **headers: Any) -> Answer:
        """Header names with `_` for `-`. The cookie that a sign-in has set goes along; a browser's
        Origin too, unless it is given."""
        path, _, query = path.partition("?")
        all_headers = {
            "host": HOST,
            **({"cookie": self.cookie} if self.cookie else {}),
            **{key.replace("_", "-"): value for key, value in headers.items()},
        }
        if method not in ("GET", "HEAD") and "origin" not in all_headers and "authorization" not in all_headers:
            all_headers["origin"] = f"http://{HOST}"
        raw = [(key.encode(), value.encode("latin-1")) for key, value in all_headers.items() if value != "-"]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": raw,
            "client": (source, 1),
            "server": (HOST, 80),
        }
        messages: list[Any] = []
        sent = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Raw:
            if sent:
                return sent.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: MutableMapping[str, Any]) -> None:
            messages.append({**message, "body": bytes(message["body"])} if "body" in message else message)

        await self.app(scope, receive, send)
        start = messages[0]
        found = {key.decode(): value.decode() for key, value in start["headers"]}
        if "set-cookie" in found and "Max-Age=0" not in found["set-cookie"]:
            self.cookie = found["set-cookie"].partition(";")[0]
        parts = messages[1:]
        return Answer(start["status"], found, b"".join(part["body"] for part in parts), not parts or bool(parts[-1].get("more_body")))

    async def get(self, path: str, **headers: Any) -> Answer:
        return await self.request("GET", path, **headers)

    async def post(self, path: str, fields: Mapping[str, str] | None = None, **headers: Any) -> Answer:
        """As the page's form does: with its CSRF token, unless `fields` hold another."""
        all_fields = {"csrf": self.csrf, **(fields or {})}
        form_headers: dict[str, Any] = {"content_type": "application/x-www-form-urlencoded", **headers}
        return await self.request("POST", path, body=urlencode(all_fields).encode(), **form_headers)

    @property
    def csrf(self) -> str:
        session = self.sessions.find(self.cookie.partition("=")[2]) if self.cookie else None
        return session.csrf if session else ""

    async def sign_in(self, token: str = "token-anna") -> Answer:
        return await self.post("/sign-in", {"token": token})


@asynccontextmanager
async def signed_in(*objects: Raw, config: ConsoleConfig | None = None, **kube: Any) -> AsyncIterator[World]:
    fake = FakeKube(**kube)
    fake.put(*objects)
    world = World(fake, config)
    try:
        answer = await world.sign_in()
        assert answer.status == 303, answer.text
        yield world
    finally:
        world.downloads.close()
