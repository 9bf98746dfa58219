"""Read, plan, apply: one pass over one object. Everything it does is idempotent, also if a second
operator does the same at the same time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from dbbackup import kube as k
from dbbackup.api import objects
from dbbackup.api.metadata import OWNER_UID
from dbbackup.api.objects import TERMINAL, Raw
from dbbackup.api.specs import SpecError, parse_storage
from dbbackup.contract import pages
from dbbackup.contract.mounts import CONTAINER
from dbbackup.handlers.cache import RUN_KINDS, Cache, Key
from dbbackup.handlers.follow import Follower
from dbbackup.handlers.observers import Observer
from dbbackup.handlers.write import RESOURCES, Writer, refusal_of
from dbbackup.plan import backup, restore, schedule, storage
from dbbackup.plan.facts import Decision, Effect, Facts, Items, Read, Refusal, Related, Slot
from dbbackup.plan.settings import Settings
from dbbackup.plan.slots import Contender, Slots

log = logging.getLogger("dbbackup.reconcile")

PASSES = 8
"""A decision may ask for facts four times and be refused once or twice; more is a defect."""
TAIL_LINES = 60
EFFECTS_AT_ONCE = 8


DECIDE: dict[str, Callable[[Facts], Decision]] = {
    "BackupStorage": storage.decide,
    "DatabaseBackupSchedule": schedule.decide,
    "DatabaseBackup": backup.decide,
    "DatabaseRestore": restore.decide,
}


class Reconciler:
    """`await reconciler(key)` does what is due for the object and returns the seconds after which
    to look again, or None."""

    def __init__(self, kube: k.Kube, cache: Cache, settings: Settings, enqueue: Callable[[Key], None], instance: str, observers: Observer) -> None:
        self._kube = kube
        self._cache = cache
        self._settings = settings
        self._enqueue = enqueue
        self._observers = observers
        self.writer = self._write = Writer(kube, cache, enqueue, self._refresh, instance, observers)
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
                # The cache is behind, or another operator was faster: look at the object as it is
                # now.
                await self._refresh(key, obj)
                return 0.0
            if error.not_found:
                await self._refresh(key, obj)
                return None
            raise

    async def _refresh(self, key: Key, obj: Raw) -> None:
        current = await self._kube.get(RESOURCES[key.kind][0], key.namespace, key.name)
        if current is None or current["metadata"]["uid"] != obj["metadata"]["uid"]:
            self.forget(key, obj["metadata"]["uid"])
        if current is not None and self._cache.put(current):
            self._enqueue(key)  # The watch will not enqueue it: the cache has it already.

    def forget(self, key: Key, uid: str) -> None:
        """The object does not exist any more."""
        self._observers.gone(key, uid)
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
            name = restore.source_storage_name(obj, source)
        elif key.kind == "DatabaseBackup":
            name = objects.storage_name(obj)
        else:
            return facts
        return replace(facts, storage=self._cache.get(Key("BackupStorage", key.namespace, name)) if name else None, source=source)

    def _source(self, key: Key, obj: Raw, related: Related) -> Raw | None:
        """The backup that a restore restores."""
        if objects.source_schedule(obj):
            return restore.backup_by_schedule(obj, related.backups)
        name = objects.source_name(obj)
        return self._cache.get(Key("DatabaseBackup", key.namespace, name)) if name else None

    def _related(self, key: Key, obj: Raw) -> Related:
        group = self._cache.group
        if key.kind == "DatabaseBackupSchedule":
            return Related(backups=group("schedule", key.namespace, key.name))
        if key.kind == "DatabaseRestore" and (name := objects.source_schedule(obj)):
            return Related(backups=group("schedule", key.namespace, name))
        if key.kind != "BackupStorage":
            return Related()
        return Related(
            backups=group("storage", key.namespace, key.name),
            elsewhere=[found for found in group("kind", key.namespace, "DatabaseBackup") if objects.storage_name(found) != key.name],
            restores=group("kind", key.namespace, "DatabaseRestore"),
            schedules=group("kind", key.namespace, "DatabaseBackupSchedule"),
        )

    def contender(self, key: Key, obj: Raw) -> Contender:
        """The object as a contender for a slot."""
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
        """The items that a run wrote to its log; a problem if they are not complete."""
        if wanted.report.pages is None:
            return Items(problem="the run's report mentions no pages in the log")
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
            decision = DECIDE[key.kind](facts)
            if decision.want:
                facts = await self._supply(key, facts, decision)
                continue
            if decision.add_finalizer:
                facts = replace(facts, obj=await self._write.finalizer(key, facts.obj, present=True))
            if decision.create is not None and (refusal := await self._write.create_job(key, decision.create)) is not None:
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
            obj = await self._write.status(key, obj, decision.status, decision.notes)
        for note in decision.notes:
            await self._write.note(key, obj, note)
        for job in decision.delete:
            await self._write.delete_job(key, job)
        if decision.remove_finalizer:
            await self._write.finalizer(key, obj, present=False)
        if key.kind not in RUN_KINDS or (obj.get("status") or {}).get("phase") in TERMINAL:
            self.follower.forget(uid)
            if not self._cache.children(uid, "Job"):
                self._cache.forget_children(uid)
        return None if decision.requeue is None else max(decision.requeue / timedelta(seconds=1), 0.1)

    async def _effects(self, key: Key, effects: Sequence[Effect]) -> Refusal | None:
        """Carries out effects on other objects, some at a time. An object that has changed
        meanwhile is left for the next pass. A Refusal is returned only for a schedule, which
        reports it."""
        limit = asyncio.Semaphore(EFFECTS_AT_ONCE)

        async def carry_out(effect: Effect) -> k.ApiError | None:
            async with limit:
                try:
                    await self._write.effect(effect)
                except k.ApiError as error:
                    return error
            return None

        errors = [error for error in await asyncio.gather(*(carry_out(effect) for effect in effects)) if error is not None]
        if not errors:
            return None
        if key.kind == "DatabaseBackupSchedule" and (refusal := refusal_of(errors[0])) is not None:
            return refusal
        raise errors[0]

    def _release(self, uid: str) -> None:
        if self.slots.release(uid):
            for waiting in self.slots.startable():
                if (key := self._cache.key(waiting)) is not None:
                    self._enqueue(key)
