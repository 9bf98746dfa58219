"""A world in which the operator itself decides and acts: an API server, a bucket, nodes that run
Jobs, and a clock that the test moves.

Only what is around the operator is made up. Of it `Reconciler`, `Cache` and `Watch` are the real
ones, so an operator can be killed after any single action, be doubled, or act on what it heard too
late. After every write the world looks whether the API server would have taken it, and whether a
promise was broken: a marked backup never says Completed again, and the newest artifact of a
database is never removed.
"""

from __future__ import annotations

import asyncio
import atexit
import heapq
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from tests.unit.support.crds import PLURALS, problems, root_schema, validator
from tests.unit.support.plan_world import T0

from dbbackup import kube as k
from dbbackup.api.conditions import timestamp
from dbbackup.api.metadata import RUN
from dbbackup.api.objects import expiring
from dbbackup.contract import pages
from dbbackup.contract.keys import directory, parse_leaf
from dbbackup.contract.model import Model
from dbbackup.contract.mounts import CONTAINER
from dbbackup.contract.report import (
    ArtifactReport,
    DatabaseReport,
    DiscoveredItem,
    FailureReport,
    InventoryItem,
    InventoryReport,
    ManifestSummary,
    PagesReport,
    PrunedItem,
    Report,
    RestoredReport,
)
from dbbackup.contract.run import Owner, RunSpec
from dbbackup.handlers.auditing import Auditor
from dbbackup.handlers.cache import Cache, Key
from dbbackup.handlers.observers import Observers
from dbbackup.handlers.reconcile import DECIDE, Reconciler
from dbbackup.handlers.watch import WATCHED, Watch, list_all
from dbbackup.plan.settings import Settings
from dbbackup.plan.storage import published

Raw = dict[str, Any]
Ref = tuple[str, str]
"""Kind and name: there is one namespace."""

NAMESPACE = "ns"
PREFIX = "team"
HOST = "db"
MARGIN = timedelta(milliseconds=500)
LOOKS_AT_ONCE = 60
"""Looks at one object within a second: more is a loop that never comes to rest."""

_LOOP = asyncio.new_event_loop()
atexit.register(_LOOP.close)


_SHAPES: Counter[tuple[str, str, str, frozenset[str]]] = Counter()
"""Of statuses that were written, by all worlds."""


_TAKEN: dict[tuple[str, str], list[str]] = {}


class Killed(Exception):
    """The operator died, after the last action that it was given."""


# What the API server adds and refuses


def _refused(kind: str, spec: Raw) -> list[str]:
    """What the API server would refuse of such a spec. Looked at once for all specs that are alike
    but for their texts."""
    shape = kind, str({name: value if isinstance(value, (dict, list)) else type(value) for name, value in spec.items()})
    if shape not in _TAKEN:
        _TAKEN[shape] = [f"{found.json_path}: {found.message}" for found in validator(kind, "spec").iter_errors(spec)]
    return _TAKEN[shape]


def _defaulted(schema: Mapping[str, Any], value: Any) -> Any:
    if isinstance(value, dict) and "properties" in schema:
        filled = dict(value)
        for name, child in schema["properties"].items():
            if name not in filled and "default" in child:
                filled[name] = child["default"]
            if name in filled:
                filled[name] = _defaulted(child, filled[name])
        return filled
    if isinstance(value, list) and "items" in schema:
        return [_defaulted(schema["items"], item) for item in value]
    return value


def merged(old: Any, patch: Any) -> Any:
    """RFC 7386. Nothing is copied: what is written is never changed in place."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(old) if isinstance(old, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def error(status: int, reason: str, message: str) -> k.ApiError:
    return k.ApiError(status, reason, message)


def quota(kind: str) -> Callable[[Raw], k.ApiError | None]:
    """Refuses to make objects of that kind."""
    return lambda body: error(403, "Forbidden", "exceeded quota: objects, requested: 1, used: 9, limited: 9") if body["kind"] == kind else None


@dataclass
class Artifact:
    """In the bucket, under its directory's key."""

    summary: ManifestSummary
    size: int = 1000
    problem: str | None = None
    stuck: str | None = None
    """Why it cannot be deleted."""


