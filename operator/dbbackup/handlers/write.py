"""What the reconciler writes: Jobs, statuses, finalizers, Events, effects on other objects. Each
write is idempotent."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Sequence

from dbbackup import kube as k
from dbbackup.api.conditions import timestamp
from dbbackup.api.metadata import FINALIZER, OWNER_UID, SCHEDULE
from dbbackup.api.objects import Raw
from dbbackup.handlers.cache import Cache, Key, key_of, version_of
from dbbackup.handlers.observers import Observer
from dbbackup.plan import discovered
from dbbackup.plan.facts import Effect, Note, Refusal, merge_patch

log = logging.getLogger("dbbackup.write")

EFFECT_TRIES = 3
ESSENTIAL = frozenset({"phase", "conditions", "observedGeneration"})
"""Fields without which a status says nothing."""
RESOURCES = {
    "BackupStorage": (k.STORAGES, k.STORAGES_STATUS),
    "DatabaseBackupSchedule": (k.SCHEDULES, k.SCHEDULES_STATUS),
    "DatabaseBackup": (k.BACKUPS, k.BACKUPS_STATUS),
    "DatabaseRestore": (k.RESTORES, k.RESTORES_STATUS),
}
"""Our kinds: the resources of the objects and of their statuses."""


class Writer:
    """`refresh(key, obj)` brings the cache up to date after a write was refused because the cache
    is behind."""

    def __init__(
        self,
        kube: k.Kube,
        cache: Cache,
        enqueue: Callable[[Key], None],
        refresh: Callable[[Key, Raw], Awaitable[None]],
        instance: str,
        observers: Observer,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._enqueue = enqueue
        self._refresh = refresh
        self._instance = instance
        self._observers = observers

    async def effect(self, effect: Effect) -> None:
        """Carries it out, unless the object has changed since the decision."""
        key = key_of(effect.obj)
        for _ in range(EFFECT_TRIES):
            try:
                await self._carry_out(key, effect)
                return
            except k.ApiError as error:
                if not (error.conflict or error.not_found):
                    raise
                if effect.do != "create":
                    await self._refresh(key, effect.obj)
                if effect.do != "create" or error.not_found:
                    return
                # Another worker has looked at the new object already; its status is still ours to
                # write.

    async def _carry_out(self, key: Key, effect: Effect) -> None:
        obj = await self._create_object(key, effect.obj) if effect.do == "create" else effect.obj
        if effect.status is not None and (effect.do != "create" or discovered.waits_for_inventory(obj)):
            obj = await self.status(key, obj, effect.status, effect.notes)
            self._enqueue(key)
        for note in effect.notes:
            await self.note(key, obj, note)
        if effect.do == "delete":
            metadata = obj["metadata"]
            self._observers.deleting(metadata["uid"], effect.notes[0].reason if effect.notes else "Lifecycle")
            await self._kube.delete(RESOURCES[key.kind][0], key.namespace, key.name, metadata["uid"], metadata["resourceVersion"])
            log.info("deleted", extra={"object": str(key), "uid": metadata["uid"]})
            if not metadata.get("finalizers"):
                self._cache.put(self._going(obj))

    async def _create_object(self, key: Key, manifest: Raw) -> Raw:
        """Creates the object, or adopts one of the same name that another pass or operator has
        created for the same purpose."""
        resource = RESOURCES[key.kind][0]
        self._observers.creating(key)
        try:
            made: Raw = await self._kube.create(resource, key.namespace, manifest)
        except k.ApiError as error:
            self._observers.not_created(key)
            if not error.already_exists:
                raise
            found = await self._kube.get(resource, key.namespace, key.name)
            if found is None:
                raise
            if not _same(found, manifest):
                raise k.ApiError(422, "Invalid", f"a {key.kind} {key.name} exists already and is something else") from None
            made = found
        else:
            log.info("created", extra={"object": str(key), "uid": made["metadata"]["uid"]})
        if self._cache.put(made):
            self._enqueue(key)
        return made

    async def fetch(self, key: Key) -> Raw | None:
        """The object as the API server has it now."""
        return await self._kube.get(RESOURCES[key.kind][0], key.namespace, key.name)

    async def status(self, key: Key, obj: Raw, status: Raw, notes: Sequence[Note] = ()) -> Raw:
        """Writes the whole status; returns the object as the API server then has it. `notes` are
        the Events that go with it."""
        status = self._observers.amend(obj, status, notes)
        patch = merge_patch(obj.get("status") or {}, status)
        if not patch:
            return obj
        metadata, resource = obj["metadata"], RESOURCES[key.kind][1]
        try:
            written = await self._kube.patch(resource, key.namespace, key.name, metadata["resourceVersion"], {"status": patch})
        except k.ApiError as error:
            if not error.invalid:
                raise
            status = await self._without_refused(key, obj, status, error)
            patch = merge_patch(obj.get("status") or {}, status)
            written = await self._kube.patch(resource, key.namespace, key.name, metadata["resourceVersion"], {"status": patch})
        self._cache.put(written)
        before, after = (obj.get("status") or {}).get("phase"), status.get("phase")
        if before != after:
            reason = next((c["reason"] for c in status["conditions"] if c["type"] == "Ready"), "")
            log.info("phase", extra={"object": str(key), "uid": metadata["uid"], "from": before, "to": after, "reason": reason})
        self._observers.status_written(obj, written)
        return written

    async def _without_refused(self, key: Key, obj: Raw, status: Raw, error: k.ApiError) -> Raw:
        """The status without the fields that the API server refuses, so that at least the end of a
        run is recorded. It is a defect, and reported as one."""
        refused = {match[1] for field in error.fields if (match := re.match(r"status\.(\w+)", field))}
        log.error("the API server refused the status", extra={"object": str(key), "fields": list(error.fields), "error": str(error)})
        message = f"a defect of the operator, please report it: the API server refused the status: {error.message}"
        await self.note(key, obj, Note("StatusRefused", message, warning=True))
        if not refused or refused & ESSENTIAL:
            raise error
        old = obj.get("status") or {}
        return {name: value for name, value in {**status, **{name: old.get(name) for name in refused}}.items() if value is not None}

    async def finalizer(self, key: Key, obj: Raw, *, present: bool) -> Raw:
        """Adds our finalizer to a DatabaseBackup, or removes it."""
        metadata = obj["metadata"]
        finalizers = list(metadata.get("finalizers") or ())
        if (FINALIZER in finalizers) == present:
            return obj
        wanted = [*finalizers, FINALIZER] if present else [item for item in finalizers if item != FINALIZER]
        patch = {"metadata": {"finalizers": wanted}}
        written = await self._kube.patch(k.BACKUPS, key.namespace, key.name, metadata["resourceVersion"], patch)
        self._cache.put(written)
        return written

    async def create_job(self, key: Key, manifest: Raw) -> Refusal | None:
        """Creates the Job, or adopts the one that another pass or operator has created. A Refusal
        if the API server does not allow it now."""
        name, uid = manifest["metadata"]["name"], manifest["metadata"]["labels"][OWNER_UID]
        try:
            job: Raw = await self._kube.create(k.JOBS, key.namespace, manifest)
        except k.ApiError as error:
            if error.already_exists:
                found = await self._kube.get(k.JOBS, key.namespace, name)
                if found is None:
                    raise
                if (found["metadata"].get("labels") or {}).get(OWNER_UID) != uid:
                    return Refusal("Invalid", f"a Job {name} exists already and belongs to something else")
                self._cache.put_child(found)
                return None
            if (refusal := refusal_of(error)) is not None:
                log.info("Job not created", extra={"object": str(key), "job": name, "error": str(error)})
                return refusal
            raise
        log.info("Job created", extra={"object": str(key), "job": name})
        self._cache.put_child(job)
        return None

    async def delete_job(self, key: Key, job: Raw) -> None:
        """Deletes the Job, unless it is being deleted already."""
        metadata = job["metadata"]
        if metadata.get("deletionTimestamp"):
            return
        await self._kube.delete(k.JOBS, key.namespace, metadata["name"], metadata["uid"])
        log.info("Job deleted", extra={"object": str(key), "job": metadata["name"]})
        self._cache.put_child(self._going(job))

    def _going(self, obj: Raw) -> Raw:
        """The object as the cache keeps it until the watch reports its deletion: it must not be
        deleted again, nor count as running."""
        marked = {"deletionTimestamp": timestamp(self._kube.clock.now()), "resourceVersion": str(version_of(obj) + 1)}
        return {**obj, "metadata": {**obj["metadata"], **marked}}

    async def note(self, key: Key, obj: Raw, note: Note) -> None:
        """An Event on the object. Its name is derived from its content, so that it is posted
        once."""
        metadata = obj["metadata"]
        digest = hashlib.sha256("\n".join((metadata["uid"], note.reason, note.key)).encode()).hexdigest()[:16]
        moment = timestamp(self._kube.clock.now())
        event = {
            "metadata": {"name": f"{key.name[:200]}.{digest}", "namespace": key.namespace},
            "involvedObject": {
                "apiVersion": obj["apiVersion"],
                "kind": key.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "reason": note.reason,
            "message": note.message[:1000],
            "type": "Warning" if note.warning else "Normal",
            "source": {"component": "dbbackup-operator"},
            "reportingComponent": "dbbackup-operator",
            "reportingInstance": self._instance,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        try:
            await self._kube.create(k.EVENTS, key.namespace, event)
        except k.ApiError as error:
            # An Event is a courtesy: if it cannot be posted, nothing else changes.
            if not error.already_exists:
                log.info("Event not posted", extra={"object": str(key), "event": note.reason, "message_text": note.message, "error": str(error)})


def _same(found: Raw, manifest: Raw) -> bool:
    """Whether the object found is the one to create: of the same schedule, or of the same
    artifact."""
    labels = [(obj["metadata"].get("labels") or {}).get(SCHEDULE) for obj in (found, manifest)]
    artifacts = [obj["spec"].get("artifactKey") for obj in (found, manifest)]
    return labels[0] == labels[1] and artifacts[0] == artifacts[1]


def refusal_of(error: k.ApiError) -> Refusal | None:
    """What a failed creation means for the object that asked for it; None for an error that does
    not concern the object, such as an unreachable API server."""
    if error.namespace_terminating:
        return Refusal("Terminating", error.message)
    if error.refused:
        return Refusal("Refused", error.message)
    return Refusal("Invalid", error.message) if error.invalid else None
