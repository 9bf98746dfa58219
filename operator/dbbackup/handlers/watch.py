"""Watch events and whole lists -> cache -> keys to work on. Handlers decide nothing: an exception
in one would lose the event."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from dbbackup import kube as k
from dbbackup.api import objects
from dbbackup.api.metadata import RUN
from dbbackup.api.objects import TERMINAL, Raw
from dbbackup.handlers.cache import RUN_KINDS, Cache, Key, key_of
from dbbackup.handlers.observers import Observer
from dbbackup.plan import restore

log = logging.getLogger("dbbackup.watch")

WATCHED = {
    "BackupStorage": k.STORAGES,
    "DatabaseBackupSchedule": k.SCHEDULES,
    "DatabaseBackup": k.BACKUPS,
    "DatabaseRestore": k.RESTORES,
    "Job": k.JOBS,
    "Pod": k.PODS,
}
CHILDREN = ("Job", "Pod")
LABEL_SELECTOR = RUN
"""It also selects the pods that people make to read a storage. They have no owner here; only the
audit log mentions them."""
SETTLE_SECONDS = 5.0
"""How long after a change of its backups a storage is looked at: retention reads all of them, and
backups seldom change alone."""


class Watch:
    """Takes in watch events. `enqueue(key, seconds)` is called for objects to look at after so many
    seconds, `forget(key, uid)` for those that do not exist any more."""

    def __init__(
        self,
        cache: Cache,
        enqueue: Callable[[Key, float], None],
        forget: Callable[[Key, str], None],
        observers: Observer,
    ) -> None:
        self._cache = cache
        self._observers = observers
        self._enqueue = enqueue
        self._forget = forget
        self.synced: set[str] = set()
        """Kinds whose watch has delivered an object."""

    def event(self, kind: str, what: str | None, obj: Raw) -> None:
        """One watch event; `what` is its type, None for objects of the watch's first list."""
        self.synced.add(kind)
        obj, deleted = {**obj, "kind": kind}, what == "DELETED"
        self._observers.shown(obj, deleted=deleted)
        if kind in CHILDREN:
            self._child(obj, deleted=deleted)
        else:
            self._object(obj, deleted=deleted)

    def _child(self, child: Raw, *, deleted: bool) -> None:
        if deleted:
            self._cache.remove_child(child)
        elif not self._cache.put_child(child):
            return
        uid = self._cache.owner_uid(child)
        key = self._cache.key(uid) if uid else None
        if key is not None:
            self._enqueue(key, 0)

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
                self._enqueue(key, 0)
        # Also if the cache had it already: it contains our own writes, but the dependents have not
        # been enqueued for them.
        self._dependents(key, obj)

    def _dependents(self, changed: Key, obj: Raw) -> None:
        """Enqueues what depends on the object: runs that may wait for it, the schedule and the
        storage of a backup."""
        schedule = None
        if changed.kind == "DatabaseBackup":
            schedule = objects.schedule_name(obj)
            above = (Key("DatabaseBackupSchedule", changed.namespace, schedule or ""), 0.0)
            for key, seconds in (above, (Key("BackupStorage", changed.namespace, objects.storage_name(obj)), SETTLE_SECONDS)):
                if self._cache.get(key) is not None:
                    self._enqueue(key, seconds)
        elif changed.kind == "DatabaseBackupSchedule" or (changed.kind == "DatabaseRestore" and (obj.get("status") or {}).get("phase") in TERMINAL):
            for storage in self._cache.group("kind", changed.namespace, "BackupStorage"):
                self._enqueue(key_of(storage), SETTLE_SECONDS)
        for key in self._cache.active(changed.namespace):
            run = self._cache.get(key)
            if run is not None and key != changed and self._waits(key, run, changed, schedule):
                self._enqueue(key, 0)

    def _waits(self, key: Key, run: Raw, changed: Key, schedule: str | None) -> bool:
        """Whether the run may wait for what has changed. `schedule`: the one that made it, where
        that is a backup."""
        if changed.kind == "BackupStorage":
            return self._storage_of(key, run) == changed.name
        if changed.kind != "DatabaseBackup" or key.kind != "DatabaseRestore":
            return False
        return objects.source_name(run) == changed.name or (schedule is not None and objects.source_schedule(run) == schedule)

    def _storage_of(self, key: Key, run: Raw) -> str | None:
        if key.kind == "DatabaseBackup":
            return objects.storage_name(run)
        source = None
        if name := objects.source_name(run):
            source = self._cache.get(Key("DatabaseBackup", key.namespace, name))
        elif name := objects.source_schedule(run):
            source = restore.backup_by_schedule(run, self._cache.group("schedule", key.namespace, name))
        return restore.source_storage_name(run, source)

    @property
    def listed(self) -> bool:
        """Whether every watch has delivered an object, of the kinds that have any."""
        return all(kind in self.synced or not self._cache.holds(kind) for kind in WATCHED)


async def list_all(kube: k.Kube, cache: Cache, namespaces: Sequence[str], forget: Callable[[Key, str], None], observers: Observer) -> list[Key]:
    """Brings the cache up to date from whole lists, as a watch can miss a deletion. Returns the
    keys of all runs that may have something to do."""
    for kind, resource in WATCHED.items():
        selector = LABEL_SELECTOR if kind in CHILDREN else None
        for namespace in namespaces or (None,):
            seen: set[str] = set()
            first_version = None
            async for items, version in kube.pages(resource, namespace, selector):
                first_version = first_version or version
                for item in items:
                    seen.add(item["metadata"]["uid"])
                    observers.shown(item)
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
    over = key.kind in RUN_KINDS and (obj.get("status") or {}).get("phase") in TERMINAL
    return not over or bool(obj["metadata"].get("deletionTimestamp")) or any(cache.children(obj["metadata"]["uid"], kind) for kind in CHILDREN)
