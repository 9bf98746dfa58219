"""`python -m dbbackup operator`: Kopf watches, our queue reconciles, both in one event loop until
SIGTERM."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from dbbackup import __version__
from dbbackup.api.objects import Raw
from dbbackup.handlers import config as configuration
from dbbackup.handlers.auditing import Auditor
from dbbackup.handlers.cache import RUN_KINDS, Cache, Key
from dbbackup.handlers.health import serving
from dbbackup.handlers.notify import Notifier
from dbbackup.handlers.observers import Observers
from dbbackup.handlers.queue import Queue
from dbbackup.handlers.reconcile import Reconciler
from dbbackup.handlers.telemetry import Telemetry
from dbbackup.handlers.watch import CHILDREN, LABEL_SELECTOR, WATCHED, Watch, list_all
from dbbackup.kube import ApiError, Kube
from dbbackup.process import ConfigError, set_up_logging

log = logging.getLogger("dbbackup")

WORKERS = 8
RESYNC_SECONDS = 600
FIRST_RESYNC_SECONDS = 5
"""After the start, and again until every watch has listed: no watch reports an object that was
deleted between our list and its own."""
STANDSTILL_SECONDS = 30
"""After so long without a turn of its timer, a queue counts as dead."""
LIST_AGAIN_SECONDS = 2


class Operator:
    """The parts of one operator process, and how they are connected."""

    def __init__(self, kube: Kube, config: configuration.Config) -> None:
        self._kube = kube
        self._config = config
        self.cache = Cache()
        self._telemetry = Telemetry(config.metrics_series or 0)
        self.observers = Observers(Auditor(), self._telemetry)
        instance = os.environ.get("HOSTNAME") or socket.gethostname()
        self.reconciler = Reconciler(kube, self.cache, config.settings, self._enqueue, instance, self.observers)
        self.queue: Queue[Key] = Queue(self.reconciler, WORKERS, expected=(ApiError,), done=self.observers.reconciled)
        self.watch = Watch(self.cache, self._enqueue, self.reconciler.forget, self.observers)
        writer = self.reconciler.writer
        self.notifier = Notifier(config.sinks, kube.clock.now, writer.status, writer.fetch, self._peers)
        self.observers.add(self.notifier)
        kube.answered = self.observers.answered
        self._primed = False

    def _enqueue(self, key: Key, seconds: float = 0.0) -> None:
        if seconds:
            self.queue.add_after(key, seconds)
        else:
            self.queue.add(key)

    def alive(self) -> str | None:
        age = asyncio.get_running_loop().time() - self.queue.heartbeat
        return f"the queue has made no progress for {age:.0f} s" if self._primed and age > STANDSTILL_SECONDS else None

    def ready(self) -> str | None:
        if not self._primed:
            return "the first list is not done"
        return None if self.watch.listed else "not every watch has listed"

    def _peers(self, obj: Raw) -> list[Raw]:
        return self.cache.group("kind", obj["metadata"]["namespace"], obj["kind"])

    def _schedules(self) -> list[Raw]:
        return [obj for key in self.cache.all_keys() if key.kind == "DatabaseBackupSchedule" and (obj := self.cache.get(key)) is not None]

    async def _list(self) -> list[Key]:
        return await list_all(self._kube, self.cache, self._config.namespaces, self.reconciler.forget, self.observers)

    async def prime(self) -> None:
        """Lists everything for the first time, and tries until it works: limits and lost Jobs
        cannot be judged from a part of the objects."""
        while True:
            try:
                keys = await self._list()
                break
            except ApiError as error:
                log.warning("the first list does not work yet, trying again", extra={"error": str(error)})
                await asyncio.sleep(LIST_AGAIN_SECONDS)
        for key in keys:
            obj = self.cache.get(key)
            if obj is not None and key.kind in RUN_KINDS and self.cache.children(obj["metadata"]["uid"], "Job"):
                self.reconciler.slots.hold(self.reconciler.contender(key, obj))
        self.observers.listed([obj for key in self.cache.all_keys() if (obj := self.cache.get(key)) is not None])
        for key in keys:
            self.queue.add(key)
        self._primed = True
        log.info("listed", extra={"objects": len(self.cache.all_keys()), "to_look_at": len(keys)})

    async def resync(self) -> None:
        pause = FIRST_RESYNC_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                for key in await self._list():
                    self.queue.add(key)
            except ApiError as error:
                log.warning("resync failed, the next one follows", extra={"error": str(error)})
            pause = RESYNC_SECONDS if self.watch.listed else FIRST_RESYNC_SECONDS

    def registry(self) -> kopf.OperatorRegistry:
        """Event handlers only; each just takes its event in, see `watch`."""
        registry = kopf.OperatorRegistry()

        def handler_of(kind: str) -> Callable[..., Awaitable[None]]:
            async def handler(event: kopf.RawEvent, **_: Any) -> None:
                self.watch.event(kind, event["type"], event["object"])

            return handler

        for kind, resource in WATCHED.items():
            kopf.on.event(resource.group, resource.version, resource.plural, id=f"watch-{resource.plural}", registry=registry)(handler_of(kind))
        kopf.on.login(registry=registry)(_login)
        return registry

    async def run(self) -> None:
        """Runs until SIGTERM, or until a part of it dies: then it raises, and Kubernetes restarts
        the container."""
        page = self._telemetry.page(self.cache, self.queue, self.watch, self._kube.clock.now, self.ready, lambda: self._primed)
        async with serving(self._config.port, self.alive, self.ready, page if self._config.metrics_series else None):
            await self.prime()
            stop = asyncio.Event()
            own = [asyncio.create_task(self.queue.run(), name="queue"), asyncio.create_task(self.resync(), name="resync")]
            if self.notifier.sinks:
                sending = self.notifier.run(self._schedules, lambda: self.alive() or self.ready())
                own.append(asyncio.create_task(sending, name="notifications"))
            for task in own:
                task.add_done_callback(lambda _task: stop.set())

            async def end(**_: Any) -> None:
                # Also Kopf's cleanup handler: Kopf waits 5 seconds for tasks that still run after
                # it.
                for task in own:
                    task.cancel()
                await asyncio.gather(*own, return_exceptions=True)
                await self.reconciler.follower.close()

            registry = self.registry()
            kopf.on.cleanup(registry=registry)(end)
            where: dict[str, Any] = {"namespaces": self._config.namespaces} if self._config.namespaces else {"clusterwide": True}
            try:
                await kopf.operator(registry=registry, settings=kopf_settings(), stop_flag=stop, standalone=True, **where)
            finally:
                await end()
            for task in own:
                if not task.cancelled():
                    task.result()


class Connection(kopf.ConnectionInfo):
    """Verifies certificates as Go's clients do. Python from 3.13 on also demands of the CA what RFC
    5280 says, and the CAs of many clusters do not conform."""

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


async def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    found = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
    return Connection(**{field.name: getattr(found, field.name) for field in dataclasses.fields(found)}) if found else None


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf only watches: it writes to no object, posts no Events, and reads neither namespaces nor
    CRDs."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.chunk_size = 500
    settings.queueing.idle_timeout = 0.1
    settings.queueing.exit_timeout = 1.0
    settings.process.ultimate_exiting_timeout = 20
    for kind in CHILDREN:
        resource = WATCHED[kind]
        settings.watching.label_selectors[resource.group, resource.version, resource.plural] = LABEL_SELECTOR
    return settings


async def serve(config: configuration.Config) -> None:
    async with Kube.connect() as kube:
        await Operator(kube, config).run()


def main() -> int:
    """The exit code: 0 after SIGTERM, 1 if a part died, 2 if the configuration cannot be used."""
    try:
        config = configuration.read()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    set_up_logging(config.log_level)
    log.info("starting", extra={"version": __version__, "image": config.settings.image, "namespaces": list(config.namespaces) or "all"})
    try:
        asyncio.run(serve(config))
    except Exception:
        log.exception("the operator died")
        return 1
    log.info("stopped")
    return 0
