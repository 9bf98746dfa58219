"""What the console does for a person, behind the page and the API alike: ask Kubernetes whether
they may, do it, write the audit line."""

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
from dbbackup.console.cache import Cache
from dbbackup.console.config import Config
from dbbackup.console.guard import Limit
from dbbackup.console.people import People, Person, Remembered, Right
from dbbackup.console.problems import Problem, from_api, not_found, too_many
from dbbackup.console.resources import KINDS
from dbbackup.console.rows import AnyRow
from dbbackup.console.sessions import Session
from dbbackup.console.views import NAME, NAMESPACE, Page, Query, select
from dbbackup.kube import ApiError, Kube

VIA = "console"
WRITES = (60, 60.0)
"""Of one person, in so many seconds."""
READS = (1200, 60.0)
TRIES = 5
LISTED_SECONDS = 300.0
"""One line of the audit log for so long, since the page looks every few seconds."""

_R = TypeVar("_R", bound=AnyRow)


@dataclass(frozen=True, slots=True)
class Caller:
    """`source` is the address that they come from. `session` is None where they sent their token
    with the request."""

    person: Person
    source: str
    session: Session | None = None


class Service:
    def __init__(self, kube: Kube, cache: Cache, people: People, config: Config) -> None:
        self.kube, self.cache, self.people, self.config = kube, cache, people, config
        self._writes, self._reads = Limit(*WRITES), Limit(*READS)
        self._listed: Remembered[bool] = Remembered(LISTED_SECONDS)

    def now(self) -> datetime:
        return self.kube.clock.now()

    def count_read(self, caller: Caller) -> None:
        """Problem 429 where they ask too often."""
        if wait := self._reads.take(caller.person.key):
            raise too_many("requests", wait)

    def told(
        self, action: str, caller: Caller, outcome: Outcome, kind: str, namespace: str, name: str = "", target: str = "", reason: str = ""
    ) -> None:
        audit.record(Line(action, caller.person.name, VIA, outcome, kind, namespace, name, target, caller.source, reason))

    async def demand(self, action: str, caller: Caller, right: Right, kind: str, name: str = "") -> None:
        """Problem 403, with its line in the audit log, where Kubernetes does not let them."""
        try:
            await self.people.demand(caller.person, right)
        except Problem as problem:
            if problem.status == 403:
                self.told(action, caller, "refused", kind, right.namespace, name, reason=problem.message)
            raise

    async def visible(self, caller: Caller, kind: str, namespace: str = "") -> set[str] | None:
        """The namespaces whose objects of that kind they may list, among those that hold something
        and `namespace`; None for all."""
        known = {namespace} if namespace else self.cache.namespaces()
        return await self.people.readable(caller.person, KINDS[kind], known)

    async def list(self, caller: Caller, kind: str, rows: Sequence[_R], query: Query) -> Page[_R]:
        """What they may see of it. A namespace that they may not list is a Problem 403, there or
        not."""
        if query.namespace and not NAMESPACE.fullmatch(query.namespace):
            raise Problem(422, "Invalid", "namespace: that can be none: lower-case letters, digits and '-'.", "Correct the filter.")
        namespaces = await self.visible(caller, kind, query.namespace)
        if query.namespace and namespaces is not None and not namespaces:
            await self.demand("list", caller, Right("list", KINDS[kind], query.namespace), kind)
        key = (caller.person.key, kind, query.namespace)
        if not self._listed.get(key):
            self._listed.put(key, True)
            self.told("list", caller, "allowed", kind, query.namespace)
        return select(rows, query, namespaces, self.now())

    async def get(self, caller: Caller, kind: str, namespace: str, name: str) -> Raw:
        """The object as it is now. Whoever may not get it learns nothing of whether it is there."""
        await self.demand("get", caller, Right("get", KINDS[kind], namespace, name), kind, name)
        return await self.object(kind, namespace, name)

    async def object(self, kind: str, namespace: str, name: str) -> Raw:
        """The same for the console's own use: whoever calls it has asked for the rights that
        count."""
        try:
            found = await self.kube.get(KINDS[kind], namespace, name)
        except ApiError as error:
            raise from_api(error, f"read {kind} {name}") from None
        if found is None:
            raise not_found(kind, namespace, name)
        return found

    async def may(self, caller: Caller, *rights: Right) -> bool:
        """For what a page offers; the action itself is asked for again."""
        for right in rights:
            if not await self.people.allowed(caller.person, right):
                return False
        return True

    async def perform(self, caller: Caller, change: Change) -> Raw | None:
        """Does it, or Problem; either way one audit line. The object as it is then; None after a
        deletion."""
        if wait := self._writes.take(caller.person.key):
            self.told(change.action, caller, "refused", change.kind, change.namespace, change.name, change.target, "too many changes")
            raise too_many("changes", wait)
        for right in change.rights:
            await self.demand(change.action, caller, right, change.kind, change.name)
        try:
            done = await self._carry_out(change)
        except ApiError as error:
            problem = from_api(error, change.told)
            self.told(change.action, caller, "failed", change.kind, change.namespace, change.name, change.target, problem.message)
            raise problem from None
        except Problem as problem:
            self.told(change.action, caller, "failed", change.kind, change.namespace, change.name, change.target, problem.message)
            raise
        if done is not None and change.verb == "create":
            self.cache.put(done)
        name = change.name or (done or {}).get("metadata", {}).get("name", "")
        self.told(change.action, caller, "succeeded", change.kind, change.namespace, name, change.target)
        return done

    async def _carry_out(self, change: Change) -> Raw | None:
        resource = KINDS[change.kind]
        if change.verb == "create":
            return await self.kube.create(resource, change.namespace, change.body)
        for attempt in range(1, TRIES + 1):
            found = await self.object(change.kind, change.namespace, change.name)
            meta = found["metadata"]
            if change.uid is not None and meta["uid"] != change.uid:
                raise Problem(409, "Conflict", f"{change.kind} {change.name} is another one than you looked at.", "Look at it again.")
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
        """The time as a value for annotations that ask for something new."""
        return timestamp(self.now().astimezone(UTC))


def _with_finalizers(body: Raw, meta: Raw) -> Raw:
    """A merge patch replaces a list: the finalizers of others stay."""
    added = cast("Raw", body.get("metadata") or {}).get("finalizers")
    if not added:
        return body
    kept = [item for item in meta.get("finalizers") or () if item not in added]
    return {**body, "metadata": {**body["metadata"], "finalizers": [*kept, *added]}}


def check_path(namespace: str, name: str) -> None:
    """Problem 404 for what can be the name of nothing."""
    if not NAMESPACE.fullmatch(namespace) or not NAME.fullmatch(name):
        raise Problem(404, "NotFound", "There is no such object: that is no name of Kubernetes.", "Check the address.")
