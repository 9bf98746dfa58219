"""What the console does for a person, for page and API alike: it asks Kubernetes whether they may,
does it, and writes the audit line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar, cast

from dbbackup import audit
from dbbackup.api.conditions import timestamp
from dbbackup.api.objects import Raw
from dbbackup.audit import Line, Outcome
from dbbackup.console.actions import Change
from dbbackup.console.cache import RowCache
from dbbackup.console.config import ConsoleConfig
from dbbackup.console.guard import RateLimit
from dbbackup.console.people import People, Person, Right, TimedCache
from dbbackup.console.problems import HttpProblem, from_api, not_found, too_many
from dbbackup.console.resources import KINDS
from dbbackup.console.rows import AnyRow
from dbbackup.console.sessions import Session
from dbbackup.console.views import NAME, NAMESPACE, Query, RowPage, select
from dbbackup.kube import ApiError, Kube

VIA = "console"
WRITES = (60, 60.0)
"""Changes of one person at most, and in how many seconds."""
READS = (1200, 60.0)
"""The same for all requests."""
TRIES = 5
LISTED_SECONDS = 300.0
"""One audit line covers a list for this time, because the page asks every few seconds."""

_R = TypeVar("_R", bound=AnyRow)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a request. `source` is their address; `session` is None if they sent a token with
    the request."""

    person: Person
    source: str
    session: Session | None = None


