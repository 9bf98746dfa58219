from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from dbbackup.storage.read_ahead import ReadAhead


def tasks(count: int, call: Callable[[int], int], taken: list[int] | None = None) -> Iterator[Callable[[], int]]:
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield partial(call, number)


def slower_first(number: int) -> int:
    time.sleep(0.02 if number % 4 == 0 else 0)
    return number


def test_results_come_in_the_order_of_their_tasks() -> None:
    assert list(ReadAhead(tasks(40, slower_first), threads=4, ahead=6, name="test")) == list(range(40))
    assert list(ReadAhead(tasks(0, slower_first), threads=4, ahead=6, name="test")) == []
    assert list(ReadAhead(tasks(3, slower_first), threads=1, ahead=1, name="test")) == [0, 1, 2]


def test_no_more_is_read_ahead_than_asked_for() -> None:
    taken: list[int] = []
    for result in ReadAhead(tasks(30, slower_first, taken), threads=2, ahead=5, name="test"):
        assert len(taken) <= result + 5
    assert len(taken) == 30


def test_no_more_tasks_run_at_a_time_than_there_are_threads() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return number

    assert len(list(ReadAhead(tasks(30, work), threads=3, ahead=10, name="test"))) == 30
    assert most == 3


def test_the_next_results_are_fetched_while_the_caller_works() -> None:
    began = [threading.Event() for _ in range(4)]

    def work(number: int) -> int:
        began[number].set()
        return number

    results = iter(ReadAhead(tasks(4, work), threads=2, ahead=2, name="test"))
    assert next(results) == 0
    assert began[1].wait(5), "the second is fetched before it is asked for"
    assert list(results) == [1, 2, 3]


def test_an_exception_ends_it_in_its_place() -> None:
    taken: list[int] = []

    def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    results = iter(ReadAhead(tasks(100, work, taken), threads=2, ahead=4, name="test", wait=True))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(taken) < 10


def test_a_closed_one_starts_nothing_more() -> None:
    started: list[int] = []
    release = threading.Event()

    def work(number: int) -> int:
        started.append(number)
        if number:
            release.wait(5)
        return number

    ahead = ReadAhead(tasks(100, work), threads=1, ahead=10, name="test")
    results = iter(ahead)
    assert next(results) == 0
    ahead.close()
    release.set()
    with pytest.raises(BaseException):  # noqa: B017, PT011 - cancelled, or no task can be submitted
        list(results)
    assert len(started) <= 2


def test_it_can_wait_for_what_still_runs() -> None:
    running = threading.Event()
    ended: list[int] = []

    def work(number: int) -> int:
        if number == 0:
            running.wait(5)
            raise ValueError("first")
        running.set()
        time.sleep(0.1)
        ended.append(number)
        return number

    with pytest.raises(ValueError, match="first"):
        list(ReadAhead(tasks(2, work), threads=2, ahead=2, name="test", wait=True))
    assert ended == [1]
