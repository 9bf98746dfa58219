"""The client of the API server: every call of operator and console goes through it, except the
operator's watches, which Kopf opens. (The console has no Kopf and uses `Kube.watch`.) Objects are
plain dicts, as the API server returns them.

Each `Resource` lists the verbs that may be used on it; another one raises here. The operator's are
in `RESOURCES`, which a test compares with the chart's RBAC. They include no Secrets.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config

from dbbackup.api.objects import Raw

REQUEST_SECONDS = 30
CHUNK = 500
AGREE_SECONDS = 2.0
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object and the verbs that we use on it. A subresource is written as in RBAC:
    `pods/log`."""

    group: str
    version: str
    plural: str
    verbs: frozenset[str]

    def path(self, namespace: str | None, name: str | None = None) -> str:
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        plural, _, subresource = self.plural.partition("/")
        parts = [base]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


def _resource(group: str, version: str, plural: str, *verbs: str) -> Resource:
    return Resource(group, version, plural, frozenset(verbs))


STORAGES = _resource("dbbackup.io", "v1", "backupstorages", "get", "list", "watch")
BACKUPS = _resource("dbbackup.io", "v1", "databasebackups", "get", "list", "watch", "patch", "create", "delete")
SCHEDULES = _resource("dbbackup.io", "v1", "databasebackupschedules", "get", "list", "watch")
RESTORES = _resource("dbbackup.io", "v1", "databaserestores", "get", "list", "watch")
STORAGES_STATUS = _resource("dbbackup.io", "v1", "backupstorages/status", "patch")
BACKUPS_STATUS = _resource("dbbackup.io", "v1", "databasebackups/status", "patch")
SCHEDULES_STATUS = _resource("dbbackup.io", "v1", "databasebackupschedules/status", "patch")
RESTORES_STATUS = _resource("dbbackup.io", "v1", "databaserestores/status", "patch")
JOBS = _resource("batch", "v1", "jobs", "get", "list", "watch", "create", "delete")
PODS = _resource("", "v1", "pods", "list", "watch")
PODS_LOG = _resource("", "v1", "pods/log", "get")
EVENTS = _resource("", "v1", "events", "list", "create")

RESOURCES = (
    STORAGES,
    BACKUPS,
    SCHEDULES,
    RESTORES,
    STORAGES_STATUS,
    BACKUPS_STATUS,
    SCHEDULES_STATUS,
    RESTORES_STATUS,
    JOBS,
    PODS,
    PODS_LOG,
    EVENTS,
)
"""Every call that the operator and its watches make: exactly the RBAC that it needs."""


