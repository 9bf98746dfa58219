"""Watch events and whole lists -> cache -> keys to work on. Handlers decide nothing: an exception in one would lose the event."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from dbbackup import kube as k
from dbbackup.handlers.cache import RUN_KINDS, Cache, Key, Raw, key_of
from dbbackup.plan import backup, restore
from dbbackup.plan.jobs import OWNER_UID

log = logging.getLogger("dbbackup.watch")

WATCHED = {
    "BackupStorage": k.STORAGES,
    "DatabaseBackup": k.BACKUPS,
    "DatabaseRestore": k.RESTORES,
    "Job": k.JOBS,
    "Pod": k.PODS,
}
CHILDREN = ("Job", "Pod")
LABEL_SELECTOR = OWNER_UID


class Watch:
    """Takes in what the API server tells. `forget(key, uid)` is called for objects that are gone."""

    def __init__(self, cache: Cache, enqueue: Callable[[Key], None], forget: Callable[[Key, str], None]) -> None:
        self._cache = cache
        self._enqueue = enqueue
        self._forget = forget
        self.told: set[str] = set()
        """Kinds of which a watch has told something."""

    def event(self, kind: str, what: str | None, obj: Raw) -> None:
        """One watch event; `what` is None for those of the first list."""
        self.told.add(kind)
        if kind in CHILDREN:
            self._child({**obj, "kind": kind}, deleted=what == "DELETED")
        else:
            self._object({**obj, "kind": kind}, deleted=what == "DELETED")

    def _child(self, child: Raw, *, deleted: bool) -> None:
        if deleted:
            self._cache.remove_child(child)
        elif not self._cache.put_child(child):
            return
        uid = self._cache.owner_uid(child)
        key = self._cache.key(uid) if uid else None
        if key is not None:
            self._enqueue(key)

    def _object(self, obj: Raw, *, deleted: bool) -> None:
        key, uid = key_of(obj), obj["metadata"]["uid"]
        if deleted:
            known = self._cache.get(key)
            if known is not None and known["metadata"]["uid"] == uid:
                self._forget(key, uid)
        else:
            before = self._cache.get(key)
            if self._cache.put(obj):
                if before is not None and before["metadata"]["uid"] != uid:
                    self._forget(key, before["metadata"]["uid"])
                self._enqueue(key)
        # Also where it is no news to the cache: our own writes are in it already, but nobody else has heard of them.
        self._dependents(key)

    def _dependents(self, changed: Key) -> None:
        """Runs that may wait for the object."""
        for key in self._cache.active(changed.namespace):
            obj = self._cache.get(key)
            if obj is None or key == changed:
                continue
            if changed.kind == "BackupStorage":
                source = None
                if key.kind == "DatabaseRestore" and (name := restore.source_name(obj)):
                    source = self._cache.get(Key("DatabaseBackup", key.namespace, name))
                wanted = backup.storage_name(obj) if key.kind == "DatabaseBackup" else restore.storage_name(obj, source)
                if wanted == changed.name:
                    self._enqueue(key)
            elif changed.kind == "DatabaseBackup" and key.kind == "DatabaseRestore" and restore.source_name(obj) == changed.name:
                self._enqueue(key)

    @property
    def listed(self) -> bool:
        """Whether every watch of a kind of which there is something has told of it."""
        return all(kind in self.told or not self._cache.holds(kind) for kind in WATCHED)


async def list_all(kube: k.Kube, cache: Cache, namespaces: Sequence[str], forget: Callable[[Key, str], None]) -> list[Key]:
    """Brings the cache up to date from whole lists, as a watch can miss a deletion. Returns the keys of all runs that may have something to do."""
    for kind, resource in WATCHED.items():
        selector = LABEL_SELECTOR if kind in CHILDREN else None
        for namespace in namespaces or (None,):
            seen: set[str] = set()
            first_version = None
            async for items, version in kube.pages(resource, namespace, selector):
                first_version = first_version or version
                for item in items:
                    seen.add(item["metadata"]["uid"])
                    if kind in CHILDREN:
                        cache.put_child(item)
                    else:
                        cache.put(item)
            gone = cache.missing(kind, namespace, seen, int(first_version or 0))
            for obj in gone:
                if kind in CHILDREN:
                    cache.remove_child(obj)
                else:
                    forget(key_of(obj), obj["metadata"]["uid"])
    return [key for key in cache.all_keys() if _worth_a_look(cache, key)]


def _worth_a_look(cache: Cache, key: Key) -> bool:
    obj = cache.get(key)
    if obj is None:
        return False
    over = key.kind in RUN_KINDS and (obj.get("status") or {}).get("phase") in ("Completed", "Failed")
    return not over or bool(obj["metadata"].get("deletionTimestamp")) or bool(cache.children(obj["metadata"]["uid"], "Job"))
