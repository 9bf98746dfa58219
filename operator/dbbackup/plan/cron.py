"""When a schedule comes due: five cron fields or @daily and friends, in a time zone. Cronsim
handles the calendar, this module the clock changes.

A schedule that runs in every hour of the day follows real time: it is due whenever the local clock
shows a minute that matches. Any other schedule runs once for each local time that it names: at the
first moment when the clock shows that time or has passed it. So a time that a clock change skips is
due at the end of the gap, and a time that comes twice is due the first time. (Debian's cron,
and cronsim too, treats `*/15 2` as the first kind: no run at all on the day of a gap. A schedule of
backups must not lose a day because of how it is written.)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from itertools import islice, takewhile
from typing import Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

NAME_LIMIT = 63
"""Characters of a run's name: it is also the value of a label."""
_MINUTE = timedelta(minutes=1)
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = (
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of month", "1-31, or L for the last"),
    ("month", "1-12 or JAN-DEC"),
    ("day of week", "0-7 or SUN-SAT; 0 and 7 are Sunday"),
)
_ORDER = 'minute, hour, day of month, month, day of week, such as "0 3 * * *"'


class CronError(ValueError):
    """A schedule or time zone that cannot be used; the message quotes it and says why."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule in its time zone; made by `parse`. All times are aware: accepted in any zone,
    returned in UTC."""

    schedule: str
    time_zone: str
    fields: str
    zone: ZoneInfo
    real_time: bool
    """Runs in every hour of the day."""

    def next(self, after: datetime) -> datetime:
        """The first due time after `after`."""
        return next(self._dues(after))

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """The newest due time in (after, until]."""
        due = next(self._minutes(_minute(until), -1), None) if self.real_time else self._latest_wall(until)
        return due if due is not None and due > after else None

    def count(self, after: datetime, until: datetime, limit: int = 1000) -> int:
        """How many due times lie in (after, until], `limit` at most."""
        return sum(1 for _ in takewhile(lambda due: due <= until, islice(self._dues(after), limit)))

    def _dues(self, after: datetime) -> Iterator[datetime]:
        if self.real_time:
            yield from self._minutes(_minute(after) + _MINUTE, 1)
            return
        last = after
        for wall in CronSim(self.fields, self._wall(after)):
            due = self._first(wall)
            if due > last:  # Several times in one gap come due together.
                last = due
                yield due

    def _latest_wall(self, until: datetime) -> datetime | None:
        local = until.astimezone(self.zone)
        start = self._wall(until)
        if local.fold:  # In the second pass of a doubled hour everything up to its end has been due already.
            start += (local.replace(fold=0).utcoffset() or timedelta()) - (local.utcoffset() or timedelta())
        for wall in CronSim(self.fields, start.replace(second=0, microsecond=0) + _MINUTE, reverse=True):
            due = self._first(wall)
            if due <= until:
                return due
        return None

    def _minutes(self, start: datetime, sign: Literal[1, -1]) -> Iterator[datetime]:
        """Real time: from `start`, a whole minute, forward or backward, every minute in which the
        local clock matches."""
        sim = CronSim(self.fields, datetime(2000, 1, 1))  # noqa: DTZ001
        at = start
        while True:
            local = at.astimezone(self.zone)
            if local.month in sim.months and sim.match_day(local.date()):
                if local.minute in sim.minutes:
                    yield at
                step = 1
                while (local.minute + sign * step) % 60 not in sim.minutes:
                    step += 1
                leap = at + sign * step * _MINUTE
                at = leap if leap.astimezone(self.zone).utcoffset() == local.utcoffset() else at + sign * _MINUTE
            else:
                wall = next(CronSim(self.fields, self._wall(at), reverse=sign < 0), None)
                if wall is None:
                    return
                at = max(self._first(wall), at + _MINUTE) if sign > 0 else min(self._last(wall), at - _MINUTE)

    def _wall(self, moment: datetime) -> datetime:
        """What the local clock shows."""
        return moment.astimezone(self.zone).replace(tzinfo=None, fold=0)

    def _first(self, wall: datetime) -> datetime:
        """The first moment when the local clock shows `wall` or later."""
        late = wall.replace(tzinfo=self.zone).astimezone(UTC)
        if self._wall(late) == wall:
            return late
        # In a gap: fold 0 reads it by the offset before the change, which gives a moment after it;
        # fold 1 the other way round.
        early = wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC)
        while late - early > timedelta(seconds=1):
            middle = (early + (late - early) / 2).replace(microsecond=0)
            early, late = (early, middle) if self._wall(middle) >= wall else (middle, late)
        return late

    def _last(self, wall: datetime) -> datetime:
        """The last moment when the local clock shows `wall`; in a gap its end."""
        return max(self._first(wall), wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC))


