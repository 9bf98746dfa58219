"""Who is signed in. Sessions are in memory only, so that a restart ends them all and no token is
stored anywhere."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from dbbackup.console.people import Person

MOST = 2000
"""Sessions at a time; beyond that, the least recently used one ends."""
IDLE_SECONDS = 4 * 3600.0
FLASHES = 5


@dataclass(slots=True)
class Session:
    """`csrf` must come with every change that a browser requests. `flashes` are messages for the
    next page: (tone, text)."""

    person: Person
    token: str = field(repr=False)
    csrf: str
    began: float
    used: float
    flashes: list[tuple[str, str]] = field(default_factory=list)

    def flash(self, tone: str, text: str) -> None:
        self.flashes = [*self.flashes, (tone, text)][-FLASHES:]

    def take_flashes(self) -> list[tuple[str, str]]:
        """The messages for this page; each is returned once."""
        found, self.flashes = self.flashes, []
        return found


class Sessions:
    def __init__(self, lifetime_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime, self._clock = lifetime_seconds, clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    @staticmethod
    def _key(cookie: str) -> bytes:
        """The cookie's digest: the cookie itself is not kept."""
        return hashlib.sha256(cookie.encode("utf-8", "replace")).digest()

    def begin(self, person: Person, token: str) -> str:
        """The new session's cookie."""
        cookie, now = secrets.token_urlsafe(32), self._clock()
        self._sessions[self._key(cookie)] = Session(person, token, secrets.token_urlsafe(32), now, now)
        while len(self._sessions) > MOST:
            self._sessions.popitem(last=False)
        return cookie

    def find(self, cookie: str) -> Session | None:
        """None if there is no such session, or it has expired."""
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
