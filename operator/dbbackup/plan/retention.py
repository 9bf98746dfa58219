"""Which good backups stay and which go, each with its reasons. The table of precedence is in
docs/retention.md.

Everything here is about one namespace. Two kinds of groups matter: the backups that a schedule made
of one database, which its rules count; and one database in one storage, whose newest good backup
always stays. In doubt a backup stays: one whose database is not known is never removed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from dbbackup.api.specs import Retention
from dbbackup.plan.cron import CronError, zone_named

OTHERS_SHARE = 50
"""Per cent: the largest share that may be removed at once if no schedule governs the backups."""
FREE = 3
"""So many backups may be removed at once, whatever their share."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run, or an artifact without an object (`orphan`). Times are aware.

    `storage` is a BackupStorage's name; `identity` is host:port/name, None if a failed run did not
    get so far; `database` is the name in the spec, None if only the Secret has it. `time` is when
    the backup was requested. `going` is marked for removal: it does not count any more. `in_use`
    says what reads it, such as "DatabaseRestore undo". `expires_at` is the recorded expiry; None:
    never.
    """

    name: str
    uid: str
    storage: str
    identity: str | None
    database: str | None
    time: datetime
    outcome: Literal["good", "failed", "running", "going"]
    schedule: str | None = None
    pinned: bool = False
    in_use: str | None = None
    expires_at: datetime | None = None
    orphan: bool = False

    @property
    def age(self) -> tuple[datetime, str, str]:
        """Sort key, oldest first, the same order each time."""
        return (self.time, self.name, self.uid)

    @property
    def database_name(self) -> str | None:
        return self.identity.partition("/")[2] if self.identity is not None else self.database


@dataclass(frozen=True, slots=True)
class Policy:
    """A schedule's retention. Hours, days, weeks, months and years are those of `time_zone`; if the
    time zone is unknown, its rules remove nothing."""

    keep_last: int | None = None
    keep_hourly: int | None = None
    keep_daily: int | None = None
    keep_weekly: int | None = None
    keep_monthly: int | None = None
    keep_yearly: int | None = None
    min_keep: int = 1
    max_prune_share: int = 50
    time_zone: str = "Etc/UTC"

    @classmethod
    def of(cls, retention: Retention, time_zone: str) -> Policy:
        return cls(**{field.name: getattr(retention, field.name) for field in fields(cls) if field.name != "time_zone"}, time_zone=time_zone)

    @property
    def keeps(self) -> bool:
        """Whether any keep rule is set."""
        return self.keep_last is not None or any(getattr(self, rule) is not None for rule, _, _ in _BUCKETS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reasons`: all that keep the backup, or the one for its removal. `held`: it stays only
    because a newer run failed; the last reason says why it would go."""

    candidate: Candidate
    keep: bool
    reasons: tuple[str, ...]
    held: bool = False


class Group(NamedTuple):
    """What the breaker counts together: the backups of a schedule; or the orphans of a storage and
    its backups that no schedule governs."""

    schedule: str | None = None
    storage: str | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """A prune that waits until a person approves it by `token`: it would remove `names`, more than
    `share` per cent of `good` good backups."""

    group: Group
    token: str
    names: tuple[str, ...]
    good: int
    share: int

    @property
    def message(self) -> str:
        target = f"dbs/{self.group.schedule}" if self.group.schedule else f"bst/{self.group.storage}"
        whose = "of this schedule" if self.group.schedule else "in this storage that no schedule governs"
        return (
            f"{len(self.names)} of the {self.good} good backups {whose} would be removed at once, more than {self.share} %: nothing is removed until "
            f"a person agrees, by kubectl annotate --overwrite {target} dbbackup.io/approve-prune={self.token}"
        )


@dataclass(frozen=True, slots=True)
class Pruning:
    """What may be removed, newest first, and what the breaker has stopped."""

    removals: tuple[Verdict, ...]
    stopped: tuple[Stopped, ...]


@dataclass(frozen=True, slots=True)
class Upcoming:
    """A removal to come. `when` is None if it comes with the next good backup of the database."""

    candidate: Candidate
    when: datetime | None
    reason: str


