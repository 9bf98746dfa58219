"""The console's rows follow the API server: by list, by watch, over broken connections and versions
that are too old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.unit.support.console_world import Raw, backup, obj

from dbbackup.console import cache as caching
from dbbackup.console.cache import RowCache
from dbbackup.console.resources import KINDS
from dbbackup.kube import ApiError, Resource

END = asyncio.Event


class Server:
    """Lists of backups, one after the other; then what watches tell. An exception is raised in its
    place."""

    def __init__(self, lists: list[Any], watches: list[Any]) -> None:
        self.lists, self.watches = lists, watches
        self.from_versions: list[str] = []
        self.namespaces: set[str | None] = set()

    async def pages(self, resource: Resource, namespace: str | None) -> AsyncIterator[tuple[list[Raw], str]]:
        self.namespaces.add(namespace)
        if resource.plural != "databasebackups":
            yield [], "1"
            return
        found = self.lists.pop(0)
        if isinstance(found, Exception):
            raise found
        yield found, "10"

    async def watch(self, resource: Resource, _namespace: str | None, version: str, _seconds: int) -> AsyncIterator[tuple[str, Raw]]:
        if resource.plural != "databasebackups" or not self.watches:
            await asyncio.Event().wait()
        self.from_versions.append(version)
        for step in self.watches.pop(0):
            if isinstance(step, Exception):
                raise step
            yield step


def at(version: str, item: Raw) -> Raw:
    item["metadata"]["resourceVersion"] = version
    return item


async def follow(server: Server, namespaces: tuple[str, ...] = ()) -> RowCache:
    """The cache once it has read every event."""
    cache, anything = RowCache(), server
    kube: Any = anything
    task = asyncio.create_task(cache.follow(kube, namespaces))
    for _ in range(200):
        await asyncio.sleep(0)
        if cache.ready and not server.watches:
            break
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return cache


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "FIRST_PAUSE", 0.0)


def names(cache: RowCache) -> list[str]:
    return [row.name for row in cache.backups()]


async def test_changes_are_taken_in() -> None:
    bookmark = {"metadata": {"resourceVersion": "14"}}
    new = at("11", backup("new", created="2026-11-24T11:30:00Z"))
    steps = [
        ("ADDED", new),
        ("MODIFIED", at("12", backup("a", phase="Failed"))),
        ("DELETED", at("13", backup("b"))),
        ("BOOKMARK", bookmark),
    ]
    server = Server([[backup("a"), backup("b")]], [steps, []])
    cache = await follow(server)
    assert [(row.name, row.phase) for row in cache.backups()] == [("new", "Completed"), ("a", "Failed")]
    assert server.from_versions == ["10", "14"], "the next watch goes on from where the last one came to"
    assert cache.ready


async def test_a_version_that_is_too_old_is_listed_again() -> None:
    server = Server([[backup("a"), backup("b")], [backup("b")]], [[ApiError(410, "Expired", "too old")], []])
    assert names(await follow(server)) == ["b"], "what went meanwhile is gone"


async def test_a_broken_watch_goes_on_from_where_it_was() -> None:
    steps = [("ADDED", at("11", backup("c"))), ApiError(0, "Unreachable", "reset")]
    server = Server([[backup("a")]], [steps, []])
    assert sorted(names(await follow(server))) == ["a", "c"]
    assert server.from_versions == ["10", "11"]


async def test_a_list_that_fails_is_tried_again() -> None:
    server = Server([ApiError(0, "Unreachable", "away"), ApiError(403, "Forbidden", "not yet"), [backup("a")]], [])
    assert names(await follow(server)) == ["a"]


async def test_namespaces_are_followed_each_by_itself() -> None:
    server = Server([[backup("a", "x")], [backup("b", "y")]], [])
    cache = await follow(server, ("x", "y"))
    assert server.namespaces == {"x", "y"}
    assert sorted(names(cache)) == ["a", "b"], "the list of one does not take away what is in the other"


def test_nothing_is_ready_before_it_was_listed() -> None:
    assert not RowCache().ready


def test_the_newest_come_first() -> None:
    cache = RowCache()
    for hour in (3, 9, 5):
        cache.put(backup(f"h{hour}", created=f"2026-11-24T{hour:02}:00:00Z"))
    assert names(cache) == ["h9", "h5", "h3"]
    cache.remove(backup("h5"))
    assert names(cache) == ["h9", "h3"]
    for kind in KINDS:
        cache.put(obj(kind, "x", namespace=kind.lower()))
    assert len(cache.namespaces()) == 5