@dataclass(repr=False)
class Server:
    """The objects of one namespace, as the API server holds them. Every change is a new dict."""

    world: World
    objects: dict[Ref, Raw] = field(default_factory=dict)
    watch_events: list[tuple[str, Raw]] = field(default_factory=list)
    """The events of its watches, oldest first."""
    events: dict[str, Raw] = field(default_factory=dict)
    made: list[Ref] = field(default_factory=list)
    """Everything that was ever made, in order."""
    removed: list[Ref] = field(default_factory=list)
    owned: dict[str, list[Ref]] = field(default_factory=dict)
    """UID -> what goes with that object."""
    refuse: Callable[[Raw], k.ApiError | None] = lambda _: None
    meddle: Callable[[Raw], None] = lambda _: None
    """Somebody is faster with what has just been made than the one who made it."""
    version: int = 100

    def _put(self, obj: Raw, what: str) -> Raw:
        self.version += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        ref = obj["kind"], obj["metadata"]["name"]
        if what == "DELETED":
            del self.objects[ref]
            self.removed.append(ref)
        else:
            self.objects[ref] = obj
        self.watch_events.append((what, obj))
        return obj

    def refusal(self, kind: str, body: Raw) -> k.ApiError | None:
        """What comes of making it, where it would not be made."""
        name = body["metadata"]["name"]
        if (kind, name) in self.objects:
            return error(409, "AlreadyExists", f"{kind} {name} already exists")
        return self.refuse({**body, "kind": kind})

    def create(self, kind: str, body: Raw) -> Raw:
        if (refused := self.refusal(kind, body)) is not None:
            raise refused
        name = body["metadata"]["name"]
        metadata = {
            **body["metadata"],
            "namespace": NAMESPACE,
            "uid": f"{self.version + 1:08x}-0000-4000-8000-{len(self.made):012d}",
            "creationTimestamp": timestamp(self.world.now),
            "generation": 1,
        }
        body = {"apiVersion": "batch/v1", **body, "kind": kind, "metadata": metadata}
        if kind in DECIDE:
            body["spec"] = _defaulted(root_schema(PLURALS[kind])["properties"]["spec"], body["spec"])
            assert _refused(kind, body["spec"]) == []
            body.setdefault("status", {"observedGeneration": -1})
        self.made.append((kind, name))
        for owner in metadata.get("ownerReferences") or ():
            self.owned.setdefault(owner["uid"], []).append((kind, name))
        made = self._put(body, "ADDED")
        if kind == "Job":
            self.world.job_made(made)
        self.meddle(made)
        return made

    def change(self, ref: Ref, patch: Raw) -> Raw:
        """A person's merge patch, or the Job controller's."""
        old = self.objects[ref]
        new = merged(old, patch)
        if new["spec"] != old["spec"]:
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        return self._settled(self._put(new, "MODIFIED"))

    def _settled(self, obj: Raw) -> Raw:
        if obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers"):
            self._gone(obj)
        return obj

    def delete(self, ref: Ref) -> None:
        obj = self.objects[ref]
        if obj["metadata"].get("finalizers"):
            if not obj["metadata"].get("deletionTimestamp"):
                self._put({**obj, "metadata": {**obj["metadata"], "deletionTimestamp": timestamp(self.world.now)}}, "MODIFIED")
            return
        self._gone(obj)

    def _gone(self, obj: Raw) -> None:
        self._put(obj, "DELETED")
        uid = obj["metadata"]["uid"]
        for ref in self.owned.pop(uid, ()):
            if ref in self.objects:
                self.delete(ref)

    def write_status(self, ref: Ref, version: str, patch: Raw) -> Raw:
        """What the operator writes to a status, looked at as closely as the API server does, and
        closer."""
        old = self._of_version(ref, version)
        new = {**old, "status": merged(old.get("status") or {}, patch)}
        kind, status = ref[0], new["status"]
        ready = next((item["reason"] for item in status.get("conditions") or () if item["type"] == "Ready"), "")
        shape = kind, str(status.get("phase")), ready, frozenset(status)
        _SHAPES[shape] += 1
        if _SHAPES[shape] <= 2 or _SHAPES[shape] % 50 == 0:  # each takes as long as all the rest
            assert problems(kind, status) == []
        assert status.get("conditions"), f"{ref} tells nothing"
        before = (old.get("status") or {}).get("phase")
        if expiring(old) or before == "Expired":
            assert status["phase"] in ("Deleting", "Expired"), f"{ref} was {before} and says {status['phase']}"
        return self._put(new, "MODIFIED")

    def patch(self, ref: Ref, version: str, patch: Raw) -> Raw:
        old = self._of_version(ref, version)
        return self._settled(self._put({**old, "metadata": merged(old["metadata"], {**patch["metadata"], "resourceVersion": version})}, "MODIFIED"))

    def _of_version(self, ref: Ref, version: str) -> Raw:
        old = self.objects.get(ref)
        if old is None:
            raise error(404, "NotFound", f"{ref} not found")
        if old["metadata"]["resourceVersion"] != version:
            raise error(409, "Conflict", f"{ref}: the object has been modified")
        return old

    def event(self, body: Raw) -> Raw:
        self.events[body["metadata"]["name"]] = body
        return body