def _hour_text(moment: datetime) -> str:
    text = moment.isoformat(" ", "hours")  # strftime takes twice as long, and each backup may have its own hour
    return f"hourly {text[:13]}:00{text[13:].replace(':', '')}"


# Rule, key of the bucket of a local time, name of the bucket. The doubled hour of a clock change
# counts as two hours.
_BUCKETS: tuple[tuple[str, Callable[[datetime], object], Callable[[datetime], str]], ...] = (
    ("keep_hourly", lambda t: (t.date(), t.hour, t.utcoffset()), _hour_text),
    ("keep_daily", lambda t: t.date(), lambda t: f"daily {t:%Y-%m-%d}"),
    ("keep_weekly", lambda t: t.isocalendar()[:2], lambda t: "weekly {}-W{:02d}".format(*t.isocalendar()[:2])),
    ("keep_monthly", lambda t: (t.year, t.month), lambda t: f"monthly {t:%Y-%m}"),
    ("keep_yearly", lambda t: t.year, lambda t: f"yearly {t:%Y}"),
)


def decide(candidates: Iterable[Candidate], policies: Mapping[str, Policy], now: datetime) -> list[Verdict]:
    """A verdict for each good candidate, newest first. `policies`: by the name of each existing
    schedule."""
    everything = list(candidates)
    good = sorted((c for c in everything if c.outcome == "good"), key=lambda c: c.age, reverse=True)
    guards, rules = _guards(good, policies), _rules(good, policies, now)
    runs = _Runs(everything, policies)
    verdicts = []
    for at, candidate in enumerate(good):
        verdict = _judge(candidate, guards.get(at, []), rules.get(at, []), _ruled(candidate, policies), now)
        if not verdict.keep and (failed := runs.failing(candidate)) is not None:
            whose = "the schedule" if candidate.schedule in policies else candidate.identity
            held = f"held: the newest run of {whose} failed ({failed.name})"
            verdict = Verdict(candidate, keep=True, reasons=(held, f"would go: {verdict.reasons[0]}"), held=True)
        verdicts.append(verdict)
    return verdicts


def _judge(candidate: Candidate, guards: list[str], rules: list[str], ruled: bool, now: datetime) -> Verdict:
    if candidate.identity is None:
        return Verdict(candidate, keep=True, reasons=(*guards, "its database is not known"))
    expiry = candidate.expires_at
    if _expired(candidate, now):
        return Verdict(candidate, keep=bool(guards), reasons=tuple(guards) or (f"expired {_text(expiry)}",))
    if ruled:
        return Verdict(candidate, keep=bool(guards or rules), reasons=(*guards, *rules) or ("no rule keeps it",))
    return Verdict(candidate, keep=True, reasons=(*guards, f"not expired until {_text(expiry)}" if expiry else "never expires"))


def _expired(candidate: Candidate, now: datetime) -> bool:
    return candidate.expires_at is not None and candidate.expires_at <= now


def _text(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%MZ}" if moment else ""


def _ruled(candidate: Candidate, policies: Mapping[str, Policy]) -> bool:
    return not candidate.orphan and candidate.schedule in policies and policies[candidate.schedule or ""].keeps


def _series(good: Sequence[Candidate], policies: Mapping[str, Policy]) -> Iterable[tuple[Policy, list[int]]]:
    """What each schedule made of each database: indexes into `good`, newest first. Without orphans:
    the rules do not count them."""
    series: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, candidate in enumerate(good):
        if candidate.schedule in policies and candidate.identity is not None and not candidate.orphan:
            series[candidate.schedule or "", candidate.identity].append(at)
    return ((policies[schedule], members) for (schedule, _), members in series.items())


