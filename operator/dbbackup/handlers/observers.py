"""How the audit log, notifications and metrics learn what the operator does. Each is an `Observer`
and decides nothing; `main` puts them into one `Observers`, which everything else calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from dbbackup.api.objects import Raw
from dbbackup.handlers.cache import Key
from dbbackup.plan.facts import Note

log = logging.getLogger("dbbackup.observers")


class Observer:
    """Override the methods that you need. They are called in the event loop: they must return soon
    and must not raise."""

    def shown(self, obj: Raw, *, deleted: bool = False) -> None:
        """A watch or a list has delivered the object, whole, with its managedFields: one of our
        kinds, a Job or a pod. Called before the cache takes it in; objects may come in any order
        and more than once."""

    def listed(self, objects: Sequence[Raw]) -> None:
        """The first whole list is done; `objects` are all of our kinds."""

    def gone(self, key: Key, uid: str) -> None:
        """An object of one of our kinds does not exist any more."""

    def creating(self, key: Key) -> None:
        """The operator is about to create the object: a watch may show it before the API server
        answers."""

    def not_created(self, key: Key) -> None:
        """The creation failed, or the object existed already."""

    def deleting(self, uid: str, reason: str) -> None:
        """The operator is about to delete the object with that UID."""

    def amend(self, obj: Raw, status: Raw, notes: Sequence[Note]) -> Raw:  # noqa: ARG002
        """The status to write to `obj` in place of `status`. For an observer whose state must be
        written together with what it observed; `notes` are the Events that go with the status."""
        return status

    def status_written(self, before: Raw, after: Raw) -> None:
        """The object's status was written."""

    def reconciled(self, key: Key, seconds: float, failed: bool) -> None:
        """A worker is done with the key."""

    def answered(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """The API server has answered; code 0: it could not be reached."""


class Observers(Observer):
    """Passes each call on to every observer, in the order in which they were added. One that raises
    has a defect: it is logged, and the others and the caller go on."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = list(observers)

    def add(self, observer: Observer) -> None:
        self._observers.append(observer)

    def _each(self, call: Callable[[Observer], object]) -> None:
        for observer in self._observers:
            try:
                call(observer)
            except Exception:
                log.exception("a defect of %s", type(observer).__name__)

    def shown(self, obj: Raw, *, deleted: bool = False) -> None:
        self._each(lambda observer: observer.shown(obj, deleted=deleted))

    def listed(self, objects: Sequence[Raw]) -> None:
        self._each(lambda observer: observer.listed(objects))

    def gone(self, key: Key, uid: str) -> None:
        self._each(lambda observer: observer.gone(key, uid))

    def creating(self, key: Key) -> None:
        self._each(lambda observer: observer.creating(key))

    def not_created(self, key: Key) -> None:
        self._each(lambda observer: observer.not_created(key))

    def deleting(self, uid: str, reason: str) -> None:
        self._each(lambda observer: observer.deleting(uid, reason))

    def amend(self, obj: Raw, status: Raw, notes: Sequence[Note]) -> Raw:
        amended = status

        def amend(observer: Observer) -> None:
            nonlocal amended
            amended = observer.amend(obj, amended, notes)

        self._each(amend)
        return amended

    def status_written(self, before: Raw, after: Raw) -> None:
        self._each(lambda observer: observer.status_written(before, after))

    def reconciled(self, key: Key, seconds: float, failed: bool) -> None:
        self._each(lambda observer: observer.reconciled(key, seconds, failed))

    def answered(self, verb: str, resource: str, code: int, seconds: float) -> None:
        self._each(lambda observer: observer.answered(verb, resource, code, seconds))
