"""Concurrency limits: which runs may start now. First come, first served by creationTimestamp, for
each limit that is reached."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Contender:
    """A run that has a slot or wants one, ordered by creation. `storage` is (namespace, name) of
    its BackupStorage."""

    created: str
    uid: str
    storage: tuple[str, str]
    storage_limit: int | None = None


class Slots:
    """Runs that hold a slot and runs that wait for one, as the caller reports them. Not
    thread-safe."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._held: dict[str, Contender] = {}
        self._waiting: dict[str, Contender] = {}

    def hold(self, contender: Contender) -> None:
        """A run that is going on holds its slot, even if it never asked for one."""
        self._waiting.pop(contender.uid, None)
        self._held[contender.uid] = contender

    def release(self, uid: str) -> bool:
        """The run is over, or its object is gone. True if others may start now."""
        waited = self._waiting.pop(uid, None) is not None
        return self._held.pop(uid, None) is not None or waited

    def _full(self, contender: Contender) -> str | None:
        if contender.storage_limit is not None and sum(c.storage == contender.storage for c in self._held.values()) >= contender.storage_limit:
            return f"waits for its turn: BackupStorage {contender.storage[1]} allows {_runs(contender.storage_limit)} at once"
        if self.limit is not None and len(self._held) >= self.limit:
            return f"waits for its turn: the operator allows {_runs(self.limit)} at once"
        return None

    def take(self, contender: Contender) -> str | None:
        """Takes a slot and returns None, or returns why the run has to wait."""
        if contender.uid in self._held or (self.limit is None and contender.storage_limit is None):
            self.hold(contender)
            return None
        self._waiting[contender.uid] = contender
        if why := self._full(contender):
            return why
        granted = self._next()
        if contender.uid in granted:
            self.hold(contender)
            return None
        return "waits for its turn: older runs go first"

    def _next(self) -> list[str]:
        """UIDs of the waiting runs that would get a slot now, oldest first."""
        free = None if self.limit is None else self.limit - len(self._held)
        per_storage: dict[tuple[str, str], int] = {}
        for contender in self._held.values():
            per_storage[contender.storage] = per_storage.get(contender.storage, 0) + 1
        granted: list[str] = []
        for contender in sorted(self._waiting.values()):
            if free is not None and len(granted) >= free:
                break
            used = per_storage.get(contender.storage, 0)
            if contender.storage_limit is not None and used >= contender.storage_limit:
                continue
            per_storage[contender.storage] = used + 1
            granted.append(contender.uid)
        return granted

    def startable(self) -> Iterable[str]:
        """UIDs of runs that should ask again after a release."""
        return self._next()


def _runs(count: int) -> str:
    return "one run" if count == 1 else f"{count} runs"