class ApiError(Exception):
    """The API server refused a call, or could not be reached (`status` 0)."""

    def __init__(self, status: int, reason: str, message: str, fields: Sequence[str] = ()) -> None:
        super().__init__(f"{reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.fields = tuple(fields)
        """If the object is invalid: the fields at fault, such as `status.warnings`."""

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """The object has changed since, or is another object of the same name."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def already_exists(self) -> bool:
        return self.reason == "AlreadyExists"

    @property
    def namespace_terminating(self) -> bool:
        return self.status == 403 and "being terminated" in self.message

    @property
    def refused(self) -> bool:
        """A quota, an admission policy or a missing right forbids the call: it may be allowed
        later."""
        return self.status == 403

    @property
    def invalid(self) -> bool:
        """The object itself is at fault: the same call will fail again."""
        return self.status in (400, 422)


def _error(status: int, body: bytes) -> ApiError:
    text = body.decode("utf-8", "replace")
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    causes = (answer.get("details") or {}).get("causes") or ()
    fields = [str(cause["field"]) for cause in causes if cause.get("field")]
    return ApiError(status, str(answer.get("reason") or f"HTTP{status}"), str(answer.get("message") or text[:500]), fields)


class Clock:
    """The API server's time, since its timestamps on objects say how old they are. The machine's
    own clock counts while both agree to two seconds: the server sends whole seconds only. Between
    two answers the time comes from a monotonic clock.
    """

    def __init__(self, local: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._local, self._steady = local, steady
        self._wall, self._at = local(), steady()

    def heard(self, date: str | None) -> None:
        """Takes the Date header of an answer that has just arrived."""
        if not date:
            return
        try:
            server = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return
        local, at = self._local(), self._steady()
        self._wall, self._at = (local if abs(local - server) < AGREE_SECONDS else server + 0.5), at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._wall + self._steady() - self._at, UTC)


class Kube:
    """A connection to one API server. Every method raises ApiError; none retries, since the queue
    does."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self.clock = Clock()
        self.answered: Callable[[str, str, int, float], None] = lambda _verb, _resource, _code, _seconds: None
        """Called after each answer: verb, resource, HTTP status (0: no answer), seconds."""

    @classmethod
    @asynccontextmanager
    async def connect(cls, agent: str = "dbbackup-operator") -> AsyncIterator[Kube]:
        """Connects with the ServiceAccount in a pod, elsewhere with the kubeconfig of the
        environment. `agent` becomes the field manager of what it writes."""
        settings = Configuration()  # type: ignore[no-untyped-call]
        try:
            load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        except ConfigException:
            await load_kube_config(client_configuration=settings, persist_config=False)  # type: ignore[no-untyped-call]
        settings.disable_strict_ssl_verification = True  # chain and name are verified; the form of RFC 5280 is not, which many clusters' CAs lack
        async with ApiClient(settings) as api:  # type: ignore[no-untyped-call]
            api.user_agent = agent
            yield cls(api)

    async def _send(
        self,
        verb: str,
        resource: Resource,
        namespace: str | None,
        name: str | None = None,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109
    ) -> aiohttp.ClientResponse:
        if verb not in resource.verbs:
            raise ValueError(f"{verb} on {resource.plural} is not in RESOURCES")
        method = {"get": "GET", "list": "GET", "watch": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}[verb]
        headers = {"Accept": "application/json", "Content-Type": content_type}
        code, started = 0, time.monotonic()
        try:
            response: aiohttp.ClientResponse = await self._api.call_api(  # type: ignore[no-untyped-call]
                resource.path(namespace, name),
                method,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=timeout or aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            )
            self.clock.heard(response.headers.get("Date"))
            code = response.status
            if response.status >= 300:
                raise _error(response.status, await response.read())
            return response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{method} {resource.plural}: {type(error).__name__}: {error}") from error
        finally:
            self.answered(verb, resource.plural, code, time.monotonic() - started)

    async def _json(self, verb: str, resource: Resource, namespace: str | None, name: str | None = None, **more: Any) -> Raw:
        response = await self._send(verb, resource, namespace, name, **more)
        try:
            answer: Raw = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{verb} {resource.plural}: {type(error).__name__}: {error}") from error
        return answer

    async def pages(self, resource: Resource, namespace: str | None, label_selector: str | None = None) -> AsyncIterator[tuple[list[Raw], str]]:
        """Everything of that kind, 500 at a time, each page with the list's resourceVersion. Items
        carry apiVersion and kind."""
        query = {"limit": str(CHUNK)}
        if label_selector:
            query["labelSelector"] = label_selector
        while True:
            answer = await self._json("list", resource, namespace, query=query)
            kind, version = answer["kind"].removesuffix("List"), answer["apiVersion"]
            items: list[Raw] = [{"apiVersion": version, "kind": kind, **item} for item in answer["items"]]
            yield items, answer["metadata"]["resourceVersion"]
            if not (more := answer["metadata"].get("continue")):
                return
            query["continue"] = more

    async def watch(self, resource: Resource, namespace: str | None, version: str, seconds: int) -> AsyncIterator[tuple[str, Raw]]:
        """Changes after that resourceVersion, for so many seconds: ADDED, MODIFIED, DELETED or
        BOOKMARK, each with the object.

        ApiError 410 if the version is too old: list again.
        """
        query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        timeout = aiohttp.ClientTimeout(total=seconds + REQUEST_SECONDS, sock_connect=REQUEST_SECONDS)
        response = await self._send("watch", resource, namespace, query=query, timeout=timeout)
        rest = b""
        try:
            async for chunk in response.content.iter_any():  # not line by line: an object may be longer than the longest line of aiohttp
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    kind, obj = event["type"], event["object"]
                    if kind == "ERROR":
                        raise ApiError(int(obj.get("code") or 500), str(obj.get("reason") or "Error"), str(obj.get("message") or "the watch failed"))
                    yield kind, obj
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(0, "Unreachable", f"watch of {resource.plural}: {type(error).__name__}: {error}") from error
        finally:
            response.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Raw | None:
        """The object as it is now, or None."""
        try:
            return await self._json("get", resource, namespace, name)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def patch(self, resource: Resource, namespace: str, name: str, resource_version: str, patch: Mapping[str, Any]) -> Raw:
        """A merge patch on exactly that version of the object: any other version, or a recreated
        object, is a conflict."""
        metadata = {**patch.get("metadata", {}), "resourceVersion": resource_version}
        body = {**patch, "metadata": metadata}
        return await self._json("patch", resource, namespace, name, body=body, content_type=MERGE_PATCH)

    async def create(self, resource: Resource, namespace: str | None, body: Mapping[str, Any]) -> Raw:
        """The object as it was created; `namespace` is None for kinds without one, such as
        reviews."""
        return await self._json("create", resource, namespace, body=dict(body))

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str, version: str | None = None) -> None:
        """Deletes exactly that object, and what it owns. If it is gone, or another object has its
        name, it counts as deleted.

        `version`: only in that version; any other is a conflict.
        """
        preconditions = {"uid": uid} | ({"resourceVersion": version} if version is not None else {})
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": preconditions}
        try:
            await self._json("delete", resource, namespace, name, body=body)
        except ApiError as error:
            if not (error.not_found or (error.conflict and version is None)):
                raise

    async def events_about(self, namespace: str, uid: str) -> list[Raw]:
        """The Events about the object with that UID, oldest first."""
        answer = await self._json("list", EVENTS, namespace, query={"fieldSelector": f"involvedObject.uid={uid}", "limit": str(CHUNK)})
        items: list[Raw] = answer["items"]
        return sorted(items, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> list[str]:
        """The container's last lines; none if they cannot be read, as from a node that is down: no
        outcome depends on them."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": "262144"}
        try:
            response = await self._send("get", PODS_LOG, namespace, pod, query=query)
            return (await response.read()).decode("utf-8", "replace").splitlines()
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError):
            return []

    async def log_lines(self, namespace: str, pod: str, container: str) -> AsyncIterator[str]:
        """The whole log of a container that has ended, line by line."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=REQUEST_SECONDS)
        async for line in self._log(namespace, pod, {"container": container}, timeout):
            yield line

    async def follow_log(self, namespace: str, pod: str, container: str) -> AsyncIterator[str]:
        """The container's log from its start, line by line, until the container or the connection
        ends."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS)
        async for line in self._log(namespace, pod, {"container": container, "follow": "true"}, timeout):
            yield line

    async def _log(self, namespace: str, pod: str, query: Mapping[str, str], timeout: aiohttp.ClientTimeout) -> AsyncIterator[str]:  # noqa: ASYNC109
        response = await self._send("get", PODS_LOG, namespace, pod, query=query, timeout=timeout)
        try:
            async for line in response.content:
                yield line.decode("utf-8", "replace").rstrip("\n")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(0, "Unreachable", f"log of pod {pod}: {error}") from error
        finally:
            response.close()
