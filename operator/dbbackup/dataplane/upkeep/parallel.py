"""Several requests to the storage at a time, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from dbbackup.dataplane.context import Stop

THREADS = 8
_AHEAD = 64

T = TypeVar("T")


def results_in_order(stop: Stop, tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of `tasks` in their order. At most THREADS of them run at a time, and `tasks` is
    read at most _AHEAD ahead of the results.

    The first exception of a task is raised, that of `stop` as soon as it is set; none begins after
    either.
    """
    waiting: deque[Future[T]] = deque()

    def begin(task: Callable[[], T]) -> T:
        stop.check()
        return task()

    pool = ThreadPoolExecutor(THREADS, "storage")
    try:
        for task in tasks:
            waiting.append(pool.submit(begin, task))
            if len(waiting) >= _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
