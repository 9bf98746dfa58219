"""How a storage is tried, and how it is asked several things at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest
from tests.integration.artifacts import ROOT
from tests.unit.support.memory_storage import NOW, Memory

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.context import Stop
from dbbackup.dataplane.upkeep.parallel import results_in_order
from dbbackup.dataplane.upkeep.probe import ProbeResult, probe
from dbbackup.storage.base import ObjectInfo

DAY = timedelta(days=1)


def test_the_storage_is_tested_and_nothing_is_left_behind() -> None:
    memory = Memory()
    memory.now = NOW + DAY
    assert probe(cast("Any", memory), ROOT, Stop()) == ProbeResult(NOW + DAY, conditional_writes=True)
    assert memory.objects == {}
    assert {key.startswith(f"{ROOT}=probe/") for _, key in memory.asked} == {True}
    again = Memory()
    probe(cast("Any", again), ROOT, Stop())
    assert {key for _, key in again.asked}.isdisjoint({key for _, key in memory.asked}), "a name that nobody else uses"


def test_a_storage_without_conditional_writes_is_reported() -> None:
    memory = Memory()
    memory.conditions = False
    assert not probe(cast("Any", memory), ROOT, Stop()).conditional_writes
    assert memory.objects == {}


@pytest.mark.parametrize(
    ("operation", "at", "step"),
    [
        ("put", 1, "writing an object"),
        ("put", 2, "writing it again only if it does not exist"),
        ("get", 1, "reading it"),
        ("head", 1, "looking for it"),
        ("delete", 1, "deleting it"),
        ("head", 2, "checking that it is gone"),
    ],
)
def test_the_step_that_failed_is_reported(operation: str, at: int, step: str) -> None:
    memory = Memory()

    def before(asked: str, _key: str) -> None:
        if asked == operation and sum(done == operation for done, _ in memory.asked) == at:
            raise Failure("StorageAccessDenied", "the server said no", "a hint")

    memory.before = before
    with pytest.raises(Failure) as caught:
        probe(cast("Any", memory), ROOT, Stop())
    assert (caught.value.reason.name, caught.value.hint) == ("StorageAccessDenied", "a hint")
    assert caught.value.message == f"the storage was tested, and {step} failed: the server said no"
    assert memory.objects == {}, "cleared away where the server lets it"


@pytest.mark.parametrize(
    ("lie", "reason", "message"),
    [
        ("get", "ArtifactCorrupt", "was read back with other bytes than were written"),
        ("put", "ArtifactCorrupt", "was read back with other bytes than were written"),
        ("head", "StorageRefused", "was written and does not exist"),
        ("delete", "StorageRefused", "still exists after it was deleted"),
    ],
)
def test_a_storage_with_wrong_answers_is_refused(lie: str, reason: str, message: str) -> None:
    class Liar(Memory):
        def put(self, key: str, body: bytes, content_type: str, *, if_absent: bool = False) -> None:
            if lie != "put" or key not in self.objects:
                super().put(key, body, content_type, if_absent=if_absent)

        def get(self, key: str, limit: int) -> bytes:
            return super().get(key, limit) + (b"x" if lie == "get" else b"")

        def head(self, key: str) -> ObjectInfo | None:
            return None if lie == "head" else super().head(key)

        def delete(self, keys: Any) -> None:
            if lie != "delete":
                super().delete(keys)

    with pytest.raises(Failure, match=message) as caught:
        probe(cast("Any", Liar()), ROOT, Stop())
    assert caught.value.reason.name == reason


def test_a_probe_that_is_stopped_leaves_nothing() -> None:
    memory, stop = Memory(), Stop()
    memory.before = lambda asked, _: stop.set(Failure("Timeout", "too long")) if asked == "get" else None
    with pytest.raises(Failure, match="too long"):
        probe(cast("Any", memory), ROOT, stop)
    assert memory.objects == {}


def test_results_come_in_order_and_tasks_are_read_a_bounded_way_ahead() -> None:
    taken = 0

    def slow(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number

    def tasks() -> Iterator[Callable[[], int]]:
        nonlocal taken
        for number in range(500):
            taken += 1
            yield partial(slow, number)

    ahead = []
    for result, number in zip(results_in_order(Stop(), tasks()), range(500), strict=True):
        assert result == number
        ahead.append(taken - number)
    assert max(ahead) <= 65
    assert list(results_in_order(Stop(), [])) == []


def test_the_first_exception_ends_it() -> None:
    begun: list[int] = []

    def task(number: int) -> Callable[[], None]:
        def work() -> None:
            begun.append(number)
            if number == 3:
                raise Failure("StorageUnavailable", "away")
            time.sleep(0.01)

        return work

    with pytest.raises(Failure, match="away"):
        list(results_in_order(Stop(), (task(number) for number in range(1000))))
    assert len(begun) < 40


def test_nothing_begins_after_the_run_was_stopped() -> None:
    stop = Stop()
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 3:
            stop.set(Failure("Timeout", "too long"))
        time.sleep(0.01)

    with pytest.raises(Failure, match="too long"):
        list(results_in_order(stop, (partial(work, number) for number in range(1000))))
    assert len(begun) < 40
