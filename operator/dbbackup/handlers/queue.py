"""A level-based work queue: a key that is added while a worker has it is worked on once more
afterwards; errors back off."""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

log = logging.getLogger("dbbackup.queue")

Key = TypeVar("Key", bound=Hashable)

FIRST_BACK_OFF = 0.5
LAST_BACK_OFF = 60.0


class Queue(Generic[Key]):
    """`workers` tasks call `work(key)`, never two at once for one key. It returns the seconds after
    which to work on the key again, or None.

    An exception from `work` is logged, with a traceback unless it is one of `expected`, and the key
    comes back after 0.5 s, doubled each time, at most 60 s. `done(key, seconds, failed)` is called
    after each call of `work`.
    """

    def __init__(
        self,
        work: Callable[[Key], Awaitable[float | None]],
        workers: int = 8,
        clock: Callable[[], float] | None = None,
        expected: tuple[type[Exception], ...] = (),
        done: Callable[[Key, float, bool], None] = lambda _key, _seconds, _failed: None,
    ) -> None:
        self._expected = expected
        self._done = done
        self._work = work
        self._workers = workers
        self._clock = clock or asyncio.get_running_loop().time
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: dict[Key, float] = {}
        self._busy: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._sequence = 0
        self._wake = asyncio.Event()
        self.heartbeat = self._clock()
        """When the timer last had its turn. If it has none, the event loop stands still."""

    def add(self, key: Key) -> None:
        """Work on the key as soon as a worker is free."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued[key] = self._clock()
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on the key in so many seconds, or earlier where an earlier time was asked for."""
        due = self._clock() + max(seconds, 0.0)
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))
        self._wake.set()

    def __len__(self) -> int:
        return len(self._queued) + len(self._busy)

    @property
    def waiting(self) -> tuple[int, float]:
        """How many keys wait for a worker, and for how many seconds the first of them has
        waited."""
        return len(self._queued), self._clock() - next(iter(self._queued.values())) if self._queued else 0.0

    @property
    def longest(self) -> float:
        """For how many seconds the longest call of `work` has been running."""
        return self._clock() - min(self._busy.values()) if self._busy else 0.0

    @property
    def failing(self) -> int:
        """Keys whose last work failed."""
        return len(self._failures)

    async def run(self) -> None:
        """Runs until cancelled. Raises if a worker dies, which is a defect."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._timer(), name="queue timer")
            for number in range(self._workers):
                group.create_task(self._worker(), name=f"queue worker {number}")

    async def _timer(self) -> None:
        while True:
            self.heartbeat = self._clock()
            while self._heap and self._heap[0][0] <= self._clock():
                due, _, key = heapq.heappop(self._heap)
                if self._due.get(key) == due:
                    del self._due[key]
                    self.add(key)
            pause = min(self._heap[0][0] - self._clock(), 1.0) if self._heap else 1.0
            self._wake.clear()
            try:
                async with asyncio.timeout(max(pause, 0.0)):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._queued.pop(key, None)
            self._busy[key] = started = self._clock()
            try:
                again = await self._work(key)
                self._failures.pop(key, None)
                if again is not None:
                    self.add_after(key, again)
            except Exception as error:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                delay = min(FIRST_BACK_OFF * 2 ** min(failures - 1, 10), LAST_BACK_OFF) * random.uniform(0.8, 1.0)  # noqa: S311
                about = {"key": str(key), "failures": failures, "delay": round(delay, 1), "error": str(error)}
                log.warning("reconciling failed, trying again", extra=about, exc_info=not isinstance(error, self._expected))
                self.add_after(key, delay)
            finally:
                self._done(key, self._clock() - started, key in self._failures)
                self._busy.pop(key, None)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
