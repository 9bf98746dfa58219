"""A defect of an observer is logged, and changes nothing else."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from dbbackup.api.objects import Raw
from dbbackup.handlers.observers import Observer, Observers
from dbbackup.plan.facts import Note


class Broken(Observer):
    def amend(self, obj: Raw, status: Raw, notes: Sequence[Note]) -> Raw:
        raise ValueError("broken")

    def listed(self, objects: Sequence[Raw]) -> None:
        raise ValueError("broken")


class Adding(Observer):
    def __init__(self) -> None:
        self.seen: list[Sequence[Raw]] = []

    def amend(self, obj: Raw, status: Raw, notes: Sequence[Note]) -> Raw:
        return {**status, "added": True}

    def listed(self, objects: Sequence[Raw]) -> None:
        self.seen.append(objects)


@pytest.mark.parametrize("first", [True, False])
def test_a_broken_observer_stops_neither_the_others_nor_the_caller(caplog: pytest.LogCaptureFixture, first: bool) -> None:
    adding = Adding()
    observers = Observers(Broken(), adding) if first else Observers(adding, Broken())
    with caplog.at_level(logging.ERROR, "dbbackup.observers"):
        assert observers.amend({}, {"phase": "Failed"}, ()) == {"phase": "Failed", "added": True}
        observers.listed([{}])
    assert adding.seen == [[{}]]
    assert [record.getMessage() for record in caplog.records] == ["a defect of Broken"] * 2
