"""When a request is tried again, and when not."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from tests.unit.support.passing import FakeTime

from dbbackup.contract.errors import Failure
from dbbackup.storage import retries
from dbbackup.storage.retries import FIRST_PATIENCE, PATIENCE, Retries, StoppedError


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(retries, "time", fake)
    return fake


def failing(count: int, error: type[Exception] = ConnectionError) -> Callable[[], int]:
    """A call that fails `count` times, and then returns how often it was called."""
    calls = 0

    def call() -> int:
        nonlocal calls
        calls += 1
        if calls <= count:
            raise error("away")
        return calls

    return call


def test_a_server_that_comes_back_is_waited_for() -> None:
    assert Retries("b").attempt("reading", failing(1)) == 2


def test_a_server_that_never_answered_is_given_up_sooner(time: FakeTime) -> None:
    fresh, known = Retries("b"), Retries("b")
    known.attempt("reading", failing(0))
    started = time.now
    assert known.attempt("reading", failing(12)) == 13
    assert 2 * FIRST_PATIENCE < time.now - started < PATIENCE
    started = time.now
    with pytest.raises(Failure) as caught:
        fresh.attempt("reading", failing(1000))
    assert caught.value.reason.name == "StorageUnavailable"
    assert FIRST_PATIENCE < time.now - started < FIRST_PATIENCE + 5.1


def test_a_known_outage_is_not_waited_for_again(time: FakeTime) -> None:
    known = Retries("b")
    known.attempt("reading", failing(0))
    started = time.now
    with pytest.raises(Failure):
        known.attempt("reading", failing(1000))
    assert PATIENCE < time.now - started < PATIENCE + 5.1
    started = time.now
    with pytest.raises(Failure):
        known.attempt("aborting", failing(1000))
    assert time.now == started


def test_an_answer_of_whatever_kind_ends_an_outage(time: FakeTime) -> None:
    known = Retries("b")
    known.attempt("reading", failing(0))
    calls: list[Exception] = [ConnectionError("away"), ValueError("refused")]

    def call() -> int:
        raise calls.pop(0)

    with pytest.raises(Failure) as caught:
        known.attempt("reading", call)
    assert caught.value.reason.name == "InvalidSpec"
    time.sleep(PATIENCE + 1)
    assert known.attempt("reading", failing(1)) == 2


def test_a_permanent_fault_is_raised_at_once() -> None:
    call = failing(1, ValueError)
    with pytest.raises(Failure):
        Retries("b").attempt("reading", call)
    assert call() == 2


def test_a_fault_can_be_accepted() -> None:
    seen: list[int] = []

    def accept(_fault: object, tries: int) -> int | None:
        seen.append(tries)
        return -1 if tries else None

    assert Retries("b").attempt("reading", failing(5), accept=accept) == -1
    assert seen == [0, 1]


def test_a_stop_ends_the_wait(time: FakeTime) -> None:
    class Stopped(threading.Event):
        """Set half a second after the first try."""

        def wait(self, timeout: float | None = None) -> bool:
            time.sleep(timeout or 0)
            if time.now - started >= 0.5:
                self.set()
            return self.is_set()

    known, stopped = Retries("b"), Stopped()
    known.attempt("reading", failing(0))
    started = time.now
    with pytest.raises(StoppedError):
        known.attempt("uploading", failing(1000), stopped=stopped)
    assert time.now - started < 0.8
    with pytest.raises(StoppedError):
        known.attempt("uploading", failing(0), stopped=stopped)
