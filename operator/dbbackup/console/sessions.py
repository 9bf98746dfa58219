"""Who is signed in: in memory alone, so that a restart ends every session, and nothing of a token
lies anywhere."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from dbbackup.console.people import Person

MOST = 2000
"""Sessions at a time; the one that was used least recently goes first."""
IDLE_SECONDS = 4 * 3600.0
FLASHES = 5


@dataclass(slots=True)
class Session:
    """`csrf` must come with whatever a browser asks to change. `flashes` are told on the next page:
    (tone, text)."""

    person: Person
    token: str = field(repr=False)
    csrf: str
    began: float
    used: float
    flashes: list[tuple[str, str]] = field(default_factory=list)

    def flash(self, tone: str, text: str) -> None:
        self.flashes = [*self.flashes, (tone, text)][-FLASHES:]

    def told(self) -> list[tuple[str, str]]:
        """What is to be told, once."""
        found, self.flashes = self.flashes, []
        return found


class Sessions:
    def __init__(self, lifetime_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime, self._clock = lifetime_seconds, clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    @staticmethod
    def _key(cookie: str) -> bytes:
        """A cookie is kept as its digest only."""
        return hashlib.sha256(cookie.encode("utf-8", "replace")).digest()

    def begin(self, person: Person, token: str) -> str:
        """The new session's cookie."""
        cookie, now = secrets.token_urlsafe(32), self._clock()
        self._sessions[self._key(cookie)] = Session(person, token, secrets.token_urlsafe(32), now, now)
        while len(self._sessions) > MOST:
            self._sessions.popitem(last=False)
        return cookie

    def find(self, cookie: str) -> Session | None:
        """None where there is none, or its time is up."""
        key = self._key(cookie)
        session = self._sessions.get(key)
        if session is None:
            return None
        now = self._clock()
        if now - session.began > self._lifetime or now - session.used > IDLE_SECONDS:
            del self._sessions[key]
            return None
        session.used = now
        self._sessions.move_to_end(key)
        return session

    def end(self, cookie: str) -> None:
        self._sessions.pop(self._key(cookie), None)
