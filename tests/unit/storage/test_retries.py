"""When a request is tried again, and when not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from dbbackup.contract.errors import Failure
from dbbackup.storage import retries
from dbbackup.storage.retries import Retries, StoppedError


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PATIENCE", 1.0)
    monkeypatch.setattr(retries, "FIRST_PATIENCE", 0.15)


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


def test_what_comes_back_is_waited_for() -> None:
    assert Retries("b").attempt("reading", failing(1)) == 2


def test_a_server_that_never_answered_is_given_up_sooner() -> None:
    fresh, known = Retries("b"), Retries("b")
    known.attempt("reading", failing(0))
    assert known.attempt("reading", failing(2)) == 3  # after 0.3 s
    started = time.monotonic()
    with pytest.raises(Failure) as caught:
        fresh.attempt("reading", failing(1000))
    assert caught.value.reason.name == "StorageUnavailable"
    assert 0.15 < time.monotonic() - started < 1


def test_what_is_known_to_be_away_is_not_waited_for_again() -> None:
    known = Retries("b")
    known.attempt("reading", failing(0))
    with pytest.raises(Failure):
        known.attempt("reading", failing(1000))
    started = time.monotonic()
    with pytest.raises(Failure):
        known.attempt("aborting", failing(1000))
    assert time.monotonic() - started < 0.6


def test_an_answer_of_whatever_kind_ends_an_outage() -> None:
    known = Retries("b")
    known.attempt("reading", failing(0))
    calls: list[Exception] = [ConnectionError("away"), ValueError("refused")]

    def call() -> int:
        raise calls.pop(0)

    with pytest.raises(Failure) as caught:
        known.attempt("reading", call)
    assert caught.value.reason.name == "InvalidSpec"
    time.sleep(1.1)
    assert known.attempt("reading", failing(1)) == 2


def test_what_no_try_can_cure_is_told_at_once() -> None:
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


def test_a_stop_ends_the_wait() -> None:
    known, stopped = Retries("b"), threading.Event()
    known.attempt("reading", failing(0))
    threading.Timer(0.05, stopped.set).start()
    started = time.monotonic()
    with pytest.raises(StoppedError):
        known.attempt("uploading", failing(1000), stopped=stopped)
    assert time.monotonic() - started < 0.8
    with pytest.raises(StoppedError):
        known.attempt("uploading", failing(0), stopped=stopped)
