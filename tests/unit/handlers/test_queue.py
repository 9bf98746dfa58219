"""The work queue: one key at a time, nothing lost, errors back off."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.unit.support.passing import at_once

from dbbackup.handlers.queue import Queue


@asynccontextmanager
async def running(work: Callable[[str], Awaitable[float | None]], workers: int = 4) -> AsyncIterator[Queue[str]]:
    queue: Queue[str] = Queue(work, workers, expected=(OSError,))
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.001)


async def test_a_key_is_never_worked_on_twice_at_once_and_an_addition_meanwhile_is_not_lost() -> None:
    busy: Counter[str] = Counter()
    done: Counter[str] = Counter()
    most = 0

    async def work(key: str) -> None:
        nonlocal most
        busy[key] += 1
        most = max(most, busy[key])
        await asyncio.sleep(0.01)
        busy[key] -= 1
        done[key] += 1

    async with running(work) as queue:
        queue.add("a")
        await until(lambda: busy["a"] == 1)
        for _ in range(5):
            queue.add("a")
        await until(lambda: done["a"] == 2)
        await asyncio.sleep(0.05)
    assert (most, done["a"]) == (1, 2)


async def test_keys_in_the_queue_are_there_once() -> None:
    done: Counter[str] = Counter()

    async def work(key: str) -> None:
        done[key] += 1

    queue: Queue[str] = Queue(work, 2)
    for _ in range(10):
        queue.add("a")
        queue.add("b")
    assert len(queue) == 2
    task = asyncio.create_task(queue.run())
    await until(lambda: len(queue) == 0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert done == {"a": 1, "b": 1}


async def test_different_keys_are_worked_on_together() -> None:
    both = asyncio.Barrier(2)

    async def work(_key: str) -> None:
        async with asyncio.timeout(2):
            await both.wait()

    async with running(work, 2) as queue:
        queue.add("a")
        queue.add("b")
        await until(lambda: len(queue) == 0)


@at_once
async def test_errors_come_back_and_back_off() -> None:
    times: list[float] = []

    async def work(_key: str) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 3:
            raise OSError("no answer")

    async with running(work) as queue:
        queue.add("a")
        await until(lambda: len(times) == 3)
        await asyncio.sleep(0.05)
    first, second = times[1] - times[0], times[2] - times[1]
    assert 0.39 < first < 0.51
    assert 0.79 < second < 1.01
    assert len(times) == 3


async def test_an_error_of_one_key_does_not_stop_the_others() -> None:
    done: set[str] = set()

    async def work(key: str) -> None:
        if key == "bad":
            raise ValueError(key)
        done.add(key)

    async with running(work, 1) as queue:
        for key in ("bad", "a", "b"):
            queue.add(key)
        await until(lambda: done == {"a", "b"})


@at_once
async def test_a_delay_is_kept_and_the_earlier_of_two_counts() -> None:
    times: list[float] = []

    async def work(_key: str) -> None:
        times.append(asyncio.get_running_loop().time())

    async with running(work) as queue:
        start = asyncio.get_running_loop().time()
        queue.add_after("a", 30)
        queue.add_after("a", 0.1)
        queue.add_after("a", 60)
        await until(lambda: len(times) == 1)
        await asyncio.sleep(90)
    assert 0.09 < times[0] - start < 0.11
    assert len(times) == 1


@at_once
async def test_what_work_returns_is_when_it_comes_back() -> None:
    count = 0

    async def work(_key: str) -> float | None:
        nonlocal count
        count += 1
        return 0.02 if count < 4 else None

    async with running(work) as queue:
        queue.add("a")
        await until(lambda: count == 4)
        await asyncio.sleep(0.1)
    assert count == 4


@at_once
async def test_the_heartbeat_goes_on_without_work() -> None:
    async def work(_key: str) -> None: ...

    async with running(work) as queue:
        before = queue.heartbeat
        await asyncio.sleep(1.2)
        assert queue.heartbeat > before