# The operator


KIND_OF = {resource.plural: kind for kind, resource in WATCHED.items()}


@dataclass
class Now:
    """In the place of `kube.Clock`."""

    world: World

    def now(self) -> datetime:
        return self.world.now


class FakeKube:
    """The connection of one operator: the methods of `Kube` that are used. Every change is an
    action, after any of which it can break off."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.clock = cast("k.Clock", Now(world))
        self.fuse: int | None = None
        """Actions until the operator dies."""
        self.lost: int | None = None
        """Actions until the answer to one is lost."""
        self.frozen = False
        """Nothing is to be changed now."""
        self.dead = False

    async def _turn(self) -> None:
        for _ in range(self._world.dawdle.randrange(4) if self._world.dawdle else 0):
            await asyncio.sleep(0)
        if self.dead or self.fuse == 0:
            self.dead = True
            raise Killed

    async def _act(self, verb: str, resource: k.Resource, what: str, action: Callable[[], Any]) -> Any:
        assert verb in resource.verbs, f"{verb} on {resource.plural} is not in RESOURCES"
        await self._turn()
        assert not self.frozen, f"not at rest: {verb} {resource.plural} {what}"
        self._world.actions += 1
        answer = action()
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse == 0:
                self.dead = True
                raise Killed
        if self.lost is not None:
            self.lost -= 1
            if self.lost == 0:
                raise error(0, "Unreachable", "connection reset")
        return answer

    async def pages(self, resource: k.Resource, namespace: str | None, label_selector: str | None = None) -> AsyncIterator[tuple[list[Raw], str]]:
        assert "list" in resource.verbs
        kind = KIND_OF[resource.plural]
        items = [
            obj
            for obj in self._world.server.objects.values()
            if obj["kind"] == kind and (label_selector is None or label_selector in (obj["metadata"].get("labels") or {}))
        ]
        yield items, str(self._world.server.version)

    async def get(self, resource: k.Resource, namespace: str, name: str) -> Raw | None:
        assert "get" in resource.verbs
        await self._turn()
        return self._world.server.objects.get((KIND_OF[resource.plural], name))

    async def patch(self, resource: k.Resource, namespace: str, name: str, version: str, patch: Raw) -> Any:
        server = self._world.server
        plural, _, subresource = resource.plural.partition("/")
        ref = KIND_OF[plural], name
        if subresource:
            return await self._act("patch", resource, f"{name} {patch}", lambda: server.write_status(ref, version, patch["status"]))
        return await self._act("patch", resource, f"{name} {patch}", lambda: server.patch(ref, version, patch))

    async def create(self, resource: k.Resource, namespace: str, body: Raw) -> Any:
        server = self._world.server
        if resource is k.EVENTS:
            if body["metadata"]["name"] in server.events:
                raise error(409, "AlreadyExists", "posted already")
            return await self._act("create", resource, str(body["message"]), lambda: server.event(body))
        if self.frozen and (refused := server.refusal(KIND_OF[resource.plural], body)) is not None:
            raise refused
        return await self._act("create", resource, body["metadata"]["name"], lambda: server.create(KIND_OF[resource.plural], body))

    async def delete(self, resource: k.Resource, namespace: str, name: str, uid: str, version: str | None = None) -> None:
        ref = KIND_OF[resource.plural], name

        def action() -> None:
            obj = self._world.server.objects.get(ref)
            if obj is None or obj["metadata"]["uid"] != uid:
                return
            if version is not None and obj["metadata"]["resourceVersion"] != version:
                raise error(409, "Conflict", f"{ref}: the object has been modified")
            self._world.server.delete(ref)

        await self._act("delete", resource, name, action)

    async def events_about(self, namespace: str, uid: str) -> list[Raw]:
        return []

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> list[str]:
        return []

    async def log_lines(self, namespace: str, pod: str, container: str) -> AsyncIterator[str]:
        await self._turn()
        if ("Pod", pod) not in self._world.server.objects:
            raise error(404, "NotFound", f"pod {pod} not found")
        for line in () if self._world.silent else self._world.logs.get(pod, ()):
            yield line

    async def follow_log(self, namespace: str, pod: str, container: str) -> AsyncIterator[str]:
        for line in list[str]():
            yield line


class Operator:
    """One operator process. Its queue knows one time for each key, and forgets a later for an
    earlier: each look must say when the next is due."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.kube = FakeKube(world)
        self.cache = Cache()
        self.settings = Settings(image="registry/operator@sha256:0", started_at=world.now, progress_interval=timedelta(minutes=5))
        observers = Observers(Auditor())
        self.reconciler = Reconciler(cast("k.Kube", self.kube), self.cache, self.settings, self.enqueue, name, observers)
        self.watch = Watch(self.cache, self.enqueue, self.reconciler.forget, observers)
        self.due: dict[Key, datetime] = {}
        self._heap: list[tuple[datetime, Key]] = []
        self.deaf = False
        """Its watches deliver nothing for now."""
        self.heard = len(world.server.watch_events)
        self._looks: dict[Key, tuple[datetime, int]] = {}
        for key in _at_once(list_all(cast("k.Kube", self.kube), self.cache, [NAMESPACE], self.reconciler.forget, observers)):
            self.enqueue(key)

    def enqueue(self, key: Key, seconds: float = 0.0) -> None:
        moment = self.world.now + timedelta(seconds=seconds)
        if moment < self.due.get(key, moment + MARGIN):
            self.due[key] = moment
            heapq.heappush(self._heap, (moment, key))

    def hear(self, count: int | None = None) -> None:
        """The watches deliver so many more events, by default all."""
        events = self.world.server.watch_events
        end = self.heard if self.deaf else len(events) if count is None else min(self.heard + count, len(events))
        for what, obj in events[self.heard : end]:
            self.watch.event(obj["kind"], what, obj)
        self.heard = end

    def next(self) -> tuple[datetime, Key] | None:
        """What is due next."""
        while self._heap and self.due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    async def look(self, key: Key) -> None:
        began, count = self._looks.get(key, (self.world.now, 0))
        if self.world.now - began >= timedelta(seconds=1):
            began, count = self.world.now, 0
        self._looks[key] = began, count + 1
        assert count < LOOKS_AT_ONCE, f"{key} never comes to rest"
        self.due.pop(key, None)
        try:
            again = await self.reconciler(key)
        except k.ApiError:
            again = 0.5
        if again is not None:
            self.enqueue(key, again)


