"""Fetches results ahead of the reader, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Iterate it once: yields the results of `tasks` in their order.

    At most `threads` tasks run at a time, and `tasks` is read at most `ahead` beyond the results
    that were yielded: so many results are in memory at most. While the caller works on a result,
    `ahead - 1` tasks are under way. The first exception of a task, in their order, is raised.
    `wait` makes the end of the iteration, clean or not, wait for tasks that still run. Call `close`
    when it is not read to its end.
    """

    def __init__(self, tasks: Iterable[Callable[[], T]], *, threads: int, ahead: int, name: str, wait: bool = False) -> None:
        self._tasks, self._ahead, self._wait = tasks, ahead, wait
        self._pool = ThreadPoolExecutor(threads, name)

    def __iter__(self) -> Iterator[T]:
        pending: deque[Future[T]] = deque()
        try:
            for task in self._tasks:
                pending.append(self._pool.submit(task))
                if len(pending) >= self._ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            self._pool.shutdown(wait=self._wait, cancel_futures=True)

    def close(self) -> None:
        """Starts no further task. Does not wait for those that run."""
        self._pool.shutdown(wait=False, cancel_futures=True)
