"""Runs several requests to the storage at a time, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from dbbackup.dataplane.context import Stop
from dbbackup.storage.read_ahead import ReadAhead

THREADS = 8
_AHEAD = 64

T = TypeVar("T")


def results_in_order(stop: Stop, tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of `tasks` in their order. At most THREADS of them run at a time, and `tasks` is
    read at most _AHEAD ahead of the results.

    Raises the first exception of a task, or the failure of `stop` as soon as it is set. No task
    starts after either, and none runs any more when this generator ends.
    """

    def begin(task: Callable[[], T]) -> T:
        stop.check()
        return task()

    yield from ReadAhead((partial(begin, task) for task in tasks), threads=THREADS, ahead=_AHEAD, name="storage", wait=True)