def _guards(good: Sequence[Candidate], policies: Mapping[str, Policy]) -> dict[int, list[str]]:
    """What keeps a candidate even if it has expired: index in `good` -> reasons."""
    guards: dict[int, list[str]] = defaultdict(list)
    seen: set[tuple[str, str, bool]] = set()
    newest: set[int] = set()
    for at, candidate in enumerate(good):
        if candidate.pinned:
            guards[at].append("pinned")
        if candidate.in_use:
            guards[at].append(f"in use by {candidate.in_use}")
        if candidate.identity is None:
            continue
        # An orphan stays only if it is the newest of all; a backup with an object stays if it is
        # the newest of those.
        known = (candidate.storage, candidate.identity, False)
        if known not in seen and (not candidate.orphan or (*known[:2], True) not in seen):
            guards[at].append(f"newest good backup of {candidate.identity}")
            newest.add(at)
        seen.add((*known[:2], candidate.orphan))
    for policy, members in _series(good, policies):
        for at in members[: policy.min_keep]:
            if policy.min_keep > 1 or at not in newest:
                guards[at].append(f"minKeep {policy.min_keep}")
    return guards


def _rules(good: Sequence[Candidate], policies: Mapping[str, Policy], now: datetime) -> dict[int, list[str]]:
    """What the keep rules keep: index in `good` -> reasons. An expired backup fills no bucket: it
    would displace one that has not expired."""
    rules: dict[int, list[str]] = defaultdict(list)
    for policy, members in _series(good, policies):
        if not policy.keeps:
            continue
        live = [at for at in members if not _expired(good[at], now)]
        try:
            zone = zone_named(policy.time_zone)
        except CronError as error:
            for at in live:
                rules[at].append(f"not decided: {error}")
            continue
        for at in live[: policy.keep_last or 0]:
            rules[at].append(f"last {policy.keep_last}")
        moments = [good[at].time.astimezone(zone) for at in live]
        for rule, key_of, text_of in _BUCKETS:
            wanted, buckets = getattr(policy, rule) or 0, set[object]()
            for at, moment in zip(live, moments, strict=True):
                if (key := key_of(moment)) in buckets:
                    continue
                if len(buckets) == wanted:
                    break
                buckets.add(key)
                rules[at].append(text_of(moment))
    return rules


class _Runs:
    """The newest finished runs of each schedule, and of each storage for backups that no schedule
    governs."""

    def __init__(self, candidates: Iterable[Candidate], policies: Mapping[str, Policy]) -> None:
        self._policies = policies
        self._good: dict[tuple[str | None, str, str], datetime] = {}
        self._failed: dict[tuple[str | None, str, str | None], Candidate] = {}
        self._failing: set[tuple[str | None, str]] = set()
        for candidate in candidates:
            if candidate.orphan:
                continue
            group = self._group(candidate)
            if candidate.outcome == "good" and candidate.identity is not None:
                key = (*group, candidate.identity)
                self._good[key] = max(candidate.time, self._good.get(key, candidate.time))
            elif candidate.outcome == "failed":
                # By the best that is known: the identity, else =name, else None.
                about = candidate.identity or (f"={candidate.database}" if candidate.database else None)
                self._failing.add(group)
                self._failed[*group, about] = max(candidate, self._failed.get((*group, about), candidate), key=lambda c: c.age)

    def _group(self, candidate: Candidate) -> tuple[str | None, str]:
        return (candidate.schedule, "") if candidate.schedule in self._policies else (None, candidate.storage)

    def failing(self, candidate: Candidate) -> Candidate | None:
        """The failed run that holds this good candidate: a run of its database, or of one that may
        be the same, with no good run after it.

        A failed run whose database is not known may be of any database of its schedule; one without
        a schedule says nothing about other databases.
        """
        group = self._group(candidate)
        if group not in self._failing:
            return None
        abouts = [candidate.identity, f"={candidate.database_name}", *([None] if group[0] is not None else [])]
        found = [failed for about in abouts if (failed := self._failed.get((*group, about))) is not None]
        failed = max(found, key=lambda c: c.age, default=None)
        good = self._good.get((*group, candidate.identity or ""))
        return failed if failed is not None and (good is None or failed.time >= good) else None


def _breaker_group(candidate: Candidate, policies: Mapping[str, Policy]) -> Group:
    if candidate.schedule in policies and not candidate.orphan:
        return Group(schedule=candidate.schedule)
    return Group(storage=candidate.storage)


def _token(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:8]


