"""What a request must hold, how often it may come, who is signed in, and what the console is found
by its environment."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dbbackup.console import config
from dbbackup.console.guard import KEYS, RateLimit, same_origin, same_token
from dbbackup.console.people import Person, TimedCache
from dbbackup.console.sessions import IDLE_SECONDS, MOST, Sessions
from dbbackup.process import ConfigError


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "c.example", "origin": "https://c.example", "sec-fetch-site": "same-origin"},
        {"host": "c.example:8080", "origin": "http://c.example:8080"},
        {"host": "C.example", "origin": "http://c.EXAMPLE"},
        {"host": "c.example", "sec-fetch-site": "same-origin"},
    ],
)
def test_our_own_pages(headers: dict[str, str]) -> None:
    assert same_origin(headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "c.example", "origin": "https://evil.example"},
        {"host": "c.example", "origin": "https://c.example.evil.example"},
        {"host": "c.example", "origin": "https://c.example:444"},
        {"host": "c.example", "origin": "null"},
        {"host": "c.example", "origin": "file://c.example"},
        {"host": "c.example", "origin": "https://c.example", "sec-fetch-site": "cross-site"},
        {"host": "c.example", "origin": "https://c.example", "sec-fetch-site": "same-site"},
        {"host": "c.example"},
        {"origin": "https://"},
    ],
)
def test_others(headers: dict[str, str]) -> None:
    assert same_origin(headers)


def test_tokens_are_compared() -> None:
    assert same_token("abc", "abc")
    assert not same_token("", "")
    assert not same_token("abd", "abc")
    assert not same_token("ünïcode", "abc")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_limit_refills_evenly() -> None:
    clock = Clock()
    limit = RateLimit(2, 10, clock)
    assert [limit.take("a") for _ in range(3)] == [0, 0, 5]
    assert limit.take("b") == 0, "each key has its own"
    clock.now = 4.9
    assert limit.take("a") == 1
    clock.now = 5.1
    assert limit.take("a") == 0


def test_a_limit_remembers_so_many_only() -> None:
    limit = RateLimit(1, 10, Clock())
    for key in range(KEYS + 5):
        limit.take(str(key))
    assert len(limit._left) == KEYS


def test_answers_are_forgotten() -> None:
    clock = Clock()
    known: TimedCache[bool] = TimedCache(10, 2, clock)
    known.put("a", True)
    clock.now = 9
    assert known.get("a") is True
    clock.now = 10
    assert known.get("a") is None
    for key in "bcd":
        known.put(key, True)
    assert len(known._values) == 2


def test_sessions_end() -> None:
    clock = Clock()
    sessions = Sessions(10 * 3600, clock)
    first, second = sessions.begin(Person("a"), "t"), sessions.begin(Person("a"), "t")
    assert first != second
    assert sessions.find(first + "x") is None
    sessions.end(second)
    assert sessions.find(second) is None
    clock.now = IDLE_SECONDS - 1
    assert sessions.find(first)
    clock.now += IDLE_SECONDS - 1
    assert sessions.find(first), "who works goes on"
    clock.now = 10 * 3600 + 1
    assert sessions.find(first) is None, "but not for ever"


def test_sessions_that_nobody_uses_end() -> None:
    clock = Clock()
    sessions = Sessions(1e9, clock)
    cookie = sessions.begin(Person("a"), "t")
    clock.now = IDLE_SECONDS + 1
    assert sessions.find(cookie) is None


def test_sessions_are_bounded_and_keep_no_cookie() -> None:
    sessions = Sessions(100, Clock())
    first = sessions.begin(Person("a"), "secret-token")
    assert first.encode() not in b"".join(sessions._sessions)
    assert "secret-token" not in repr(sessions.find(first))
    for _ in range(MOST):
        sessions.begin(Person("a"), "t")
    assert sessions.find(first) is None
    assert len(sessions._sessions) == MOST


def test_people_are_told_apart_by_their_groups_too() -> None:
    assert Person("a", groups=("x",)).key != Person("a", groups=("y",)).key
    assert Person("a", groups=("x", "y")).key == Person("a", groups=("y", "x")).key
    assert Person("a", extra={"k": ("v",)}).key != Person("a").key


def test_configuration() -> None:
    found = config.read(
        {
            "DBBACKUP_NAMESPACES": "a, b",
            "DBBACKUP_CONSOLE_DOWNLOAD_NAMESPACES": "a",
            "DBBACKUP_CONSOLE_MAX_DOWNLOADS": "2",
            "DBBACKUP_CONSOLE_SESSION_LIFETIME": "90m",
            "DBBACKUP_CONSOLE_TRUSTED_PROXIES": "10.0.0.0/8,::1",
        }
    )
    assert found == config.ConsoleConfig(("a", "b"), frozenset({"a"}), 2, timedelta(minutes=90), ("10.0.0.0/8", "::1"))
    assert config.read({}) == config.ConsoleConfig()


@pytest.mark.parametrize(
    ("name", "value"), [("MAX_DOWNLOADS", "0"), ("MAX_DOWNLOADS", "x"), ("SESSION_LIFETIME", "1 day"), ("TRUSTED_PROXIES", "proxy.example")]
)
def test_configuration_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"DBBACKUP_CONSOLE_{name}"):
        config.read({f"DBBACKUP_CONSOLE_{name}": value})
