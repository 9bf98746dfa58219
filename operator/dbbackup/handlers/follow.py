"""Live logs of runs: one task for each pod that is followed, at most AT_ONCE of them. What a log
has said is kept until the run is over; it is an input of decisions (`Facts.log`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dbbackup.contract.mounts import CONTAINER
from dbbackup.contract.report import LogEvent
from dbbackup.handlers.cache import Key
from dbbackup.kube import ApiError, Kube
from dbbackup.plan.facts import LogView

log = logging.getLogger("dbbackup.follow")

AT_ONCE = 50
AGAIN_SECONDS = 5.0


def after_line(view: LogView, line: str) -> LogView:
    """The view after one more line of the log. Lines of other programs change nothing."""
    try:
        event = LogEvent.model_validate_json(line)
    except ValueError:
        return view
    match event.event:
        case "key":
            return replace(view, key=event.key or view.key)
        case "transaction":
            return replace(view, xid=event.xid or view.xid)
        case "waiting":
            return replace(view, waiting=event.message or None)
        case "progress":
            return replace(view, progress=event.progress or view.progress, waiting=None)
        case _:
            return view


@dataclass
class _Followed:
    pod: str
    view: LogView = field(default_factory=LogView)
    task: asyncio.Task[None] | None = None


class Follower:
    """`changed(key)` is called when a log line must not wait for the next pass over the run."""

    def __init__(self, kube: Kube, changed: Callable[[Key], None]) -> None:
        self._kube = kube
        self._changed = changed
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._followed: dict[str, _Followed] = {}

    def view(self, uid: str) -> LogView:
        followed = self._followed.get(uid)
        return followed.view if followed else LogView()

    def follow(self, uid: str, key: Key, pod: str) -> None:
        """Follows the pod's log for the object with that UID, unless it does already. With a new
        pod, a new attempt, progress starts from nothing."""
        followed = self._followed.get(uid)
        if followed is not None and followed.pod == pod:
            return
        if followed is not None and followed.task is not None:
            followed.task.cancel()
        view = replace(followed.view, progress=None, waiting=None) if followed else LogView()
        fresh = self._followed[uid] = _Followed(pod, view)
        fresh.task = asyncio.create_task(self._run(fresh, key), name=f"log of {key.namespace}/{pod}")

    def forget(self, uid: str) -> None:
        followed = self._followed.pop(uid, None)
        if followed is not None and followed.task is not None:
            followed.task.cancel()

    async def close(self) -> None:
        tasks = [followed.task for followed in self._followed.values() if followed.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, followed: _Followed, key: Key) -> None:
        async with self._limit:
            while True:
                try:
                    async for line in self._kube.follow_log(key.namespace, followed.pod, CONTAINER):
                        before, followed.view = followed.view, after_line(followed.view, line)
                        if (before.xid, before.waiting) != (followed.view.xid, followed.view.waiting):
                            self._changed(key)
                    return
                except ApiError as error:
                    # The log is a convenience: the run's outcome never depends on it.
                    if error.status in (400, 404):
                        return
                    log.info("log is not readable, trying again", extra={"pod": followed.pod, "error": str(error)})
                await asyncio.sleep(AGAIN_SECONDS)
