"""Watch events and whole lists -> cache -> keys to work on. Handlers decide nothing: an exception
in one would lose the event."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from dbbackup import kube as k
from dbbackup.api import objects
from dbbackup.api.metadata import RUN
from dbbackup.api.objects import TERMINAL, Raw
from dbbackup.handlers.auditing import Auditor
from dbbackup.handlers.cache import RUN_KINDS, Cache, Key, key_of
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
"""Of the pods that people make to read a storage, which have no owner here, only the audit
tells."""
SETTLE_SECONDS = 5.0
"""After which a storage is looked at whose backups have changed: retention looks at all of them,
and they seldom change alone."""


class Watch:
    """Takes in what the API server tells. `enqueue(key, seconds)` is called for what is to be
    looked at then, `forget(key, uid)` for what is gone."""

    def __init__(
        self,
        cache: Cache,
        enqueue: Callable[[Key, float], None],
        forget: Callable[[Key, str], None],
        auditor: Auditor | None = None,
    ) -> None:
        self._cache = cache
        self._auditor = auditor
        self._enqueue = enqueue
        self._forget = forget
        self.synced: set[str] = set()
        """Kinds whose watch has delivered an object."""

    def event(self, kind: str, what: str | None, obj: Raw) -> None:
        """One watch event; `what` is None for those of the first list."""
        self.synced.add(kind)
        if kind == "Pod" and self._auditor is not None:
            self._auditor.show_pod(obj)
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
            self._enqueue(key, 0)

    def _object(self, obj: Raw, *, deleted: bool) -> None:
        if self._auditor is not None:
            self._auditor.show(obj, deleted=deleted)
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
        # Also where it is no news to the cache: our own writes are in it already, but nobody else
        # has heard of them.
        self._dependents(key, obj)

    def _dependents(self, changed: Key, obj: Raw) -> None:
        """What hangs on the object: runs that may wait for it, the schedule and the storage of a
        backup."""
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
            source = restore.chosen(run, self._cache.group("schedule", key.namespace, name))
        return restore.storage_name(run, source)

    @property
    def listed(self) -> bool:
        """Whether every watch has delivered an object, of the kinds that have any."""
        return all(kind in self.synced or not self._cache.holds(kind) for kind in WATCHED)


async def list_all(
    kube: k.Kube, cache: Cache, namespaces: Sequence[str], forget: Callable[[Key, str], None], auditor: Auditor | None = None
) -> list[Key]:
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
                    if kind in CHILDREN:
                        if kind == "Pod" and auditor is not None:
                            auditor.show_pod(item)
                        cache.put_child(item)
                    else:
                        if auditor is not None:
                            auditor.show(item)
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
