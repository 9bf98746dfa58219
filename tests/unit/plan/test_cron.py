"""When schedules come due: held to a definition by brute force, minute by minute, around every kind
of clock change."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.support.passing import calls

from dbbackup.plan.cron import NAME_LIMIT, CronError, jitter, parse, run_name

MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local_dues(schedule: str, zone: str, after: str, count: int) -> list[datetime]:
    cron, moment, found = parse(schedule, zone), at(after), []
    for _ in range(count):
        moment = cron.next(moment)
        assert moment.tzinfo is UTC
        found.append(moment.astimezone(ZoneInfo(zone)))
    return found


def dues(schedule: str, zone: str, after: str, count: int) -> list[str]:
    """In local time, with its offset."""
    return [due.strftime("%Y-%m-%d %H:%M%z") for due in local_dues(schedule, zone, after, count)]


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("@hourly", "2026-11-22 04:00+0100"),
        ("@daily", "2026-11-23 00:00+0100"),
        ("@midnight", "2026-11-23 00:00+0100"),
        ("@weekly", "2026-11-29 00:00+0100"),
        ("@monthly", "2026-12-01 00:00+0100"),
        ("@yearly", "2027-01-01 00:00+0100"),
        (" @Annually ", "2027-01-01 00:00+0100"),
    ],
)
def test_aliases(alias: str, expected: str) -> None:
    assert dues(alias, "Europe/Berlin", "2026-11-22T02:30", 1) == [expected]


def test_month_ends_and_leap_days() -> None:
    assert dues("0 3 31 * *", "Etc/UTC", "2026-01-31T03:00", 3) == [f"2026-{month}-31 03:00+0000" for month in ("03", "05", "07")]
    assert dues("0 3 L * *", "Etc/UTC", "2028-01-31T03:00", 2) == ["2028-02-29 03:00+0000", "2028-03-31 03:00+0000"]
    assert dues("0 3 29 2 *", "Etc/UTC", "2096-02-29T03:00", 1) == ["2104-02-29 03:00+0000"], "2100 is no leap year"
    assert dues("30 23 28 2 *", "America/New_York", "2028-01-01", 1) == ["2028-02-28 23:30-0500"]


def test_day_of_month_or_day_of_week() -> None:
    assert dues("0 3 13 * FRI", "Etc/UTC", "2026-11-01", 3) == [f"2026-11-{day} 03:00+0000" for day in ("06", "13", "20")], "either"
    assert dues("0 3 * * 7", "Etc/UTC", "2026-11-01T04:00", 1) == dues("0 3 * * SUN", "Etc/UTC", "2026-11-01T04:00", 1) == ["2026-11-08 03:00+0000"]
    assert dues("0 3 * * MON#1", "Etc/UTC", "2026-11-03", 1) == ["2026-12-07 03:00+0000"]


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        # 02:00 -> 03:00 on 29 March; 03:00 -> 02:00 on 25 October.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29 03:00+0200", "2026-03-30 02:30+0200"]),
        ("0,30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29 03:00+0200", "2026-03-29 03:30+0200", "2026-03-30 02:00+0200"]),
        ("*/15 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29 03:00+0200", "2026-03-30 02:00+0200"]),
        ("0 */2 * * *", "Europe/Berlin", "2026-03-28T23:30", ["2026-03-29 03:00+0200", "2026-03-29 04:00+0200"]),
        ("0 * * * *", "Europe/Berlin", "2026-03-29T00:30", ["2026-03-29 03:00+0200", "2026-03-29 04:00+0200"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["2026-10-25 02:30+0200", "2026-10-26 02:30+0100"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10", ["2026-10-26 02:30+0100"]),
        ("0 */2 * * *", "Europe/Berlin", "2026-10-24T22:30", ["2026-10-25 02:00+0200", "2026-10-25 04:00+0100"]),
        ("30 * * * *", "Europe/Berlin", "2026-10-25T00:00", ["2026-10-25 02:30+0200", "2026-10-25 02:30+0100", "2026-10-25 03:30+0100"]),
        ("0 0-23 * * *", "Europe/Berlin", "2026-10-24T23:30", ["2026-10-25 02:00+0200", "2026-10-25 02:00+0100"]),
        # 02:00 -> 03:00 on 8 March; 02:00 -> 01:00 on 1 November.
        ("15 2 * * *", "America/New_York", "2026-03-07T12:00", ["2026-03-08 03:00-0400", "2026-03-09 02:15-0400"]),
        ("15 1 * * *", "America/New_York", "2026-10-31T12:00", ["2026-11-01 01:15-0400", "2026-11-02 01:15-0500"]),
        # By half an hour: 02:00 -> 02:30 on 4 October; 02:00 -> 01:30 on 5 April.
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", ["2026-10-04 02:30+1100", "2026-10-05 02:15+1100"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", ["2026-04-05 01:45+1100", "2026-04-06 01:45+1030"]),
        ("45 * * * *", "Australia/Lord_Howe", "2026-04-04T14:30", ["2026-04-05 01:45+1100", "2026-04-05 01:45+1030", "2026-04-05 02:45+1030"]),
        # Midnight itself is left out: 00:00 -> 01:00 on 6 September.
        ("@daily", "America/Santiago", "2026-09-05T12:00", ["2026-09-06 01:00-0300", "2026-09-07 00:00-0300"]),
        ("@weekly", "America/Santiago", "2026-09-05T12:00", ["2026-09-06 01:00-0300"]),
        # The clock goes back from Sunday to Saturday.
        ("0 * * * 0", "America/Goose_Bay", "2010-11-07T03:30", ["2010-11-07 00:00-0400"]),
        # A whole day was left out.
        ("0 3 * * *", "Pacific/Apia", "2011-12-29T14:00", ["2011-12-31 00:00+1400", "2011-12-31 03:00+1400"]),
    ],
)
def test_clock_changes(schedule: str, zone: str, after: str, expected: list[str]) -> None:
    assert dues(schedule, zone, after, len(expected)) == expected


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Cairo", "Antarctica/Troll"])
@pytest.mark.parametrize("time", ["0 0", "30 0", "15 1", "0 2", "10 2", "59 2", "0 3", "45 23"])
def test_a_daily_run_comes_once_a_day(time: str, zone: str) -> None:
    days = {due.date() for due in local_dues(f"{time} * * *", zone, "2026-01-01T23:59", 366)}
    assert len(days) == 366


def _matcher(schedule: str) -> tuple[set[int], set[int], set[int], set[int]]:
    """Minutes, hours, days of the month and weekdays (0 is Sunday) of a schedule that restricts the
    days in one way at most."""

    def values(field: str, low: int, high: int) -> set[int]:
        found: set[int] = set()
        for term in field.split(","):
            span, _, step = term.partition("/")
            first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
            found.update(range(int(first), int(last or first) + 1, int(step or 1)))
        return found

    minute, hour, day, _, weekday = schedule.split()
    return values(minute, 0, 59), values(hour, 0, 23), values(day, 1, 31), values(weekday, 0, 6)


@cache
def _minutes(zone: ZoneInfo, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Every minute of [start, end], and what the local clock shows then."""
    moments = [start + number * MINUTE for number in range((end - start) // MINUTE + 1)]
    return [(moment, moment.astimezone(zone).replace(tzinfo=None, fold=0)) for moment in moments]


def _probes(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """Close to each other around the clock change, an hour apart elsewhere."""
    [change] = [after for (_, was), (after, shows) in itertools.pairwise(_minutes(zone, start, end)) if shows - was != MINUTE]
    probe = start
    while (probe := probe + timedelta(minutes=13 if abs(probe - change) < timedelta(hours=4) else 62, seconds=20)) < end:
        yield probe


def _brute(schedule: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """The definition itself, over every minute of (start, end]."""
    minutes, hours, days, weekdays = _matcher(schedule)

    def matches(wall: datetime) -> bool:
        return wall.minute in minutes and wall.hour in hours and wall.day in days and wall.isoweekday() % 7 in weekdays

    found: list[datetime] = []
    (_, seen), *later = _minutes(zone, start, end)
    for moment, wall in later:
        if len(hours) == 24:
            due = matches(wall)
        else:
            due = False
            while seen < wall:
                seen += MINUTE
                due = due or matches(seen)
        if due:
            found.append(moment)
    return found


@cache
def _changes(zone: ZoneInfo, year: int) -> list[datetime]:
    """Midday (UTC) of the days on which the clock changes."""
    days = [datetime(year, 1, 1, 12, tzinfo=UTC) + timedelta(days=day) for day in range(365)]
    return [day for day in days if day.astimezone(zone).utcoffset() != (day - timedelta(days=1)).astimezone(zone).utcoffset()]


@pytest.mark.parametrize(
    "zone_name", ["Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "Antarctica/Troll", "Asia/Beirut", "Atlantic/Azores"]
)
@pytest.mark.parametrize("schedule", ["*/7 * * * *", "30 * * * 0", "*/20 * * * 6", "*/20 0-3 * * *", "30 1,2,23 * * *", "*/45 */2 * * 0"])
def test_as_defined_around_clock_changes(schedule: str, zone_name: str) -> None:
    zone, cron = ZoneInfo(zone_name), parse(schedule, zone_name)
    changes = _changes(zone, 2026)
    assert len(changes) == 2
    for change in changes:
        start, end = change - timedelta(hours=26), change + timedelta(hours=8)
        expected = _brute(schedule, zone, start, end)
        found, moment = [], start
        while (moment := cron.next(moment)) <= end:
            found.append(moment)
        assert found == expected
        assert cron.count(start, end) == len(expected)
        after_end = cron.next(end)
        for probe in _probes(zone, start, end):
            until = bisect.bisect_right(expected, probe)
            assert cron.latest(start, probe) == (expected[until - 1] if until else None)
            assert cron.next(probe) == (expected[until] if until < len(expected) else after_end)


SCHEDULES = st.one_of(
    st.sampled_from(["@hourly", "@daily", "@weekly", "@monthly", "* * * * *", "0 3 29 2 *", "0 0 L * *", "30 2 * * MON#1", "0 0 13 * FRI"]),
    st.builds(
        "{} {} {} {} *".format,
        st.sampled_from(["0", "*/15", "1-58/19", "30", "*"]),
        st.sampled_from(["*", "2", "0,1,23", "*/6", "0-23", "22-23"]),
        st.sampled_from(["*", "1", "31", "*/10"]),
        st.sampled_from(["*", "1,12", "3"]),
    ),
)
ZONES = st.sampled_from(["Etc/UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Kolkata", "Pacific/Chatham"])
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(max_examples=150)
@given(SCHEDULES, ZONES, MOMENTS, st.integers(1, 400 * 86400))
def test_next_latest_and_count_agree(schedule: str, zone: str, after: datetime, seconds: int) -> None:
    cron = parse(schedule, zone)
    due = cron.next(after)
    assert due > after
    assert (due.second, due.microsecond) == (0, 0)
    assert cron.latest(after, due) == due
    assert cron.latest(after, due - timedelta(microseconds=1)) is None
    assert cron.count(after, due) == 1
    following = cron.next(due)
    assert cron.latest(after, following - timedelta(seconds=1)) == due
    until = after + timedelta(seconds=seconds)
    latest = cron.latest(after, until)
    if latest is None:
        assert due > until
    else:
        assert due <= latest <= until < cron.next(latest)
        assert cron.next(latest - timedelta(microseconds=1)) == latest


def test_any_zone_of_the_argument_will_do() -> None:
    cron = parse("0 3 * * *", "Europe/Berlin")
    assert cron.next(datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)) == at("2026-10-25T02:00")


def test_the_work_is_bounded() -> None:
    start, end = at("2016-11-22"), at("2026-11-22")
    crons = [parse(s, "Europe/Berlin") for s in ("* * * * *", "0 * * * *", "0 3 * * *", "0 0 29 2 *", "0 * * 2 MON#5")]
    for cron in crons:
        assert calls(lambda: (cron.latest(start, end), cron.next(start))) < 10_000, cron.schedule  # noqa: B023 - called at once
    assert [cron.count(start, end) for cron in crons] == [1000, 1000, 1000, 2, 0]
    assert crons[0].count(start, end, limit=7) == 7


@pytest.mark.parametrize(
    ("schedule", "zone", "says"),
    [
        ("0 0 3 * * *", "Etc/UTC", 'schedule "0 0 3 * * *" has six fields: seconds are not supported'),
        ("0 3 * *", "Etc/UTC", "has 4 fields, not five"),
        ("", "Etc/UTC", "has 0 fields, not five"),
        ("61 3 * * *", "Etc/UTC", 'minute "61" cannot be read; it takes 0-59'),
        ("0 24 * * *", "Etc/UTC", 'hour "24" cannot be read; it takes 0-23'),
        ("0 0 0 * *", "Etc/UTC", 'day of month "0"'),
        ("0 0 * FOO *", "Etc/UTC", 'month "FOO" cannot be read; it takes 1-12 or JAN-DEC'),
        ("0 0 * * FRI-SUN", "Etc/UTC", 'day of week "FRI-SUN"'),
        ("*/0 0 * * *", "Etc/UTC", 'minute "*/0"'),
        ("9" * 5000 + " 0 * * *", "Etc/UTC", "cannot be read"),
        ("0 0 ? * *", "Etc/UTC", 'day of month "?"'),
        ("0 0 31 2 *", "Etc/UTC", 'schedule "0 0 31 2 *" never comes due'),
        ("0 0 31 4,6 *", "Etc/UTC", "never comes due"),
        ("0 0 */31 2 MON#5", "Etc/UTC", "never comes due"),
        ("@reboot", "Etc/UTC", "there is no reboot to follow; use five fields or one of @hourly"),
        ("@every 1h", "Etc/UTC", "an interval has no fixed due times"),
        ("@fortnightly", "Etc/UTC", "unknown; use five fields or one of @hourly"),
        ("CRON_TZ=Europe/Berlin 0 3 * * *", "Etc/UTC", "the time zone belongs in timeZone"),
        ("@daily", "Mars/Olympus", 'time zone "Mars/Olympus" is unknown: use an IANA name'),
        ("@daily", "europe/berlin", "did you mean Europe/Berlin?"),
        ("@daily", "Europe", "is unknown"),
        ("@daily", "../Europe/Berlin", "is unknown"),
        ("@daily", "right/Europe/Berlin", "is unknown"),
        ("@daily", "localtime", "is unknown"),
        ("@daily", "", "is unknown"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(schedule: str, zone: str, says: str) -> None:
    with pytest.raises(CronError, match=re.escape(says)):
        parse(schedule, zone)


def test_jitter_is_fixed_by_the_name_and_spread() -> None:
    assert jitter("shop", "nightly", 600) == jitter("shop", "nightly", 600)
    assert jitter("shop", "nightly", 0) == timedelta()
    seconds = [jitter("shop", f"nightly-{n}", 600) // timedelta(seconds=1) for n in range(300)]
    assert 0 <= min(seconds) < 20
    assert 580 < max(seconds) <= 600
    assert len(set(seconds)) > 200
    assert jitter("a", "b", 86400) != jitter("b", "a", 86400)
    assert {jitter("a", str(n), 1) for n in range(40)} == {timedelta(), timedelta(seconds=1)}


def test_run_names() -> None:
    due = datetime(2026, 11, 22, 4, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    assert run_name("nightly", due) == "nightly-20261122-0300"
    assert run_name("nightly", due, "My_App") == "nightly-20261122-0300-my-app-0e86b8"
    assert run_name("nightly", due, "my-app") != run_name("nightly", due, "my_app"), "the slug is the same, the database is not"
    assert run_name("nightly", due, "Äß").startswith("nightly-20261122-0300-"), "nothing of the name may be left"
    both = {run_name("nightly", at("2026-10-25T00:30")), run_name("nightly", at("2026-10-25T01:30"))}
    assert len(both) == 2, "the doubled hour's runs have names of their own"


@given(st.integers(1, 40), st.text("aZ9_- .$Äß\N{EURO SIGN}", min_size=1, max_size=63))
def test_run_names_are_object_names(length: int, database: str) -> None:
    name = run_name("s" * length, at("2026-11-22T03:00"), database)
    assert len(name) <= NAME_LIMIT
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)


def test_an_hourly_run_follows_real_time() -> None:
    for start, hours in (("2026-03-28T22:59", 23), ("2026-10-24T21:59", 25)):
        assert parse("0 * * * *", "Europe/Berlin").count(at(start), at(start) + timedelta(hours=hours)) == hours
        assert len({due[:10] for due in dues("0 * * * *", "Europe/Berlin", start, hours)}) == 1
