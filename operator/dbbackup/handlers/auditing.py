"""Writes audit lines of what is done to objects, by anyone: derived from every object that a watch
or a list shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dbbackup import audit
from dbbackup.api.objects import Raw
from dbbackup.audit import Line
from dbbackup.handlers.cache import REMEMBERED, Key, key_of, version_of
from dbbackup.handlers.observers import Observer
from dbbackup.plan import audited
from dbbackup.plan.audited import Seen


@dataclass(frozen=True, slots=True)
class _Known:
    key: Key
    version: int
    seen: Seen


class Auditor(Observer):
    """Compares each object with what it remembers of it: watches and lists may show objects in any
    order, and more than once.

    Before `listed`, an object that an operator has worked on already is remembered without lines:
    what was done to it was logged then, or happened while no operator ran.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._gone: dict[str, None] = {}
        self._tools: dict[str, None] = {}
        self._creating: set[Key] = set()
        self._deleting: dict[str, str] = {}
        self._listed = False

    def listed(self, objects: Sequence[Raw]) -> None:  # noqa: ARG002
        """An object that is new after this call was created after it."""
        self._listed = True

    def shown(self, obj: Raw, *, deleted: bool = False) -> None:
        if obj["kind"] == "Pod":
            self._pod(obj)
        elif obj["kind"] != "Job":
            self._object(obj, deleted=deleted)

    def _object(self, obj: Raw, *, deleted: bool) -> None:
        uid, key, version = obj["metadata"]["uid"], key_of(obj), version_of(obj)
        if uid in self._gone:
            return
        known = self._known.get(uid)
        if known is None:
            new = self._listed or audited.untouched(obj)
            lines = audited.created(obj, own=key in self._creating) if new else audited.open_requests(obj)
            self._creating.discard(key)
        elif version > known.version:
            lines = audited.changed(known.seen, obj, own=self._deleting.get(uid))
        else:
            lines = []
        if known is None or version > known.version:
            self._known[uid] = _Known(key, version, audited.seen(obj))
        self._record(key, uid, lines)
        if deleted:
            self.gone(key, uid)

    def _pod(self, pod: Raw) -> None:
        """A pod that a person has made is logged once: `kubectl dbbackup` makes them to read a
        storage or reach a database."""
        metadata = pod["metadata"]
        line = audited.tool(pod)
        if line is None or metadata["uid"] in self._tools:
            return
        _remember(self._tools, metadata["uid"])
        if self._listed:
            self._record(Key("Pod", metadata["namespace"], metadata["name"]), metadata["uid"], [line])

    def gone(self, key: Key, uid: str) -> None:
        known = self._known.pop(uid, None)
        own = self._deleting.pop(uid, None)
        if known is not None and not known.seen.deleting:
            self._record(key, uid, [audited.deleted(known.seen, own=own)])
        if known is not None:
            _remember(self._gone, uid)

    def status_written(self, before: Raw, after: Raw) -> None:
        line = audited.ended(after)
        if line is not None and (before.get("status") or {}).get("phase") not in ("Completed", "Failed"):
            self._record(key_of(after), after["metadata"]["uid"], [line])

    # Announced by the operator before it acts, so that the line names it

    def creating(self, key: Key) -> None:
        self._creating.add(key)

    def not_created(self, key: Key) -> None:
        self._creating.discard(key)

    def deleting(self, uid: str, reason: str) -> None:
        self._deleting[uid] = reason

    @staticmethod
    def _record(key: Key, uid: str, lines: Iterable[Line]) -> None:
        for line in lines:
            extra = {**line.extra, "uid": uid}
            audit.record(replace(line, kind=key.kind, namespace=key.namespace, name=key.name, extra=extra))


def _remember(uids: dict[str, None], uid: str) -> None:
    uids[uid] = None
    if len(uids) > REMEMBERED:
        del uids[next(iter(uids))]