class Service:
    def __init__(self, kube: Kube, cache: RowCache, people: People, config: ConsoleConfig) -> None:
        self.kube, self.cache, self.people, self.config = kube, cache, people, config
        self._writes, self._reads = RateLimit(*WRITES), RateLimit(*READS)
        self._listed: TimedCache[bool] = TimedCache(LISTED_SECONDS)

    def now(self) -> datetime:
        return self.kube.clock.now()

    def count_read(self, caller: Caller) -> None:
        """HttpProblem 429 if they ask too often."""
        if wait := self._reads.take(caller.person.key):
            raise too_many("requests", wait)

    def audit(
        self, action: str, caller: Caller, outcome: Outcome, kind: str, namespace: str, name: str = "", target: str = "", reason: str = ""
    ) -> None:
        audit.record(Line(action, caller.person.name, VIA, outcome, kind, namespace, name, target, caller.source, reason))

    async def demand(self, action: str, caller: Caller, right: Right, kind: str, name: str = "") -> None:
        """HttpProblem 403, with an audit line, if Kubernetes does not allow it."""
        try:
            await self.people.demand(caller.person, right)
        except HttpProblem as problem:
            if problem.status == 403:
                self.audit(action, caller, "refused", kind, right.namespace, name, reason=problem.message)
            raise

    async def visible(self, caller: Caller, kind: str, namespace: str = "") -> set[str] | None:
        """The namespaces in which they may list the kind, among those with objects, or `namespace`
        alone if it is given; None for all."""
        known = {namespace} if namespace else self.cache.namespaces()
        return await self.people.readable(caller.person, KINDS[kind], known)

    async def list(self, caller: Caller, kind: str, rows: Sequence[_R], query: Query) -> RowPage[_R]:
        """The rows that they may see. HttpProblem 403 for a namespace in which they may not list,
        whether it exists or not."""
        if query.namespace and not NAMESPACE.fullmatch(query.namespace):
            raise HttpProblem(422, "Invalid", "namespace: invalid name: use lower-case letters, digits and '-'.", "Correct the filter.")
        namespaces = await self.visible(caller, kind, query.namespace)
        if query.namespace and namespaces is not None and not namespaces:
            await self.demand("list", caller, Right("list", KINDS[kind], query.namespace), kind)
        key = (caller.person.key, kind, query.namespace)
        if not self._listed.get(key):
            self._listed.put(key, True)
            self.audit("list", caller, "allowed", kind, query.namespace)
        return select(rows, query, namespaces, self.now())

    async def get(self, caller: Caller, kind: str, namespace: str, name: str) -> Raw:
        """The object as it is now. Without the right, the answer does not show whether it
        exists."""
        await self.demand("get", caller, Right("get", KINDS[kind], namespace, name), kind, name)
        return await self.object(kind, namespace, name)

    async def object(self, kind: str, namespace: str, name: str) -> Raw:
        """The same without a check: the caller has checked the rights that are needed."""
        try:
            found = await self.kube.get(KINDS[kind], namespace, name)
        except ApiError as error:
            raise from_api(error, f"read {kind} {name}") from None
        if found is None:
            raise not_found(kind, namespace, name)
        return found

    async def may(self, caller: Caller, *rights: Right) -> bool:
        """Whether a page should offer an action; the action itself is checked again."""
        for right in rights:
            if not await self.people.allowed(caller.person, right):
                return False
        return True

    async def perform(self, caller: Caller, change: Change) -> Raw | None:
        """Makes the change, or raises HttpProblem; either way it writes one audit line. Returns the
        object afterwards, None after a deletion."""
        if wait := self._writes.take(caller.person.key):
            self.audit(change.action, caller, "refused", change.kind, change.namespace, change.name, change.target, "too many changes")
            raise too_many("changes", wait)
        for right in change.rights:
            await self.demand(change.action, caller, right, change.kind, change.name)
        try:
            done = await self._carry_out(change)
        except ApiError as error:
            problem = from_api(error, change.description)
            self.audit(change.action, caller, "failed", change.kind, change.namespace, change.name, change.target, problem.message)
            raise problem from None
        except HttpProblem as problem:
            self.audit(change.action, caller, "failed", change.kind, change.namespace, change.name, change.target, problem.message)
            raise
        if done is not None and change.verb == "create":
            self.cache.put(done)
        name = change.name or (done or {}).get("metadata", {}).get("name", "")
        self.audit(change.action, caller, "succeeded", change.kind, change.namespace, name, change.target)
        return done

    async def _carry_out(self, change: Change) -> Raw | None:
        resource = KINDS[change.kind]
        if change.verb == "create":
            return await self.kube.create(resource, change.namespace, change.body)
        for attempt in range(1, TRIES + 1):
            found = await self.object(change.kind, change.namespace, change.name)
            meta = found["metadata"]
            if change.uid is not None and meta["uid"] != change.uid:
                raise HttpProblem(409, "Conflict", f"{change.kind} {change.name} was replaced since you opened it.", "Load it again.")
            try:
                done = found
                if not meta.get("deletionTimestamp"):
                    done = await self.kube.patch(
                        resource, change.namespace, change.name, meta["resourceVersion"], _with_finalizers(change.body, meta)
                    )
            except ApiError as error:
                if error.conflict and attempt < TRIES:
                    continue
                raise
            if change.verb == "delete":
                await self.kube.delete(resource, change.namespace, change.name, meta["uid"])
                return None
            self.cache.put(done)
            return done
        raise AssertionError("unreachable")

    def stamp(self) -> str:
        """The time, as a new value for annotations that request something."""
        return timestamp(self.now().astimezone(UTC))


def _with_finalizers(body: Raw, meta: Raw) -> Raw:
    """The patch with the object's other finalizers: a merge patch replaces the whole list."""
    added = cast("Raw", body.get("metadata") or {}).get("finalizers")
    if not added:
        return body
    kept = [item for item in meta.get("finalizers") or () if item not in added]
    return {**body, "metadata": {**body["metadata"], "finalizers": [*kept, *added]}}


def check_path(namespace: str, name: str) -> None:
    """HttpProblem 404 if a name is not a valid Kubernetes name."""
    if not NAMESPACE.fullmatch(namespace) or not NAME.fullmatch(name):
        raise HttpProblem(404, "NotFound", "There is no such object: not a valid Kubernetes name.", "Check the address.")
