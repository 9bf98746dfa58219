"""Writes audit lines of what is done to objects, by anyone: derived from every object that a watch
or a list shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dbbackup import audit
from dbbackup.api.objects import Raw
from dbbackup.audit import Line
from dbbackup.handlers.cache import REMEMBERED, Key, key_of, version_of
from dbbackup.plan import audited
from dbbackup.plan.audited import Seen


@dataclass(frozen=True, slots=True)
class _Known:
    key: Key
    version: int
    seen: Seen


class Auditor:
    """Compares each object with what it remembers of it: watches and lists may show objects in any
    order, and more than once.

    Until `ready`, an object that an operator has worked on already is remembered without lines:
    what was done to it was logged then, or happened while no operator ran.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._gone: dict[str, None] = {}
        self._tools: dict[str, None] = {}
        self._making: set[Key] = set()
        self._deleting: dict[str, str] = {}
        self._ready = False

    def ready(self) -> None:
        """The first whole list has been shown: an object that is new after this call was created
        after it."""
        self._ready = True

    def show(self, obj: Raw, *, deleted: bool = False) -> None:
        """An object of one of our kinds, whole: with its managedFields."""
        uid, key, version = obj["metadata"]["uid"], key_of(obj), version_of(obj)
        if uid in self._gone:
            return
        known = self._known.get(uid)
        if known is None:
            new = self._ready or audited.untouched(obj)
            lines = audited.created(obj, own=key in self._making) if new else audited.open_requests(obj)
            self._making.discard(key)
        elif version > known.version:
            lines = audited.changed(known.seen, obj, own=self._deleting.get(uid))
        else:
            lines = []
        if known is None or version > known.version:
            self._known[uid] = _Known(key, version, audited.seen(obj))
        self._record(key, uid, lines)
        if deleted:
            self.forget(key, uid)

    def show_pod(self, pod: Raw) -> None:
        """Any pod of a run. One that a person has made is logged once: `kubectl dbbackup` makes
        them to read a storage or reach a database."""
        metadata = pod["metadata"]
        line = audited.tool(pod)
        if line is None or metadata["uid"] in self._tools:
            return
        _remember(self._tools, metadata["uid"])
        if self._ready:
            self._record(Key("Pod", metadata["namespace"], metadata["name"]), metadata["uid"], [line])

    def forget(self, key: Key, uid: str) -> None:
        """The object is gone."""
        known = self._known.pop(uid, None)
        own = self._deleting.pop(uid, None)
        if known is not None and not known.seen.deleting:
            self._record(key, uid, [audited.deleted(known.seen, own=own)])
        if known is not None:
            _remember(self._gone, uid)

    def phase(self, obj: Raw, before: str | None, status: Raw) -> None:
        """A run's phase has been written."""
        line = audited.ended(obj, status)
        if line is not None and before not in ("Completed", "Failed"):
            self._record(key_of(obj), obj["metadata"]["uid"], [line])

    # Announced by the operator before it acts, so that the line names it

    def making(self, key: Key) -> None:
        """To be called before the request: the watch may show the object before the API server
        answers."""
        self._making.add(key)

    def not_made(self, key: Key) -> None:
        self._making.discard(key)

    def deleting(self, uid: str, why: str) -> None:
        self._deleting[uid] = why

    @staticmethod
    def _record(key: Key, uid: str, lines: Iterable[Line]) -> None:
        for line in lines:
            extra = {**line.extra, "uid": uid}
            audit.record(replace(line, kind=key.kind, namespace=key.namespace, name=key.name, extra=extra))


def _remember(uids: dict[str, None], uid: str) -> None:
    uids[uid] = None
    if len(uids) > REMEMBERED:
        del uids[next(iter(uids))]