@dataclass(repr=False)
class World:
    """`pace` is how long a Job's pod takes, None where tests end it themselves. `failing` says of a
    run how it fails, as (reason, retryable)."""

    now: datetime = T0
    pace: timedelta | None = timedelta(seconds=10)
    failing: Callable[[RunSpec], tuple[str, bool] | None] = lambda _: None
    databases: list[str] = field(default_factory=lambda: ["app"])
    storage_clock: timedelta = timedelta()
    """How far the storage's clock is ahead."""
    bucket: dict[str, Artifact] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    """Keys of artifacts that prunes have deleted, in order."""
    logs: dict[str, list[str]] = field(default_factory=dict)
    silent: bool = False
    """What Jobs wrote into their logs cannot be had."""
    written: Callable[[Any], Any] = lambda document: document
    """Makes of a JSON document that is written what the version of its writer writes."""
    jobs: list[RunSpec] = field(default_factory=list)
    """The run spec of every Job, in order."""
    actions: int = 0
    kills: int = 0
    lives: int | None = None
    """Actions of each operator that follows one that died; none follows where it is 0."""
    dawdle: random.Random | None = None
    later: list[tuple[datetime, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = Server(self)
        self.operators = [Operator(self, "one")]

    @property
    def operator(self) -> Operator:
        return self.operators[0]

    # Objects

    def apply(self, kind: str, name: str, spec: Raw, **metadata: Any) -> Raw:
        body = {"apiVersion": "dbbackup.io/v1", "metadata": {"name": name, **metadata}, "spec": spec}
        return self.server.create(kind, body)

    def ready_storage(self, name: str = "default", **spec: Any) -> Raw:
        """One that an inventory has just looked through."""
        obj = self.storage(name, **spec)
        ready = {"type": "Ready", "status": "True", "reason": "Available", "message": "x", "lastTransitionTime": timestamp(self.now)}
        usage = {"artifacts": 0, "bytes": 0, "size": "0 B", "orphans": 0, "debris": 0, "uploads": 0, "foreign": 0}
        status = {"observedGeneration": 1, "checkedAt": timestamp(self.now), "checkedGeneration": 1, "usage": usage, "conditions": [ready]}
        status |= published(obj, self.operator.settings)
        return self.server.change(("BackupStorage", name), {"status": status})

    def storage(self, name: str = "default", **spec: Any) -> Raw:
        s3 = {"bucket": "backups", "prefix": PREFIX, "endpoint": "http://s3:7070", "credentialsSecretRef": {"name": "s3"}}
        return self.apply("BackupStorage", name, {"s3": s3, **spec})

    def schedule(self, name: str = "nightly", *, template: Raw | None = None, metadata: Raw | None = None, **spec: Any) -> Raw:
        made = {"spec": {"database": {"secretRef": {"name": "app-db"}}}, **(template or {})}
        return self.apply("DatabaseBackupSchedule", name, {"schedule": "0 3 * * *", "template": made, **spec}, **(metadata or {}))

    def restore(self, name: str, source: Raw, **spec: Any) -> Raw:
        return self.apply("DatabaseRestore", name, {"source": source, "database": {"secretRef": {"name": "target"}}, **spec})

    def get(self, kind: str, name: str) -> Raw:
        return self.server.objects[kind, name]

    def status(self, kind: str, name: str) -> Raw:
        found: Raw = self.get(kind, name)["status"]
        return found

    def all(self, kind: str) -> list[Raw]:
        return [obj for (found, _), obj in sorted(self.server.objects.items()) if found == kind]

    def names(self, kind: str = "DatabaseBackup", phase: str | None = None) -> list[str]:
        return [obj["metadata"]["name"] for obj in self.all(kind) if phase in (None, (obj.get("status") or {}).get("phase"))]

    def annotate(self, kind: str, name: str, key: str, value: str | None) -> None:
        self.server.change((kind, name), {"metadata": {"annotations": {f"dbbackup.io/{key}": value}}})

    def edit(self, kind: str, name: str, **spec: Any) -> None:
        self.server.change((kind, name), {"spec": spec})

    def condition(self, kind: str, name: str, of: str = "Ready") -> tuple[str, str, str]:
        """Status, reason and message."""
        for item in self.status(kind, name).get("conditions") or ():
            if item["type"] == of:
                return item["status"], item["reason"], item["message"]
        return "", "", ""

    def events(self, reason: str) -> list[str]:
        """The messages of the Events of that reason."""
        return [event["message"] for event in self.server.events.values() if event["reason"] == reason]

    def made(self, kind: str = "DatabaseBackup") -> list[str]:
        """Names of that kind that were ever made, in order."""
        return [name for found, name in self.server.made if found == kind]

    def specs(self, run: str) -> list[RunSpec]:
        return [spec for spec in self.jobs if spec.run == run]

    def good(
        self,
        name: str,
        at: datetime,
        *,
        database: str = "app",
        schedule: str | None = None,
        expires: datetime | None = None,
        storage: str = "default",
        annotations: Raw | None = None,
        **spec: Any,
    ) -> Raw:
        """A backup that was completed at that time, and its artifact. `expires`: its recorded
        expiry."""
        scheduled = {"dbbackup.io/scheduled-at": timestamp(at)} if schedule else {}
        self.server.version += 1
        metadata = {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"{self.server.version:08x}-0000-4000-8000-bbbbbbbbbbbb",
            "creationTimestamp": timestamp(at),
            "generation": 1,
            "labels": {"dbbackup.io/schedule": schedule} if schedule else {},
            "annotations": {**scheduled, **(annotations or {})},
        }
        target = {"secretRef": {"name": "app-db"}, "name": database}
        obj = {
            "apiVersion": "dbbackup.io/v1",
            "kind": "DatabaseBackup",
            "metadata": metadata,
            "spec": {"origin": "Run", "database": target, "storageRef": {"name": storage}, "deletionPolicy": "Retain", **spec},
        }
        summary = self._store(owner_of(obj), database, expires, schedule)
        conditions = [
            {"type": kind, "status": value, "reason": "Completed", "message": "stored", "observedGeneration": 1, "lastTransitionTime": timestamp(at)}
            for kind, value in (("Ready", "True"), ("Reconciling", "False"), ("Stalled", "False"), ("Finished", "True"))
        ]
        artifact = summary.artifact.model_dump(mode="json", by_alias=True, exclude={"size_bytes"}, exclude_none=True)
        obj["status"] = {
            "phase": "Completed",
            "observedGeneration": 1,
            "conditions": conditions,
            "jobName": f"backup-{name[:40]}-0123456789",
            "startTime": timestamp(at),
            "completionTime": timestamp(at),
            "artifact": {"storage": storage, "bucket": "backups", "prefix": PREFIX, "endpoint": "http://s3:7070", **artifact},
            "database": summary.database.model_dump(mode="json", by_alias=True, exclude_none=True),
            "expires": timestamp(expires)[:16].replace("T", " ") if expires else "never",
            **({"expirationTime": timestamp(expires)} if expires else {}),
        }
        self.server.made.append(("DatabaseBackup", name))
        return self.server._put(obj, "ADDED")

    def orphan(self, name: str, at: datetime, *, database: str = "app", expires: datetime | None = None, **more: Any) -> str:
        """An artifact whose object is gone; its key. `schedule`, `safety`, `kind`: as its manifest
        tells them."""
        self.server.version += 1
        owner = Owner(
            kind=more.get("kind", "DatabaseBackup"),
            namespace=NAMESPACE,
            name=name,
            uid=more.get("uid") or f"{self.server.version:08x}-0000-4000-8000-aaaaaaaaaaaa",
            created_at=at,
        )
        summary = self._store(owner, database, expires, more.get("schedule"), safety=more.get("safety", False))
        return summary.artifact.key

    def _store(self, owner: Owner, database: str, expires: datetime | None, schedule: str | None, *, safety: bool = False) -> ManifestSummary:
        key = directory(PREFIX, owner, HOST, 5432, database, "-safety" if safety else "")
        artifact = ArtifactReport(key=key, sha256="a" * 64, manifest_sha256="b" * 64, size_bytes=1000, format="plain", compression="zstd")
        database_report = DatabaseReport(
            identity=f"{HOST}:5432/{database}", name=database, server_version="18.1", size_bytes=5, tables=1, rows=1, tls=False
        )
        summary = ManifestSummary(
            owner=owner,
            artifact=artifact,
            database=database_report,
            started_at=owner.created_at,
            finished_at=owner.created_at + timedelta(seconds=5),
            expires_at=expires,
            schedule=schedule,
            safety=safety,
        )
        self.bucket[key] = Artifact(summary)
        return summary

    def running(self, run: str) -> list[RunSpec]:
        """The run specs of the existing Jobs of that kind."""
        return [spec for job in self.all("Job") if (spec := spec_of(job)).run == run]

    # Time

    def run(self, for_: float | timedelta = 0, *, until: datetime | None = None, rest: bool = True) -> None:
        """The clock goes on, and everything that comes due is done. At the end, unless `rest` is
        False, doing it again must change nothing."""
        span = for_ if isinstance(for_, timedelta) else timedelta(seconds=for_)
        _LOOP.run_until_complete(self._run(max(until or self.now + span, self.now), rest))
        self.check_truth()
        if rest:
            self.check_rest()

    async def _run(self, end: datetime, rest: bool) -> None:
        while (moment := self._next()) <= end + (MARGIN if rest else timedelta()):
            self.now = max(self.now, moment)
            self._nature()
            await self._operate()
        self.now = max(self.now, end)
        for operator in self.operators:
            operator.hear()
        if self._next() <= self.now:
            await self._run(self.now, rest)

    def _next(self) -> datetime:
        moments = [moment for moment, _ in self.later]
        for operator in self.operators:
            if (soon := operator.next()) is not None:
                moments.append(soon[0])
            if operator.heard < len(self.server.watch_events) and not operator.deaf:
                moments.append(self.now)
        return min(moments, default=datetime.max.replace(tzinfo=T0.tzinfo))

    def _nature(self) -> None:
        ready = [entry for entry in self.later if entry[0] <= self.now]
        self.later = [entry for entry in self.later if entry[0] > self.now]
        for _, action in sorted(ready, key=lambda entry: entry[0]):
            action()

    async def _operate(self) -> None:
        looks = []
        for operator in self.operators:
            operator.hear(self.dawdle.randrange(6) if self.dawdle and self.dawdle.random() < 0.7 else None)
            if (soon := operator.next()) is not None and soon[0] <= self.now:
                looks.append(operator.look(soon[1]))
        await _together(looks)
        for operator in [operator for operator in self.operators if operator.kube.dead]:
            self.kills += 1
            self.operators.remove(operator)
            if self.lives != 0:
                heir = Operator(self, operator.name)
                heir.kube.fuse = self.lives
                self.operators.append(heir)

    def check_rest(self) -> None:
        """What was decided is not decided again: no status changes itself, nothing is made or
        deleted twice, and nobody looks all the time."""
        if self.dawdle is not None or len(self.operators) != 1:
            return
        for key in self.operator.cache.all_keys():
            self.operator.kube.frozen = True
            try:
                again = _LOOP.run_until_complete(self.operator.reconciler(key))
            finally:
                self.operator.kube.frozen = False
            assert again is None or again >= MARGIN.total_seconds(), f"{key} looks again after {again} s"

    def check_truth(self) -> None:
        """If the status says Completed, the artifact is there."""
        for obj in self.all("DatabaseBackup"):
            if (obj.get("status") or {}).get("phase") == "Completed":
                assert obj["status"]["artifact"]["key"] in self.bucket, f"{obj['metadata']['name']} says Completed, and its artifact is gone"

    def down(self, for_: timedelta) -> None:
        """So long there is no operator; then a new one."""
        self.operators = []
        self.run(for_)
        self.operators = [Operator(self, "again")]

    # Nodes

    def job_made(self, job: Raw) -> None:
        spec = spec_of(job)
        self.jobs.append(spec)
        if self.pace is not None:
            name, uid = job["metadata"]["name"], job["metadata"]["uid"]
            self.later.append((self.now + timedelta(seconds=1), lambda: self._if_there(name, uid, self.start)))
            self.later.append((self.now + self.pace, lambda: self._if_there(name, uid, self.end)))

    def _if_there(self, name: str, uid: str, action: Callable[[str], None]) -> None:
        if self.server.objects.get(("Job", name), {"metadata": {"uid": ""}})["metadata"]["uid"] == uid:
            action(name)

    def job(self, run: str) -> str:
        """The name of the one Job of that kind."""
        [found] = [job["metadata"]["name"] for job in self.all("Job") if job["metadata"]["labels"][RUN] == run]
        return str(found)

    def pod_of(self, job: str) -> str:
        """The name of the Job's pod: another one for another Job of the same name."""
        return f"{job}-{self.get('Job', job)['metadata']['uid'][:8]}"

    def start(self, job: str) -> None:
        """The Job's pod runs."""
        held = self.get("Job", job)
        if ("Pod", self.pod_of(job)) in self.server.objects:
            return
        reference = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": held["metadata"]["uid"], "controller": True}
        state = {"running": {"startedAt": timestamp(self.now)}}
        pod = {
            "apiVersion": "v1",
            "metadata": {"name": self.pod_of(job), "labels": held["metadata"]["labels"], "ownerReferences": [reference]},
            "spec": {},
            "status": {"phase": "Running", "containerStatuses": [{"name": CONTAINER, "state": state}]},
        }
        self.server.create("Pod", pod)

    def end(self, job: str, failure: tuple[str, bool] | None = None) -> None:
        """The Job's pod does its work and reports. `failure`: instead it fails, for good."""
        self.start(job)
        spec = spec_of(self.get("Job", job))
        lines: list[str] = []
        failure = failure or self.failing(spec)
        report = Report(run=spec.run, uid=spec.owner.uid, outcome="Succeeded", started_at=self.now - timedelta(seconds=1), finished_at=self.now)
        if failure is None:
            report = report.model_copy(update=self._work(spec, lines))
        else:
            failed = FailureReport(reason=failure[0], message=f"{failure[0]} happened", hint="do something", retryable=failure[1])
            report = report.model_copy(update={"outcome": "Failed", "failure": failed})
        self.logs[self.pod_of(job)] = lines
        ended = {
            "exitCode": 10 if failure else 0,
            "message": json.dumps(self.written(json.loads(report.fit()))),
            "startedAt": timestamp(self.now),
            "reason": "Error" if failure else "Completed",
        }
        status = {"phase": "Failed" if failure else "Succeeded", "containerStatuses": [{"name": CONTAINER, "state": {"terminated": ended}}]}
        self.server.change(("Pod", self.pod_of(job)), {"status": status})
        self._over(job, failed=failure is not None)

    def lose(self, job: str) -> None:
        """The Job's pod is gone without a report."""
        self.start(job)
        self.server.delete(("Pod", self.pod_of(job)))
        self._over(job, failed=True)

    def _over(self, job: str, *, failed: bool) -> None:
        condition = {
            "type": "Failed" if failed else "Complete",
            "status": "True",
            "reason": "BackoffLimitExceeded" if failed else "CompletionsReached",
        }
        self.server.change(("Job", job), {"status": {"conditions": [condition]}})

    def _work(self, spec: RunSpec, lines: list[str]) -> Raw:
        match spec.run:
            case "backup":
                return self._dump(spec)
            case "restore":
                assert spec.restore is not None
                assert spec.restore.key in self.bucket, "the artifact is gone"
                return {"restored": RestoredReport(tables=1, rows=1, bytes=1)}
            case "inventory":
                return self._inventory(spec, lines)
            case "prune":
                return self._prune(spec, lines)
            case "discover":
                return {"pages": self._paged([DiscoveredItem(name=name) for name in self.databases], lines)}
            case "cleanup":
                assert spec.cleanup is not None
                self.bucket.pop(spec.cleanup.key or "", None)
                return {}
            case _:
                raise AssertionError(spec.run)

    def _paged(self, items: Sequence[Model], lines: list[str]) -> PagesReport:
        """The items as pages in the log."""
        pager = pages.Pager(lambda number, text: lines.append(f'{{"event": "page", "page": {number}, "items": "{text}"}}'))
        for item in items:
            pager.add(_Written(item=item, written=self.written))
        return pager.end()

    def _dump(self, spec: RunSpec) -> Raw:
        assert spec.database is not None
        lifetime = spec.lifetime
        assert lifetime is not None
        summary = self._store(spec.owner, spec.database.name or "app", lifetime.expires_at, lifetime.schedule)
        return {"artifact": summary.artifact, "database": summary.database}

    def _inventory(self, spec: RunSpec, lines: list[str]) -> Raw:
        assert spec.inventory is not None
        text = spec.inventory.known
        known = {text[at : at + 8] for at in range(0, len(text), 8)}
        items = []
        for key, artifact in sorted(self.bucket.items()):
            leaf = parse_leaf(key.rsplit("/", 1)[-1])
            assert leaf is not None
            listed = leaf.short_uid not in known
            items.append(
                InventoryItem(
                    key=key,
                    size_bytes=artifact.size,
                    modified=artifact.summary.finished_at,
                    manifest=artifact.summary if listed and artifact.problem is None else None,
                    problem=artifact.problem if listed else None,
                )
            )
        times = [artifact.summary.owner.created_at for artifact in self.bucket.values()]
        report = InventoryReport(
            now=self.now + self.storage_clock,
            conditional_writes=True,
            artifacts=len(items),
            bytes=sum(artifact.size for artifact in self.bucket.values()),
            oldest=min(times, default=None),
            newest=max(times, default=None),
        )
        return {"inventory": report, "pages": self._paged(items, lines)}

    def _prune(self, spec: RunSpec, lines: list[str]) -> Raw:
        assert spec.prune is not None
        objects = {key: obj for obj in self.all("DatabaseBackup") if (key := ((obj.get("status") or {}).get("artifact") or {}).get("key"))}
        pruned, removed = [], []
        for item in spec.prune.items:
            found = self.bucket.get(item.key)
            problem = None
            if found is not None and (found.stuck or found.summary.owner.uid != item.uid):
                problem = found.stuck or "its manifest is of another object"
            elif found is not None:
                obj = objects.get(item.key)
                assert obj is None or expiring(obj), f"{item.key} is removed, and its object says {(obj or {}).get('status')}"
                removed.append(self.bucket.pop(item.key).summary)
            pruned.append(PrunedItem(key=item.key, uid=item.uid, problem=problem))
        newest: dict[str, datetime] = {}
        for artifact in self.bucket.values():
            identity, made = artifact.summary.database.identity, artifact.summary.owner.created_at
            newest[identity] = max(made, newest.get(identity, made))
        for summary in removed:
            key, identity = summary.artifact.key, summary.database.identity
            assert identity in newest, f"{key} was the last of {identity}, and is removed"
            assert newest[identity] > summary.owner.created_at, f"{key} was the newest of {identity}, and is removed"
            self.deleted.append(key)
        return {"pages": self._paged(pruned, lines)}


def _at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """What it returns, where it waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something")


async def _together(looks: list[Coroutine[Any, Any, None]]) -> None:
    """All of them at the same time. Whatever a killed operator had begun stops."""
    if len(looks) == 1:
        results: list[BaseException | None] = []
        try:
            await looks[0]
        except Killed as killed:
            results.append(killed)
    else:
        results = await asyncio.gather(*looks, return_exceptions=True)
    if any(isinstance(result, Killed) for result in results):
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
    for result in results:
        if result is not None and not isinstance(result, Killed):
            raise result


class _Written(Model):
    """An item as the version of its writer puts it into a page."""

    item: Model
    written: Callable[[Any], Any]

    def model_dump(self, **options: Any) -> Any:
        return self.written(self.item.model_dump(**options))


def spec_of(job: Raw) -> RunSpec:
    """The Job's run spec."""
    [container] = job["spec"]["template"]["spec"]["containers"]
    return RunSpec.model_validate_json(container["env"][0]["value"])


def owner_of(obj: Raw) -> Owner:
    metadata = obj["metadata"]
    return Owner(
        kind=obj["kind"],
        namespace=NAMESPACE,
        name=metadata["name"],
        uid=metadata["uid"],
        created_at=datetime.fromisoformat(metadata["creationTimestamp"]),
    )


def everywhere(scenario: Callable[[World], None], check: Callable[[World], None], *, lost_answers: bool = False) -> int:
    """Plays the scenario once for each action of the operator, killing it right after that one, and
    looks at each end. How many times it was played.

    `lost_answers`: the operator lives, and the answer to that action is lost.
    """
    for number in range(1, 400):
        world = World()
        if lost_answers:
            world.operator.kube.lost = number
        else:
            world.operator.kube.fuse = number
        scenario(world)
        check(world)
        if (world.operator.kube.lost or 0) > 0 if lost_answers else not world.kills:
            return number
    raise AssertionError("the scenario has no end")


def again_and_again(scenario: Callable[[World], None], check: Callable[[World], None]) -> None:
    """Plays the scenario with operators of which each dies after so many actions: after the first,
    after every second ..."""
    for number in (1, 2, 3, 5):
        world = World(lives=number)
        world.operator.kube.fuse = number
        scenario(world)
        check(world)
        if world.kills < 2:
            assert number > 1
            return
