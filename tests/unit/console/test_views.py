"""Which rows the console shows, under which badges and in which words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.support.console_world import NOW, backup, obj

from dbbackup.console import views
from dbbackup.console.rows import AnyRow, StorageRow, badges, row_of
from dbbackup.console.views import Query, select


def row(**more: Any) -> AnyRow:
    return row_of(backup("one", **more))


def texts(found: AnyRow) -> list[str]:
    return [badge.text for badge in badges(found, NOW)]


def in_days(days: float) -> str:
    return (NOW + timedelta(days=days)).isoformat()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (backup("a"), ["Completed"]),
        (backup("a", phase="Failed"), ["Failed"]),
        (backup("a", phase="Expired"), ["Expired"]),
        (backup("a", phase="Running"), ["Running"]),
        (obj("DatabaseBackup", "a", status={"observedGeneration": -1}), ["Pending"]),
        (backup("a", deletionTimestamp="2026-11-24T11:59:00Z"), ["Deleting"]),
        (backup("a", annotations={"dbbackup.io/pin": "true"}), ["Completed", "Pinned"]),
        (backup("a", annotations={"dbbackup.io/pin": "yes"}), ["Completed"]),  # the operator takes `true` alone
        (backup("a", status={"expirationTime": in_days(1.9)}), ["Completed", "Expiring"]),
        (backup("a", status={"expirationTime": in_days(2.1)}), ["Completed"]),
        (backup("a", status={"expirationTime": in_days(-1)}), ["Completed", "Expiring"]),
        (backup("a", phase="Failed", status={"expirationTime": in_days(1)}), ["Failed"]),
        (backup("a", annotations={"dbbackup.io/pin": "true"}, status={"expirationTime": in_days(1)}), ["Completed", "Pinned"]),
        (obj("DatabaseRestore", "a", status={"phase": "Completed"}), ["Completed"]),
        (obj("DatabaseBackupSchedule", "a", status={"consecutiveFailures": 2}), ["Active", "Failing"]),
        (obj("DatabaseBackupSchedule", "a", annotations={"dbbackup.io/suspend": "true"}), ["Suspended"]),
        (obj("DatabaseBackupSchedule", "a", spec={"suspend": True}), ["Suspended"]),
        (obj("DatabaseBackupSchedule", "a", status={"retention": {"held": {"message": "m"}}}), ["Active", "Prune held"]),
        (obj("BackupStorage", "a", status={"conditions": [{"type": "Ready", "status": "True"}]}), ["Ready"]),
        (obj("BackupStorage", "a", status={"conditions": [{"type": "Ready", "status": "False", "reason": "BucketNotFound"}]}), ["Not ready"]),
        (obj("BackupStorage", "a"), ["Checking"]),
    ],
)
def test_badges(given: dict[str, Any], wanted: list[str]) -> None:
    assert texts(row_of(given)) == wanted
    assert set(wanted) <= set(views.STATES[given["kind"]]), "each badge can be filtered by"


def test_strange_objects_make_rows_too() -> None:
    strange = obj("DatabaseBackup", "a", created="never", status={"sizeBytes": "much", "progress": {"percent": True}, "size": "x" * 99, "phase": 7})
    found = row_of(strange)
    assert (found.size_bytes, found.percent, len(found.size), found.phase) == (0, None, 32, "7")  # type: ignore[union-attr]


def test_a_storages_capacity_is_bytes() -> None:
    storage = row_of(obj("BackupStorage", "a", spec={"s3": {"bucket": "b"}, "capacity": "10Gi"}, status={"usage": {"bytes": 5}}))
    assert isinstance(storage, StorageRow)
    assert (storage.capacity, storage.used) == (10 << 30, 5)


MANY = [
    row_of(backup(f"b{n}", namespace=f"ns{n % 3}", phase="Failed" if n % 10 == 0 else "Completed", status={"database": {"name": f"db{n % 2}"}}))
    for n in range(120)
]


@pytest.mark.parametrize(
    ("query", "namespaces", "total"),
    [
        (Query(), None, 120),
        (Query(), {"ns0"}, 40),
        (Query(), set(), 0),
        (Query(namespace="ns1"), None, 40),
        (Query(namespace="ns1"), {"ns0"}, 0),
        (Query(state="Failed"), None, 12),
        (Query(database="db1"), None, 60),
        (Query(text="B11 NS2"), None, 4),  # b11, b110 (ns2), b113, b116, b119: those of ns2
        (Query(text="nothing"), None, 0),
    ],
)
def test_filters(query: Query, namespaces: set[str] | None, total: int) -> None:
    wanted = [
        found
        for found in MANY
        if (namespaces is None or found.namespace in namespaces)
        and query.namespace in ("", found.namespace)
        and query.database in ("", found.database)
        and (not query.state or query.state in texts(found))
        and (query.text != "B11 NS2" or ("b11" in found.name and found.namespace == "ns2"))
        and query.text != "nothing"
    ]
    page = select(MANY, query, namespaces, NOW)
    assert page.total == len(wanted)
    assert list(page.rows) == wanted[: query.size]
    if query.text != "B11 NS2":
        assert page.total == total


def test_states_are_counted_without_the_filter_by_state() -> None:
    page = select(MANY, Query(state="Failed", namespace="ns0"), None, NOW)
    assert page.states == {"Completed": 36, "Failed": 4}
    assert (page.total, page.all) == (4, 40)


def test_paging() -> None:
    page = select(MANY, Query(page=3), None, NOW)
    assert [found.name for found in page.rows] == [f"b{n}" for n in range(100, 120)]
    assert (page.number, page.pages) == (3, 3)
    assert select(MANY, Query(page=99), None, NOW).number == 3, "past the end is the end"
    assert select([], Query(), None, NOW).pages == 1


def test_a_query_that_makes_no_sense_is_none() -> None:
    assert Query.read({"page": "-1", "size": "1e9", "q": "  x  ", "evil": "1"}) == Query(text="x")
    assert Query.read({"page": "0", "size": "9999"}) == Query(size=views.MOST)
    assert Query.read({"page": "٣"}).page == 1  # a digit, but not one of ours
    assert len(Query.read({"q": "x" * 999}).text) == views.TEXT


def test_links_keep_what_was_asked() -> None:
    query = Query(namespace="a b", text="&x=1", page=2)
    assert query.link() == "?namespace=a+b&q=%26x%3D1"
    assert query.link(page=3) == "?namespace=a+b&q=%26x%3D1&page=3"
    assert (
        Query.read(dict(pair.split("=") for pair in query.link(state="Failed")[1:].replace("+", " ").split("&") if "%" not in pair)).state == "Failed"
    )


@pytest.mark.parametrize(("seconds", "age"), [(0, "now"), (5, "5s"), (65, "1m"), (7200, "2h"), (200_000, "2d"), (-5, "now")])
def test_ages(seconds: int, age: str) -> None:
    assert views.age_text(NOW - timedelta(seconds=seconds), NOW) == age


def test_times_to_come() -> None:
    assert views.until_text(NOW + timedelta(hours=5), NOW) == "in 5h"
    assert views.until_text(NOW - timedelta(hours=5), NOW) == "due"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("nightly-1", "nightly-1.sql"),
        ('a"; filename="evil.exe', "a---filename--evil.exe.sql"),
        ("a\r\nSet-Cookie: x=1", "a--Set-Cookie--x-1.sql"),
        ("../../etc/passwd", "etc-passwd.sql"),
        (".ssh", "ssh.sql"),
        ("-rf", "rf.sql"),
        ("ünïcode", "n-code.sql"),
        ("", "backup.sql"),
        ("x" * 999, "x" * 200 + ".sql"),
    ],
)
def test_a_files_name_is_only_a_name(name: str, wanted: str) -> None:
    assert views.safe_filename(name, ".sql") == wanted


@pytest.mark.parametrize("path", ["/backups", "/namespaces/a/backups/b?x=1", "/"])
def test_paths_of_this_server_are_followed(path: str) -> None:
    assert views.local_path(path) == path


@pytest.mark.parametrize(
    "path", ["//evil.com", "/\\evil.com", "https://evil.com", "evil", "/a\r\nX: 1", "/a\\b", "", "/\t/evil.com", "/" + "x" * 2000]
)
def test_no_other_place_is_followed(path: str) -> None:
    assert views.local_path(path) == "/"


def test_a_log_is_told_for_people() -> None:
    tail = '{"ts":"2026-11-24T11:20:04.120+00:00","level":"error","message":"it broke","key":"a/b"}\nplain <b>text</b>\n[1]\n{"ts":1}'
    assert views.log_text(tail) == '11:20:04 error   it broke key=a/b\nplain <b>text</b>\n[1]\n{"ts":1}'