def prune(candidates: Iterable[Candidate], verdicts: Sequence[Verdict], policies: Mapping[str, Policy], approvals: Mapping[Group, str]) -> Pruning:
    """Which of the removals that `decide` has found may be carried out. A group that would lose
    more than FREE backups, and more than its share, loses none until `approvals` contains its
    token.

    The token is computed from the names that would go. It stays valid for the rest of them once
    some are `going`, so that an operator that was stopped half-way need not ask again.
    """
    good: dict[Group, int] = defaultdict(int)
    leaving: dict[Group, list[Verdict]] = defaultdict(list)
    going: dict[Group, list[str]] = defaultdict(list)
    for candidate in candidates:
        if candidate.outcome == "going":
            going[_breaker_group(candidate, policies)].append(candidate.name)
    for verdict in verdicts:
        group = _breaker_group(verdict.candidate, policies)
        good[group] += 1
        if not verdict.keep:
            leaving[group].append(verdict)
    free: set[Group] = set()
    stopped: list[Stopped] = []
    for group, gone in leaving.items():
        names = tuple(sorted(verdict.candidate.name for verdict in gone))
        share = policies[group.schedule].max_prune_share if group.schedule is not None else OTHERS_SHARE
        tokens = (_token(names), _token((*names, *going[group])))
        if len(names) <= FREE or 100 * len(names) <= share * good[group] or approvals.get(group) in tokens:
            free.add(group)
        else:
            stopped.append(Stopped(group, tokens[0], names, good[group], share))
    return Pruning(tuple(v for v in verdicts if not v.keep and _breaker_group(v.candidate, policies) in free), tuple(stopped))


def failed_history(candidates: Iterable[Candidate], schedule: str, limit: int) -> list[Candidate]:
    """Failed runs of the schedule beyond `limit` for each database, oldest first. One that holds
    back a removal stays: without it the removal would go on."""
    mine = [candidate for candidate in candidates if candidate.schedule == schedule]
    runs = _Runs(mine, {schedule: Policy()})
    holding = {failed.uid for c in mine if c.outcome == "good" and (failed := runs.failing(c)) is not None}
    kept: dict[str | None, int] = defaultdict(int)
    beyond = []
    for candidate in sorted((c for c in mine if c.outcome == "failed"), key=lambda c: c.age, reverse=True):
        kept[candidate.database_name] += 1
        if kept[candidate.database_name] > limit and candidate.uid not in holding:
            beyond.append(candidate)
    return beyond[::-1]


def next_removals(
    candidates: Iterable[Candidate], policies: Mapping[str, Policy], schedule: str, now: datetime, due: datetime | None, count: int = 5
) -> list[Upcoming]:
    """The next `count` removals among the backups of the schedule, the next first: those that go
    now, those that a failed run holds back, those that go once the run of `due` (None: no run will
    come) has made a good backup of each database, and those that expire later, if nothing else
    changes.
    """
    everything = list(candidates)
    databases = {c.identity for c in everything if c.schedule == schedule and c.identity is not None}
    near = [c for c in everything if c.schedule == schedule or c.identity in databases]
    coming: list[Candidate] = []
    found: dict[str, tuple[datetime, Upcoming]] = {}

    def look(at: datetime, when: Callable[[Candidate], datetime | None]) -> None:
        for verdict in decide((*near, *coming), policies, at):
            candidate = verdict.candidate
            goes = not verdict.keep or (verdict.held and at == now)
            if goes and candidate.schedule == schedule and not candidate.orphan and candidate.uid not in found:
                moment = None if verdict.held else when(candidate)
                found[candidate.uid] = (moment or at, Upcoming(candidate, moment, "; ".join(verdict.reasons)))

    look(now, lambda _: now)
    if due is not None:
        look(due, lambda candidate: candidate.expires_at)
        for identity in sorted(databases):
            last = max((c for c in near if c.schedule == schedule and c.identity == identity), key=lambda c: c.age)
            name = f"{schedule} {due}"
            coming.append(Candidate(name, f"{name} {identity}", last.storage, identity, last.database, due, "good", schedule))
        look(due, lambda _: None)
    horizon = max((c.expires_at for c in near if c.expires_at is not None), default=now)
    if horizon > now:
        look(horizon, lambda candidate: candidate.expires_at)
    ordered = sorted(found.values(), key=lambda entry: (entry[0], entry[1].candidate.age))
    return [upcoming for _, upcoming in ordered[:count]]
