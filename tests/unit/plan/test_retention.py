"""Retention: golden files with reasons, and what must hold for any set of backups."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import process_time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.root import ROOT
from tests.unit.support.passing import calls

from dbbackup.api.specs import Retention
from dbbackup.api.units import parse_duration
from dbbackup.plan.cron import parse
from dbbackup.plan.retention import Candidate, Group, Policy, Upcoming, Verdict, decide, failed_history, next_removals, prune

GOLDEN = sorted((ROOT / "tests" / "unit" / "testdata" / "retention").glob("*.txt"))
REGENERATE = "DBBACKUP_REGENERATE_GOLDEN"
DAY = timedelta(days=1)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass
class Case:
    now: datetime = NOW
    candidates: list[Candidate] = field(default_factory=list)
    policies: dict[str, Policy] = field(default_factory=dict)
    approved: list[Group] = field(default_factory=list)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _candidate(outcome: str, name: str, time: datetime, words: Sequence[str]) -> Candidate:
    options = dict(word.partition("=")[::2] for word in words)
    identity = options.get("identity", "db:5432/app")
    assert options.keys() <= {"identity", "database", "storage", "schedule", "pinned", "in_use", "expires", "orphan"}
    return Candidate(
        name=name,
        uid=f"uid-{name}-{options.get('storage')}",
        storage=options.get("storage", "default"),
        identity=None if identity == "-" else identity,
        database=options.get("database"),
        time=time,
        outcome="failed" if outcome == "failed" else "running" if outcome == "running" else "good",
        schedule=options.get("schedule"),
        pinned="pinned" in options,
        in_use=options["in_use"].replace("/", " ") if "in_use" in options else None,
        expires_at=moment(options["expires"]) if "expires" in options else None,
        orphan=outcome == "orphan" or "orphan" in options,
    )


def _read(text: str) -> Case:
    """Lines of a golden file, before the first `=>`."""
    case = Case()
    for line in text.splitlines():
        match line.split():
            case ["now", at]:
                case.now = moment(at)
            case ["policy", name, *words]:
                options = dict(word.split("=") for word in words)
                zone = options.pop("timeZone", "Etc/UTC")
                case.policies[name] = Policy.of(Retention.model_validate(options), zone)
            case ["series", prefix, start, every, count, *words]:
                for number in range(int(count)):
                    time = moment(start) + number * timedelta(seconds=parse_duration(every))
                    case.candidates.append(_candidate("good", f"{prefix}-{time:%Y%m%d-%H%M}", time, words))
            case ["approve", word]:
                case.approved.append(Group(**dict([word.split("=")])))
            case [("good" | "failed" | "running" | "orphan") as outcome, name, at, *words]:
                case.candidates.append(_candidate(outcome, name, moment(at), words))
            case _:
                assert not line or line.startswith("#"), line
    return case


def _said(verdicts: Iterable[Verdict]) -> list[str]:
    verdicts = list(verdicts)
    width = max(len(verdict.candidate.name) for verdict in verdicts)
    return [f"{'keep' if v.keep else 'remove':6}  {v.candidate.name:{width}}  {', '.join(v.reasons)}" for v in verdicts]


def _expected(case: Case) -> str:
    verdicts = decide(case.candidates, case.policies, case.now)
    lines = ["=> verdicts", *_said(verdicts)]
    stopped = prune(case.candidates, verdicts, case.policies, {}).stopped
    tokens = {stop.group: stop.token for stop in stopped if stop.group in case.approved}
    assert len(tokens) == len(case.approved), "only what is stopped can be approved"
    for stop in prune(case.candidates, verdicts, case.policies, tokens).stopped:
        lines += [f"=> stopped: {stop.message}"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    given_part, _, expected = path.read_text().partition("=>")
    found = _expected(_read(given_part))
    if REGENERATE in os.environ:
        path.write_text(given_part.rstrip("\n") + "\n\n" + found)
    else:
        assert found == "=>" + expected, f"if this is meant, set {REGENERATE}=1 once, and read the diff"


def test_there_are_golden_files() -> None:
    assert len(GOLDEN) >= 20


@pytest.mark.parametrize(
    ("stem", "lines"),
    [("worked-example", slice(None)), ("ttl", slice(None)), ("held-by-a-failed-run", slice(0, None, 2))],
    ids=str,
)
def test_the_page_shows_what_the_code_says(stem: str, lines: slice) -> None:
    page = (ROOT / "docs" / "retention.md").read_text()
    case = _read((GOLDEN[0].parent / f"{stem}.txt").read_text().partition("=>")[0])
    assert "```\n" + "\n".join(_said(decide(case.candidates, case.policies, case.now))[lines]) + "\n```" in page


def test_the_page_shows_a_prune_that_stopped() -> None:
    page = (ROOT / "docs" / "retention.md").read_text()
    case = _read((GOLDEN[0].parent / "breaker.txt").read_text().partition("=>")[0])
    stopped = prune(case.candidates, decide(case.candidates, case.policies, case.now), case.policies, {}).stopped
    (many,) = [stop for stop in stopped if stop.group.schedule == "many"]
    assert f"```\n{many.message}\n```" in page
    assert page.count(many.token) == 2


def test_the_page_shows_the_worked_examples_rules_and_what_goes_next() -> None:
    page = (ROOT / "docs" / "retention.md").read_text()
    case = _read((GOLDEN[0].parent / "worked-example.txt").read_text().partition("=>")[0])
    spec = next(document["spec"] for document in yaml.safe_load_all(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0]))
    assert {"nightly": Policy.of(Retention.model_validate(spec["retention"]), spec["timeZone"])} == case.policies
    left = [verdict.candidate for verdict in decide(case.candidates, case.policies, case.now) if verdict.keep]
    due = parse(spec["schedule"], spec["timeZone"]).next(case.now)
    (entry,) = next_removals(left, case.policies, "nightly", case.now, due)
    assert f"next:\n  - name: {entry.candidate.name}\n    reason: {entry.reason}\n```" in page


def backup(name: str, time: datetime, schedule: str | None = "nightly", **changes: object) -> Candidate:
    return replace(Candidate(name, f"uid-{name}", "default", "db:5432/app", None, time, "good", schedule), **changes)  # type: ignore[arg-type]


def run(days_ago: float, schedule: str | None = "nightly", **changes: object) -> Candidate:
    return backup(f"run-{days_ago}", NOW - days_ago * DAY, schedule, **changes)


def removed(candidates: Iterable[Candidate], policies: dict[str, Policy], now: datetime = NOW) -> set[str]:
    return {verdict.candidate.name for verdict in decide(candidates, policies, now) if not verdict.keep}


def test_two_years_night_by_night() -> None:
    """What is left when retention ran after each run: seven days, five Sundays, and the last night
    of each month, of a leap February too."""
    policy = {"nightly": Policy(keep_daily=7, keep_weekly=5, keep_monthly=24, time_zone="Europe/Berlin")}
    cron = parse("0 3 * * *", "Europe/Berlin")
    left: list[Candidate] = []
    due = moment("2026-12-31T12:00Z")
    while due < moment("2028-12-31T00:00Z"):
        due = cron.next(due)
        left.append(backup(f"{due.astimezone(ZoneInfo('Europe/Berlin')):%Y-%m-%d}", due))
        gone = removed(left, policy, due)
        left = [candidate for candidate in left if candidate.name not in gone]
        assert len(gone) <= 2
        assert len(left) <= 36
    names = [candidate.name for candidate in left]
    assert {"2028-02-29", "2028-04-30", "2027-02-28", "2027-01-31"} <= set(names)
    assert names[-7:] == [f"2028-12-{day}" for day in range(25, 32)]
    assert {"2028-12-03", "2028-12-10", "2028-12-17", "2028-12-24"} <= set(names)
    assert len(names) == 23 + 4 + 7


def test_a_zone_that_is_not_known_removes_nothing_by_rules() -> None:
    policies = {"nightly": Policy(keep_last=1, time_zone="Mars/Olympus")}
    verdicts = decide([run(1), run(2), run(3, expires_at=NOW)], policies, NOW)
    assert [verdict.keep for verdict in verdicts] == [True, True, False], "its own expiry needs no zone"
    assert verdicts[1].reasons[0].startswith('not decided: time zone "Mars/Olympus" is unknown')


def test_policy_of_a_spec() -> None:
    retention = Retention.model_validate({"keepLast": 1, "keepYearly": 2, "minKeep": 3, "maxPruneShare": 20})
    assert Policy.of(retention, "Europe/Berlin") == Policy(keep_last=1, keep_yearly=2, min_keep=3, max_prune_share=20, time_zone="Europe/Berlin")
    assert Policy.of(Retention(), "Etc/UTC") == Policy()
    assert not Policy().keeps
    for rule in ("last", "hourly", "daily", "weekly", "monthly", "yearly"):
        assert Policy(**{f"keep_{rule}": 1}).keeps  # type: ignore[arg-type]


def test_ten_thousand_are_decided_quickly() -> None:
    """Work is counted, and CPU time has a bound that only work which grows with the square of their
    number reaches: neither depends on how busy the machine is."""
    policies = {f"s{n}": Policy(3, 24, 7, 5, 12, 3, time_zone="Europe/Berlin") for n in range(20)}
    many = [
        backup(f"b{n}", NOW - timedelta(hours=n // 20), f"s{n % 20}", identity=f"db:5432/app{n % 20}", expires_at=NOW + timedelta(hours=n))
        for n in range(10_000)
    ]

    def decided(count: int) -> int:
        verdicts = decide(many[:count], policies, NOW)
        prune(many[:count], verdicts, policies, {})
        return len(verdicts)

    for count in (200, 2000):
        assert calls(lambda: decided(count)) < 60 * count  # noqa: B023 - called at once
    before = process_time()
    assert decided(10_000) == 10_000
    assert process_time() - before < 5


SHARE = {"nightly": Policy(keep_last=1)}
NIGHTLY = Group(schedule="nightly")


def test_the_breaker_stops_the_group_whole_and_others_not() -> None:
    mine = [run(day) for day in range(10)]
    hand = [run(100 + day, schedule=None, identity="x:5432/y", expires_at=NOW) for day in range(4)]
    pruning = prune([*mine, *hand], decide([*mine, *hand], SHARE, NOW), SHARE, {})
    assert {verdict.candidate for verdict in pruning.removals} == set(hand[1:])
    (stopped,) = pruning.stopped
    assert (stopped.group, stopped.good, stopped.share) == (NIGHTLY, 10, 50)
    assert set(stopped.names) == {candidate.name for candidate in mine[1:]}
    assert stopped.token == hashlib.sha256("\n".join(sorted(candidate.name for candidate in mine[1:])).encode()).hexdigest()[:8]
    assert "9 of the 10 good backups of this schedule" in stopped.message
    assert f"dbs/nightly dbbackup.io/approve-prune={stopped.token}" in stopped.message


def test_orphans_are_the_storages_though_their_schedule_is_there() -> None:
    mine = [run(0), *(run(day, orphan=True, expires_at=NOW) for day in range(1, 6))]
    (stopped,) = prune(mine, decide(mine, SHARE, NOW), SHARE, {}).stopped
    assert (stopped.group, stopped.good, len(stopped.names)) == (Group(storage="default"), 5, 5)
    assert "5 of the 5 good backups in this storage that no schedule governs" in stopped.message
    assert f"bst/default dbbackup.io/approve-prune={stopped.token}" in stopped.message


def test_an_approval_counts_for_what_was_shown_and_nothing_else() -> None:
    mine = [run(day) for day in range(10)]
    (stopped,) = prune(mine, decide(mine, SHARE, NOW), SHARE, {}).stopped
    approved = {NIGHTLY: stopped.token}
    assert len(prune(mine, decide(mine, SHARE, NOW), SHARE, approved).removals) == 9
    assert not prune(mine, decide(mine, SHARE, NOW), SHARE, {Group(storage="default"): stopped.token}).removals, "of another group"
    more = [*mine, run(-1)]
    (again,) = prune(more, decide(more, SHARE, NOW), SHARE, approved).stopped
    assert again.token != stopped.token


@pytest.mark.parametrize("marked", range(1, 9))
def test_an_approved_prune_that_was_cut_short_goes_on(marked: int) -> None:
    mine = [run(day) for day in range(10)]
    (stopped,) = prune(mine, decide(mine, SHARE, NOW), SHARE, {}).stopped
    rest = [replace(candidate, outcome="going") if 0 < at <= marked else candidate for at, candidate in enumerate(mine)]
    rest.append(run(20, outcome="failed"))
    verdicts = decide(rest, SHARE, NOW)
    pruning = prune(rest, verdicts, SHARE, {NIGHTLY: stopped.token})
    assert [verdict.candidate for verdict in pruning.removals] == rest[marked + 1 : -1]
    if len(pruning.removals) > 3:
        assert prune(rest, verdicts, SHARE, {}).stopped, "it was the approval"


def test_what_is_going_shields_nothing() -> None:
    mine = [run(0, outcome="going"), run(1), run(2)]
    assert removed(mine, SHARE) == {"run-2"}
    assert [verdict.candidate for verdict in decide(mine, SHARE, NOW)] == mine[1:], "there is nothing left to say of it"


@pytest.mark.parametrize(
    ("run_time", "held"),
    [(NOW, True), (NOW - DAY, True), (NOW - 1.01 * DAY, False)],
    ids=["after the newest good one", "at the same moment", "before it"],
)
def test_a_failed_run_holds_until_a_good_one_follows(run_time: datetime, held: bool) -> None:
    mine = [run(1), run(2), backup("failed", run_time, outcome="failed")]
    assert removed(mine, SHARE) == (set() if held else {"run-2"})
    assert [verdict.held for verdict in decide(mine, SHARE, NOW)] == [False, held]


def test_a_failed_run_of_another_group_holds_nothing() -> None:
    both = {**SHARE, "weekly": Policy()}
    for failed in (
        run(0, outcome="failed", schedule="weekly"),
        run(0, outcome="failed", schedule=None),
        run(0, outcome="failed", schedule="gone"),
        run(0, outcome="failed", identity="db:5432/crm"),
        run(0, outcome="failed", identity="db:5432/crm", database="app"),
        run(0, outcome="failed", identity=None, database="ap"),
        run(0, outcome="running", identity=None),
    ):
        assert removed([run(1), run(2), failed], both) == {"run-2"}, failed
    elsewhere = run(0, outcome="failed", schedule=None, storage="other")
    mine = [run(1, schedule=None), run(2, schedule=None, expires_at=NOW)]
    assert removed([*mine, elsewhere], {}) == {"run-2"}
    assert removed([*mine, replace(elsewhere, storage="default")], {}) == set()


def test_the_newest_failed_run_counts_whatever_the_order() -> None:
    failed = [run(0, outcome="failed"), run(3, outcome="failed")]
    for order in (failed, failed[::-1]):
        assert removed([run(1), run(2), *order], SHARE) == set()


def test_runs_of_a_schedule_that_is_gone_count_with_those_made_by_hand() -> None:
    mine = [run(1, "gone", expires_at=NOW), run(2, "gone", expires_at=NOW)]
    assert removed([*mine, run(0, None, outcome="failed")], SHARE) == set()
    assert removed([*mine, run(0, "gone", outcome="failed")], SHARE) == set()
    assert removed([*mine, run(0, "gone", outcome="failed", identity=None)], SHARE) == {"run-2"}, "no schedule is there whose database it could be"


def test_an_orphan_neither_lifts_a_hold_nor_escapes_it() -> None:
    orphan = run(0, orphan=True, expires_at=NOW - DAY)
    mine = [run(2), run(3), run(1, outcome="failed")]
    assert removed([*mine, orphan], SHARE) == set()
    late = run(2.5, orphan=True, expires_at=NOW)
    assert removed([run(2), run(3), late], SHARE) == {"run-3", "run-2.5"}
    assert removed([*mine, late], SHARE) == set()


def test_failed_history_counts_each_database_and_goes_from_the_oldest() -> None:
    failed = [run(day, outcome="failed", identity=None) for day in range(1, 6)]
    failed += [backup(f"crm-{day}", NOW - day * DAY, outcome="failed", identity="db:5432/crm") for day in range(1, 3)]
    failed += [backup(f"crm-early-{day}", NOW - day * DAY, outcome="failed", identity=None, database="crm") for day in range(3, 5)]
    others = [run(9, outcome="failed", schedule="weekly"), run(9.5, outcome="running"), run(0)]
    assert [c.name for c in failed_history([*failed, *others], "nightly", 2)] == ["run-5", "crm-early-4", "run-4", "crm-early-3", "run-3"]
    assert [c.name for c in failed_history([*failed, *others], "nightly", 5)] == []


def test_the_failed_run_that_holds_stays_in_the_history() -> None:
    mine = [run(3), run(4), run(2, outcome="failed"), run(1, outcome="failed", identity=None)]
    assert [c.name for c in failed_history(mine, "nightly", 0)] == ["run-2"]
    assert [c.name for c in failed_history([*mine, run(0)], "nightly", 0)] == ["run-2", "run-1"], "a good one has followed"


def upcoming(candidates: Sequence[Candidate], policy: Policy, due: datetime | None, count: int = 5) -> list[tuple[str, datetime | None, str]]:
    found: list[Upcoming] = next_removals(candidates, {"nightly": policy}, "nightly", NOW, due, count)
    return [(entry.candidate.name, entry.when, entry.reason) for entry in found]


def test_next_removals_by_rules() -> None:
    mine = [run(day) for day in range(1, 5)]
    assert upcoming(mine, Policy(keep_daily=4), NOW + DAY) == [("run-4", None, "no rule keeps it")]
    assert upcoming(mine, Policy(keep_daily=5), NOW + DAY) == []
    assert upcoming(mine, Policy(keep_daily=3), NOW + DAY) == [("run-4", NOW, "no rule keeps it"), ("run-3", None, "no rule keeps it")]
    assert upcoming(mine, Policy(keep_daily=3), None) == [("run-4", NOW, "no rule keeps it")], "nothing is to come"
    assert upcoming(mine, Policy(keep_monthly=1), NOW + 7 * DAY)[-1] == ("run-1", None, "no rule keeps it"), "in the zone's next month"


def test_next_removals_by_expiry() -> None:
    mine = [run(day, expires_at=NOW + (10 - day) * DAY) for day in range(1, 9)]
    expected = [(f"run-{day}", NOW + (10 - day) * DAY, f"expired {NOW + (10 - day) * DAY:%Y-%m-%d %H:%MZ}") for day in (8, 7, 6, 5, 4)]
    assert upcoming(mine, Policy(), NOW + DAY) == expected
    assert upcoming(mine, Policy(), None) == expected
    assert upcoming(mine, Policy(), NOW + DAY, count=2) == expected[:2]
    assert upcoming(mine[:1], Policy(), None) == [], "the newest stays while no other comes"
    soon = run(1, expires_at=NOW + timedelta(hours=6))
    assert upcoming([soon], Policy(), NOW + DAY) == [("run-1", None, "expired 2026-11-24 18:00Z")], "then the next good one takes its place"
    both = [soon, run(2, expires_at=NOW + timedelta(hours=7))]
    assert upcoming(both, Policy(), NOW + DAY)[0] == ("run-2", NOW + timedelta(hours=7), "expired 2026-11-24 19:00Z"), "without waiting for it"
    pinned = replace(mine[-1], pinned=True)
    assert upcoming([run(1), pinned], Policy(), NOW + DAY) == []


def test_next_removals_that_are_held() -> None:
    mine = [run(1), run(2), run(0.5, outcome="failed")]
    said = [("run-2", None, "held: the newest run of the schedule failed (run-0.5); would go: no rule keeps it"), ("run-1", None, "no rule keeps it")]
    assert upcoming(mine, Policy(keep_last=1), NOW + DAY) == said
    assert upcoming(mine, Policy(keep_last=1), None) == said[:1]
    later = [replace(candidate, expires_at=NOW + DAY) for candidate in mine]
    assert upcoming(later, Policy(), None) == [], "nobody can say, while no run is to come"
    assert [name for name, _, _ in upcoming(later, Policy(), NOW + 2 * DAY)] == ["run-2", "run-1"]


def test_next_removals_are_the_schedules_own() -> None:
    other = [run(day, schedule="weekly", expires_at=NOW + DAY) for day in (5, 6)]
    hand = [run(7, schedule=None, expires_at=NOW - DAY), run(8, orphan=True, expires_at=NOW - DAY)]
    newer = backup("by-hand", NOW, schedule=None)
    assert upcoming([run(1), run(2, expires_at=NOW + 9 * DAY), *other, *hand, newer], Policy(), NOW + DAY) == [
        ("run-2", NOW + 9 * DAY, "expired 2026-12-03 12:00Z")
    ]


def _any(number: int) -> Candidate:
    """A candidate by its number: quicker than a strategy for each field."""

    def pick(*choices: object) -> Any:
        nonlocal number
        number, at = divmod(number, len(choices))
        return choices[at]

    return Candidate(
        name="",
        uid="",
        storage=pick("a", "b"),
        identity=pick("db:5432/app", "db:5432/app", "db:5432/crm", None),
        database=pick(None, "app"),
        outcome=pick(*["good"] * 13, "failed", "running", "going"),
        schedule=pick(None, "nightly", "nightly", "nightly", "weekly", "gone"),
        pinned=pick(*[False] * 7, True),
        in_use=pick(*[None] * 7, "DatabaseRestore undo"),
        orphan=pick(*[False] * 5, True),
        expires_at=pick(None, *(NOW + days * DAY for days in range(-12, 12))),
        time=NOW - pick(DAY, DAY / 24) * pick(*range(100)),
    )


CANDIDATE = st.integers(0, 2**40).map(_any)
SETS = st.lists(CANDIDATE, max_size=40).map(lambda found: [replace(c, name=f"n{at}", uid=f"u{at}") for at, c in enumerate(found)])
COUNTS = st.none() | st.integers(1, 4)
POLICY = st.builds(
    Policy, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.integers(1, 3), st.integers(1, 100), st.sampled_from(["Etc/UTC", "Europe/Berlin"])
)
POLICIES = st.fixed_dictionaries({"nightly": POLICY, "weekly": POLICY})
PROPERTIES = settings(max_examples=60)


def goes(candidates: Iterable[Candidate], policies: dict[str, Policy], now: datetime = NOW) -> list[Candidate]:
    return [verdict.candidate for verdict in decide(candidates, policies, now) if not verdict.keep]


@PROPERTIES
@given(SETS, POLICIES)
def test_the_newest_good_one_always_stays(candidates: list[Candidate], policies: dict[str, Policy]) -> None:
    gone = {candidate.uid for candidate in goes(candidates, policies)}
    good = [c for c in candidates if c.outcome == "good" and c.identity is not None]
    for storage, identity in {(c.storage, c.identity) for c in good}:
        for orphans in (False, True):
            mine = [c for c in good if (c.storage, c.identity) == (storage, identity) and (orphans or not c.orphan)]
            if mine:
                assert max(mine, key=lambda c: c.age).uid not in gone


@PROPERTIES
@given(SETS, POLICIES)
def test_a_backup_that_is_pinned_read_or_unknown_stays(candidates: list[Candidate], policies: dict[str, Policy]) -> None:
    verdicts = decide(candidates, policies, NOW)
    assert sorted(v.candidate.uid for v in verdicts) == sorted(c.uid for c in candidates if c.outcome == "good"), "one verdict each"
    for verdict in verdicts:
        assert verdict.reasons
        assert all(verdict.reasons)
        if verdict.candidate.pinned or verdict.candidate.in_use or verdict.candidate.identity is None:
            assert verdict.keep


@PROPERTIES
@given(SETS, POLICIES)
def test_min_keep_holds(candidates: list[Candidate], policies: dict[str, Policy]) -> None:
    gone = {candidate.uid for candidate in goes(candidates, policies)}
    for name, policy in policies.items():
        good = [c for c in candidates if c.outcome == "good" and c.schedule == name and c.identity is not None and not c.orphan]
        for identity in {c.identity for c in good}:
            mine = sorted((c for c in good if c.identity == identity), key=lambda c: c.age)
            assert not gone & {c.uid for c in mine[-policy.min_keep :]}


@PROPERTIES
@given(SETS, POLICIES, st.data())
def test_deciding_again_removes_no_more(candidates: list[Candidate], policies: dict[str, Policy], data: st.DataObject) -> None:
    """After the whole removal, nothing; after a part of it, the rest."""
    gone = goes(candidates, policies)
    done = data.draw(st.sets(st.sampled_from(gone))) if gone else set()
    for after in ([c for c in candidates if c not in done], [replace(c, outcome="going") if c in done else c for c in candidates]):
        assert goes(after, policies) == [candidate for candidate in gone if candidate not in done]


@PROPERTIES
@given(SETS, POLICIES, st.integers(0, 120))
def test_what_has_expired_stays_expired(candidates: list[Candidate], policies: dict[str, Policy], days: int) -> None:
    later = {candidate.uid for candidate in goes(candidates, policies, NOW + days * DAY)}
    for verdict in decide(candidates, policies, NOW):
        if not verdict.keep and verdict.reasons[0].startswith("expired"):
            assert verdict.candidate.uid in later
    cleared: dict[str, Any] = dict.fromkeys(RULES)
    without_rules = {name: replace(policy, **cleared) for name, policy in policies.items()}
    assert {candidate.uid for candidate in goes(candidates, without_rules)} <= {c.uid for c in goes(candidates, without_rules, NOW + days * DAY)}


RULES = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


@PROPERTIES
@given(SETS, POLICIES, st.sampled_from([*RULES, "min_keep"]), st.integers(1, 5))
def test_raising_a_count_removes_no_more(candidates: list[Candidate], policies: dict[str, Policy], rule: str, more: int) -> None:
    before = {candidate.uid for candidate in goes(candidates, policies)}
    count = getattr(policies["nightly"], rule)
    if count is None and not policies["nightly"].keeps:
        return
    change: dict[str, Any] = {rule: (count or 0) + more}
    raised = {**policies, "nightly": replace(policies["nightly"], **change)}
    assert {candidate.uid for candidate in goes(candidates, raised)} <= before


@PROPERTIES
@given(SETS, POLICIES)
def test_the_breaker_only_ever_takes_away(candidates: list[Candidate], policies: dict[str, Policy]) -> None:
    verdicts = decide(candidates, policies, NOW)
    gone = [verdict for verdict in verdicts if not verdict.keep]
    pruning = prune(candidates, verdicts, policies, {})
    assert sorted([v.candidate.name for v in pruning.removals] + [name for stop in pruning.stopped for name in stop.names]) == sorted(
        v.candidate.name for v in gone
    )
    for stop in pruning.stopped:
        assert len(stop.names) > 3
        assert 100 * len(stop.names) > stop.share * stop.good
    approved = {stop.group: stop.token for stop in pruning.stopped}
    assert list(prune(candidates, verdicts, policies, approved).removals) == gone


@PROPERTIES
@given(SETS, POLICIES, st.none() | st.integers(1, 60))
def test_next_removals_say_what_comes(candidates: list[Candidate], policies: dict[str, Policy], days: int | None) -> None:
    due = NOW + days * DAY if days else None
    said = next_removals(candidates, policies, "nightly", NOW, due, count=1000)
    now = {candidate.uid for candidate in goes(candidates, policies) if candidate.schedule == "nightly" and not candidate.orphan}
    assert {entry.candidate.uid for entry in said if entry.when == NOW} >= now
    assert len({entry.candidate.uid for entry in said}) == len(said)
    for entry in said:
        assert not entry.candidate.pinned
        assert entry.when is None or entry.when == NOW or entry.when == entry.candidate.expires_at
