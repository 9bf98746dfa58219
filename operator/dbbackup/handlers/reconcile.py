"""Read, plan, apply: one pass over one object. Everything it does may be done twice, by a second operator too, and has the effect of once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from dbbackup import kube as k
from dbbackup import pages
from dbbackup.api.conditions import timestamp
from dbbackup.api.specs import SpecError, parse_storage
from dbbackup.handlers.cache import RUN_KINDS, TERMINAL, Cache, Key, Raw, key_of, version_of
from dbbackup.handlers.follow import Follower
from dbbackup.plan import backup, discovered, restore, schedule, storage
from dbbackup.plan.facts import FINALIZER, SCHEDULE, Decision, Effect, Facts, Items, Note, Read, Refusal, Related, Slot, merge_patch
from dbbackup.plan.jobs import CONTAINER, OWNER_UID
from dbbackup.plan.settings import Settings
from dbbackup.plan.slots import Contender, Slots

log = logging.getLogger("dbbackup.reconcile")

PASSES = 8
"""A decision may ask for four facts and be refused once or twice; more is a defect."""
TAIL_LINES = 60
EFFECTS_AT_ONCE = 8
EFFECT_TRIES = 3
ESSENTIAL = frozenset({"phase", "conditions", "observedGeneration"})
"""Of a status: without these it tells nothing."""


@dataclass(frozen=True, slots=True)
class Kind:
    resource: k.Resource
    status: k.Resource
    decide: Callable[[Facts], Decision]


KINDS = {
    "BackupStorage": Kind(k.STORAGES, k.STORAGES_STATUS, storage.decide),
    "DatabaseBackupSchedule": Kind(k.SCHEDULES, k.SCHEDULES_STATUS, schedule.decide),
    "DatabaseBackup": Kind(k.BACKUPS, k.BACKUPS_STATUS, backup.decide),
    "DatabaseRestore": Kind(k.RESTORES, k.RESTORES_STATUS, restore.decide),
}


class Reconciler:
    """`await reconciler(key)` does what is due for the object and returns the seconds after which to look again, or None."""

    def __init__(self, kube: k.Kube, cache: Cache, settings: Settings, enqueue: Callable[[Key], None], instance: str) -> None:
        self._kube = kube
        self._cache = cache
        self._settings = settings
        self._enqueue = enqueue
        self._instance = instance
        self.slots = Slots(settings.max_concurrent)
        self.follower = Follower(kube, enqueue)

    async def __call__(self, key: Key) -> float | None:
        obj = self._cache.get(key)
        if obj is None:
            return None
        try:
            return await self._pass(key, obj)
        except k.ApiError as error:
            if error.conflict:
                # The cache is behind, or another operator was faster: look at what is there now.
                await self._refresh(key, obj)
                return 0.0
            if error.not_found:
                await self._refresh(key, obj)
                return None
            raise

    async def _refresh(self, key: Key, obj: Raw) -> None:
        current = await self._kube.get(KINDS[key.kind].resource, key.namespace, key.name)
        if current is None or current["metadata"]["uid"] != obj["metadata"]["uid"]:
            self.forget(key, obj["metadata"]["uid"])
        if current is not None and self._cache.put(current):
            self._enqueue(key)  # The watch will tell no news any more.

    def forget(self, key: Key, uid: str) -> None:
        """The object is gone."""
        self._cache.remove(key, uid)
        self._cache.forget_children(uid)
        self.follower.forget(uid)
        self._release(uid)

    # Reading

    def _facts(self, key: Key, obj: Raw) -> Facts:
        uid = obj["metadata"]["uid"]
        facts = Facts(
            obj=obj,
            now=self._kube.clock.now(),
            settings=self._settings,
            jobs=self._cache.children(uid, "Job"),
            pods=self._cache.children(uid, "Pod"),
            log=self.follower.view(uid),
            related=self._related(key, obj),
        )
        source = None
        name: str | None
        if key.kind == "DatabaseRestore":
            source = self._source(key, obj, facts.related)
            name = restore.storage_name(obj, source)
        elif key.kind == "DatabaseBackup":
            name = backup.storage_name(obj)
        else:
            return facts
        return replace(facts, storage=self._cache.get(Key("BackupStorage", key.namespace, name)) if name else None, source=source)

    def _source(self, key: Key, obj: Raw, related: Related) -> Raw | None:
        """The backup that a restore takes."""
        if restore.source_schedule(obj):
            return restore.chosen(obj, related.backups)
        name = restore.source_name(obj)
        return self._cache.get(Key("DatabaseBackup", key.namespace, name)) if name else None

    def _related(self, key: Key, obj: Raw) -> Related:
        group = self._cache.group
        if key.kind == "DatabaseBackupSchedule":
            return Related(backups=group("schedule", key.namespace, key.name))
        if key.kind == "DatabaseRestore" and (name := restore.source_schedule(obj)):
            return Related(backups=group("schedule", key.namespace, name))
        if key.kind != "BackupStorage":
            return Related()
        return Related(
            backups=group("storage", key.namespace, key.name),
            elsewhere=[found for found in group("kind", key.namespace, "DatabaseBackup") if backup.storage_name(found) != key.name],
            restores=group("kind", key.namespace, "DatabaseRestore"),
            schedules=group("kind", key.namespace, "DatabaseBackupSchedule"),
        )

    def contender(self, key: Key, obj: Raw) -> Contender:
        """The object as one that wants a slot."""
        facts = self._facts(key, obj)
        limit = None
        if facts.storage is not None:
            try:
                limit = parse_storage(facts.storage).max_concurrent
            except SpecError:
                limit = None
        name = facts.storage["metadata"]["name"] if facts.storage is not None else ""
        return Contender(obj["metadata"]["creationTimestamp"], obj["metadata"]["uid"], (key.namespace, name), limit)

    async def _supply(self, key: Key, facts: Facts, decision: Decision) -> Facts:
        namespace = key.namespace
        if "slot" in decision.want:
            message = self.slots.take(self.contender(key, facts.obj))
            facts = replace(facts, slot=Slot(message is None, message or ""))
        if "events" in decision.want:
            about = [child["metadata"]["uid"] for child in (*facts.jobs, *facts.pods)]
            found = [event for uid in about for event in await self._kube.events_about(namespace, uid)]
            facts = replace(facts, events=found)
        if "tail" in decision.want:
            tail = await self._kube.log_tail(namespace, decision.follow, CONTAINER, TAIL_LINES) if decision.follow else []
            facts = replace(facts, tail=tail)
        if "job" in decision.want:
            job = await self._kube.get(k.JOBS, namespace, facts.status["jobName"])
            gone = job is None or (job["metadata"].get("labels") or {}).get(OWNER_UID) != facts.uid
            if job is not None and not gone:
                self._cache.put_child(job)
            facts = replace(facts, job_gone=gone, jobs=self._cache.children(facts.uid, "Job"))
        if "items" in decision.want and decision.read is not None:
            facts = replace(facts, items=await self._items(namespace, decision.read))
        return facts

    async def _items(self, namespace: str, wanted: Read) -> Items:
        """What a run told in its log, believed only where it is whole."""
        if wanted.report.pages is None:
            return Items(problem="the run's report tells of no pages")
        try:
            lines = [line async for line in self._kube.log_lines(namespace, wanted.pod, CONTAINER) if '"page"' in line]
            return Items(tuple(pages.read(lines, wanted.report.pages, wanted.model)))  # type: ignore[arg-type]
        except k.ApiError as error:
            if error.not_found:
                return Items(problem=f"pod {wanted.pod} is gone, and its log with it")
            raise
        except pages.PagesError as error:
            return Items(problem=str(error))

    # Planning and applying

    async def _pass(self, key: Key, obj: Raw) -> float | None:
        facts = self._facts(key, obj)
        for _ in range(PASSES):
            decision = KINDS[key.kind].decide(facts)
            if decision.want:
                facts = await self._supply(key, facts, decision)
                continue
            if decision.add_finalizer:
                facts = replace(facts, obj=await self._finalizer(key, facts.obj, present=True))
            if decision.create is not None and (refusal := await self._create(key, decision.create)) is not None:
                facts = replace(facts, refusal=refusal)
                continue
            if decision.effects and (refusal := await self._effects(key, decision.effects)) is not None:
                facts = replace(facts, refusal=refusal)
                continue
            return await self._apply(key, facts, decision)
        raise RuntimeError(f"{key}: no decision after {PASSES} passes")

    async def _apply(self, key: Key, facts: Facts, decision: Decision) -> float | None:
        uid = facts.uid
        if decision.holds_slot:
            self.slots.hold(self.contender(key, facts.obj))
        elif facts.slot is None or facts.slot.granted:
            self._release(uid)
        if decision.follow is not None:
            self.follower.follow(uid, key, decision.follow)
        obj = facts.obj
        if decision.status is not None and not decision.remove_finalizer:
            obj = await self._write_status(key, obj, decision.status)
        for note in decision.notes:
            await self._note(key, obj, note)
        for job in decision.delete:
            await self._delete(key, job)
        if decision.remove_finalizer:
            await self._finalizer(key, obj, present=False)
        if key.kind not in RUN_KINDS or (obj.get("status") or {}).get("phase") in TERMINAL:
            self.follower.forget(uid)
            if not self._cache.children(uid, "Job"):
                self._cache.forget_children(uid)
        return None if decision.requeue is None else max(decision.requeue / timedelta(seconds=1), 0.1)

    async def _effects(self, key: Key, effects: Sequence[Effect]) -> Refusal | None:
        """On other objects, some at a time. One that has changed meanwhile is left for the next look. A schedule hears what it was refused."""
        limit = asyncio.Semaphore(EFFECTS_AT_ONCE)

        async def carry_out(effect: Effect) -> k.ApiError | None:
            async with limit:
                try:
                    await self._effect(effect)
                except k.ApiError as error:
                    return error
            return None

        errors = [error for error in await asyncio.gather(*(carry_out(effect) for effect in effects)) if error is not None]
        if not errors:
            return None
        if key.kind == "DatabaseBackupSchedule" and (refusal := _refusal(errors[0])) is not None:
            return refusal
        raise errors[0]

    async def _effect(self, effect: Effect) -> None:
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
                # What was just made has been looked at by another worker already: its status is still ours to write.

    async def _carry_out(self, key: Key, effect: Effect) -> None:
        obj = await self._create_object(key, effect.obj) if effect.do == "create" else effect.obj
        if effect.status is not None and (effect.do != "create" or discovered.waits(obj)):
            obj = await self._write_status(key, obj, effect.status)
            self._enqueue(key)
        for note in effect.notes:
            await self._note(key, obj, note)
        if effect.do == "delete":
            metadata = obj["metadata"]
            await self._kube.delete(KINDS[key.kind].resource, key.namespace, key.name, metadata["uid"], metadata["resourceVersion"])
            log.info("deleted", extra={"object": str(key), "uid": metadata["uid"]})
            if not metadata.get("finalizers"):
                self._cache.put(self._going(obj))

    async def _create_object(self, key: Key, manifest: Raw) -> Raw:
        """Makes the object, or takes the one of its name that another pass or operator made."""
        resource = KINDS[key.kind].resource
        try:
            made: Raw = await self._kube.create(resource, key.namespace, manifest)
        except k.ApiError as error:
            if not error.already_exists:
                raise
            found = await self._kube.get(resource, key.namespace, key.name)
            if found is None:
                raise
            if not _same(found, manifest):
                raise k.ApiError(422, "Invalid", f"there is a {key.kind} {key.name} already that is something else") from None
            made = found
        else:
            log.info("created", extra={"object": str(key), "uid": made["metadata"]["uid"]})
        if self._cache.put(made):
            self._enqueue(key)
        return made

    def _release(self, uid: str) -> None:
        if self.slots.release(uid):
            for waiting in self.slots.startable():
                if (key := self._cache.key(waiting)) is not None:
                    self._enqueue(key)

    async def _write_status(self, key: Key, obj: Raw, status: Raw) -> Raw:
        patch = merge_patch(obj.get("status") or {}, status)
        if not patch:
            return obj
        metadata, resource = obj["metadata"], KINDS[key.kind].status
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
        return written

    async def _without_refused(self, key: Key, obj: Raw, status: Raw, error: k.ApiError) -> Raw:
        """The status without what the API server does not take, so that a run's end is told whatever else cannot be. A defect, and told as one."""
        refused = {match[1] for field in error.fields if (match := re.match(r"status\.(\w+)", field))}
        log.error("the API server refused the status", extra={"object": str(key), "fields": list(error.fields), "error": str(error)})
        message = f"a defect of the operator, please report it: the API server refused the status: {error.message}"
        await self._note(key, obj, Note("StatusRefused", message, warning=True))
        if not refused or refused & ESSENTIAL:
            raise error
        old = obj.get("status") or {}
        return {name: value for name, value in {**status, **{name: old.get(name) for name in refused}}.items() if value is not None}

    async def _finalizer(self, key: Key, obj: Raw, *, present: bool) -> Raw:
        metadata = obj["metadata"]
        finalizers = list(metadata.get("finalizers") or ())
        if (FINALIZER in finalizers) == present:
            return obj
        wanted = [*finalizers, FINALIZER] if present else [item for item in finalizers if item != FINALIZER]
        patch = {"metadata": {"finalizers": wanted}}
        written = await self._kube.patch(k.BACKUPS, key.namespace, key.name, metadata["resourceVersion"], patch)
        self._cache.put(written)
        return written

    async def _create(self, key: Key, manifest: Raw) -> Refusal | None:
        """Makes the Job, or adopts the one that another pass or operator made."""
        name, uid = manifest["metadata"]["name"], manifest["metadata"]["labels"][OWNER_UID]
        try:
            job: dict[str, Any] = await self._kube.create(k.JOBS, key.namespace, manifest)
        except k.ApiError as error:
            if error.already_exists:
                found = await self._kube.get(k.JOBS, key.namespace, name)
                if found is None:
                    raise
                if (found["metadata"].get("labels") or {}).get(OWNER_UID) != uid:
                    return Refusal("Invalid", f"there is a Job {name} already that belongs to something else")
                self._cache.put_child(found)
                return None
            if (refusal := _refusal(error)) is not None:
                log.info("Job not made", extra={"object": str(key), "job": name, "error": str(error)})
                return refusal
            raise
        log.info("Job created", extra={"object": str(key), "job": name})
        self._cache.put_child(job)
        return None

    async def _delete(self, key: Key, job: Raw) -> None:
        metadata = job["metadata"]
        if metadata.get("deletionTimestamp"):
            return
        await self._kube.delete(k.JOBS, key.namespace, metadata["name"], metadata["uid"])
        log.info("Job deleted", extra={"object": str(key), "job": metadata["name"]})
        self._cache.put_child(self._going(job))

    def _going(self, obj: Raw) -> Raw:
        """What was deleted, until the watch says so: it is not to be deleted again, nor taken for one that still works."""
        marked = {"deletionTimestamp": timestamp(self._kube.clock.now()), "resourceVersion": str(version_of(obj) + 1)}
        return {**obj, "metadata": {**obj["metadata"], **marked}}

    async def _note(self, key: Key, obj: Raw, note: Note) -> None:
        """An Event on the object. Its name comes from what it says, so that it is told once."""
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
            # An Event is a courtesy: that it cannot be told changes nothing.
            if not error.already_exists:
                log.info("Event not told", extra={"object": str(key), "event": note.reason, "message_text": note.message, "error": str(error)})


def _same(found: Raw, manifest: Raw) -> bool:
    """Whether an object is the one that was to be made: of the same schedule, or of the same artifact."""
    labels = [(obj["metadata"].get("labels") or {}).get(SCHEDULE) for obj in (found, manifest)]
    artifacts = [obj["spec"].get("artifactKey") for obj in (found, manifest)]
    return labels[0] == labels[1] and artifacts[0] == artifacts[1]


def _refusal(error: k.ApiError) -> Refusal | None:
    """What the answer to a creation means for the object that wanted it; None where it says nothing about it."""
    if error.namespace_terminating:
        return Refusal("Terminating", error.message)
    if error.refused:
        return Refusal("Refused", error.message)
    return Refusal("Invalid", error.message) if error.invalid else None