@lru_cache(maxsize=4096)
def parse(schedule: str, time_zone: str) -> Cron:
    """The schedule in that IANA time zone, or CronError."""
    zone = zone_named(time_zone)
    fields = _ALIASES.get(schedule.strip().lower()) or _checked(schedule)
    try:
        sim = CronSim(fields, datetime(2000, 1, 1))  # noqa: DTZ001
        next(sim)
    except (CronSimError, StopIteration):
        raise CronError(f'schedule "{schedule}" never comes due: no year has such a date') from None
    return Cron(schedule, time_zone, fields, zone, real_time=len(sim.hours) == 24)


def _checked(schedule: str) -> str:
    text = schedule.strip()
    if text.startswith("@"):
        why = {"@reboot": "there is no reboot to follow", "@every": "an interval has no fixed due times"}.get(text.split()[0].lower(), "unknown")
        raise CronError(f'schedule "{schedule}": {why}; use five fields or one of {", ".join(_ALIASES)}')
    if re.match(r"(CRON_)?TZ=", text):
        raise CronError(f'schedule "{schedule}": the time zone belongs in timeZone, not into the schedule')
    fields = text.split()
    if len(fields) == 6:
        raise CronError(f'schedule "{schedule}" has six fields: seconds are not supported; write {_ORDER}')
    if len(fields) != 5:
        raise CronError(f'schedule "{schedule}" has {len(fields)} field{"" if len(fields) == 1 else "s"}, not five: write {_ORDER}')
    for at, (field, (name, values)) in enumerate(zip(fields, _FIELDS, strict=True)):
        try:
            CronSim(" ".join("*" if other != at else field for other in range(5)), datetime(2000, 1, 1))  # noqa: DTZ001
        except (CronSimError, ValueError):  # ValueError: more digits than Python reads
            raise CronError(f'schedule "{schedule}": {name} "{field}" cannot be read; it takes {values}, with * , - and /') from None
    return text


@cache
def _zones() -> frozenset[str]:
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


def zone_named(name: str) -> ZoneInfo:
    """The IANA time zone of that name, or CronError."""
    # The package's list, not the machine's files: those include `localtime`, and `right/...` with
    # leap seconds.
    if name in _zones():
        return ZoneInfo(name)
    alike = next((zone for zone in sorted(_zones()) if zone.lower() == name.strip().lower()), None)
    hint = f"did you mean {alike}?" if alike else "use an IANA name such as Europe/Berlin or Etc/UTC"
    raise CronError(f'time zone "{name}" is unknown: {hint}')


def _minute(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


def jitter(namespace: str, name: str, seconds: int) -> timedelta:
    """How much later than due the schedule of that name starts its runs: whole seconds from 0 to
    `seconds`, always the same."""
    digest = hashlib.sha256(f"{namespace}/{name}".encode()).digest()
    return timedelta(seconds=int.from_bytes(digest[:8]) % (seconds + 1))


def run_name(schedule: str, due: datetime, database: str | None = None) -> str:
    """The name of the DatabaseBackup for that due time: always the same, so that it is never
    created twice."""
    stem = f"{schedule}-{due.astimezone(UTC):%Y%m%d-%H%M}"
    return stem if database is None else member_name(stem, database)


def member_name(stem: str, database: str) -> str:
    """The name of one database's backup in a run of several, different for each database. At most
    NAME_LIMIT characters, since a schedule's name has at most 40."""
    digest = hashlib.sha256(database.encode()).hexdigest()[:6]
    slug = re.sub(r"[^a-z0-9]+", "-", database.lower()).strip("-")[: max(NAME_LIMIT - len(stem) - len(digest) - 2, 0)].strip("-")
    return "-".join(part for part in (stem, slug, digest) if part)
