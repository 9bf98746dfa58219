"""Metrics of objects: from synthetic ones, with bounded labels, and the same by whichever
process asks."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dbbackup.api.conditions import timestamp
from dbbackup.contract.errors import REASONS
from dbbackup.handlers.cache import Cache
from dbbackup.metrics import catalog, families, page, records
from dbbackup.metrics.catalog import Metric
from dbbackup.metrics.process import ProcessMetrics

Raw = dict[str, Any]
T0 = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)  # a Monday
DAY = timedelta(days=1)
SHOP = "db:5432/shop"


def obj(kind: str, name: str, spec: Raw | None = None, status: Raw | None = None, **metadata: Any) -> Raw:
    fields = {"name": name, "namespace": "ns", "uid": f"{kind}/{name}", "resourceVersion": "1", "creationTimestamp": timestamp(T0), **metadata}
    return {"apiVersion": "dbbackup.io/v1", "kind": kind, "metadata": fields, "spec": spec or {}, "status": status or {}}


def backup(
    at: datetime,
    phase: str = "Completed",
    *,
    schedule: str = "nightly",
    identity: str = SHOP,
    size: int = 1000,
    seconds: float = 60,
    reason: str = "",
    target: str = "",
    **metadata: Any,
) -> Raw:
    """A backup of the run that was due at that time."""
    status: Raw = {"phase": phase, "startTime": timestamp(at + timedelta(seconds=5))}
    if phase in ("Completed", "Failed"):
        status["completionTime"] = timestamp(at + timedelta(seconds=5 + seconds))
    if phase == "Completed":
        status["sizeBytes"] = size
    if identity:
        status["database"] = {"identity": identity}
    if reason:
        status["failure"] = {"reason": reason, "message": "words of a server, as long as they like"}
    labels = {"dbbackup.io/schedule": schedule} if schedule else {}
    annotations = {"dbbackup.io/scheduled-at": timestamp(at)} if schedule else {}
    name = f"{schedule or 'hand'}-{at:%Y%m%d-%H%M}-{identity}-{target}"
    found = {"creationTimestamp": timestamp(at + timedelta(seconds=1)), "labels": labels, "annotations": annotations, **metadata}
    return obj("DatabaseBackup", name, {"database": {"name": target} if target else {}}, status, **found)


def schedule(name: str = "nightly", *, considered: datetime = T0, created: datetime = T0 - 30 * DAY, status: Raw | None = None, **spec: Any) -> Raw:
    cron = spec.pop("schedule", "0 3 * * *")
    annotations = spec.pop("annotations", {})
    full_status = {"consideredUntil": timestamp(considered), "effectiveSchedule": f"{cron} ({spec.get('timeZone', 'Etc/UTC')})", **(status or {})}
    template = {"spec": {"database": {"secretRef": {"name": "db"}}}}
    whole = {"schedule": cron, "template": template, **spec}
    return obj("DatabaseBackupSchedule", name, whole, full_status, creationTimestamp=timestamp(created), annotations=annotations)


def collected(objects: Iterable[Raw], now: datetime = T0 + timedelta(hours=1), limit: int = 2000) -> Mapping[str, families.Series]:
    return families.collect([records.record(found) for found in objects], now.timestamp(), limit)


def of(objects: Iterable[Raw], metric: Metric, **more: Any) -> families.Series:
    return collected(objects, **more)[metric.name]


def at(moment: datetime) -> float:
    return moment.timestamp()


# Backups


def test_the_newest_good_backup_and_the_median_of_those_before_it() -> None:
    sizes = [100, 110, 120, 5000, 130]
    made = [backup(T0 - number * DAY, size=size, seconds=size) for number, size in enumerate(sizes)]
    made.append(backup(T0 + timedelta(hours=1), "Failed", reason="DatabaseUnreachable"))
    series = collected([schedule(considered=T0 + timedelta(hours=1)), *reversed(made)])
    key = ("ns", "nightly", SHOP)
    assert series[catalog.LAST_SUCCESS.name] == {key: at(T0 + timedelta(seconds=105))}
    assert series[catalog.LAST_SIZE.name] == {key: 100}
    assert series[catalog.LAST_DURATION.name] == {key: 100}
    assert series[catalog.HISTORY.name] == {key: 4}
    assert series[catalog.TYPICAL_SIZE.name] == {key: 125}, "the median of 110, 120, 130 and 5000"
    assert series[catalog.TYPICAL_DURATION.name] == {key: 125}
    assert not series[catalog.RUNNING_SINCE.name]


def test_the_median_is_of_ten_at_most() -> None:
    made = [backup(T0 - number * DAY, size=10 if number <= 10 else 99) for number in range(30)]
    assert of([schedule(), *made], catalog.HISTORY) == {("ns", "nightly", SHOP): 10}
    assert of([schedule(), *made], catalog.TYPICAL_SIZE) == {("ns", "nightly", SHOP): 10}


def test_what_was_good_and_is_lost_counts_no_more() -> None:
    before, lost = backup(T0 - DAY), backup(T0, "Failed", reason="ArtifactMissing")
    assert of([schedule(), before, lost], catalog.LAST_SUCCESS) == {("ns", "nightly", SHOP): at(T0 - DAY + timedelta(seconds=65))}
    assert of([schedule(), before, lost], catalog.FAILED_BACKUPS) == {("ns", "nightly", "ArtifactMissing"): 1}


def test_a_failure_that_never_met_its_database_is_of_the_one_that_its_schedule_knows() -> None:
    made = [backup(T0 - DAY), backup(T0, "Failed", identity="", reason="SecretMissing")]
    assert set(of([schedule(), *made], catalog.LAST_SUCCESS)) == {("ns", "nightly", SHOP)}
    assert set(of([schedule(), *made], catalog.EXPECTED_SINCE)) == {("ns", "nightly", SHOP)}
    several = [backup(T0 - DAY, identity=f"db:5432/{name}", target=name) for name in "ab"]
    several += [backup(T0, "Running", identity="", target=name) for name in "ab"]
    running = of([schedule(), *several], catalog.RUNNING_SINCE)
    assert running == {("ns", "nightly", f"db:5432/{name}"): at(T0 + timedelta(seconds=5)) for name in "ab"}


def test_a_database_that_a_schedule_no_longer_backs_up_has_no_series() -> None:
    made = [backup(T0 - DAY, identity="db:5432/gone", target="gone"), backup(T0 - DAY), backup(T0)]
    assert set(of([schedule(), *made], catalog.LAST_SUCCESS)) == {("ns", "nightly", SHOP)}
    half_made = schedule(considered=T0 - timedelta(minutes=1))
    assert len(of([half_made, *made], catalog.LAST_SUCCESS)) == 2, "as long as not all backups of the run are made"
    assert not of(made, catalog.LAST_SUCCESS), "nor what a schedule has left that is gone itself"
    by_hand = [backup(T0 - DAY, schedule="", identity="db:5432/old"), backup(T0, schedule="")]
    assert len(of(by_hand, catalog.LAST_SUCCESS)) == 2


def test_imported_backups_belong_to_the_run_in_their_name() -> None:
    imported = [backup(T0 - DAY, identity=f"db:5432/{name}", annotations={}) for name in "ab"]
    imported[0]["metadata"]["creationTimestamp"] = timestamp(T0 - DAY + timedelta(seconds=3))
    assert len(of([schedule(), *imported], catalog.LAST_SUCCESS)) == 2, "both databases of the newest run"


def test_since_when_there_should_be_a_backup() -> None:
    assert of([schedule(created=T0)], catalog.EXPECTED_SINCE) == {("ns", "nightly", ""): at(T0)}
    series = of([schedule(created=T0 - 5 * DAY), backup(T0 - DAY), backup(T0)], catalog.EXPECTED_SINCE)
    assert series == {("ns", "nightly", SHOP): at(T0 - DAY)}, "a database that came later"
    failed = [backup(T0 - number * timedelta(hours=1), "Failed", reason="Timeout") for number in range(3)]
    assert of([schedule(created=T0 - 5 * DAY), *failed[:2]], catalog.EXPECTED_SINCE) == {("ns", "nightly", SHOP): at(T0 - timedelta(hours=1))}
    always = of([schedule(created=T0 - 5 * DAY), *failed], catalog.EXPECTED_SINCE)
    assert always == {("ns", "nightly", SHOP): at(T0 - 5 * DAY)}, "failedHistoryLimit has removed those before"
    assert of([schedule(created=T0 - 5 * DAY), *failed], catalog.UNPROTECTED_SINCE) == {("ns", SHOP): at(T0 - 5 * DAY)}
    assert not of([backup(T0, schedule="")], catalog.EXPECTED_SINCE)


def test_what_is_in_no_good_backup_counts_backups_by_hand_and_of_other_schedules() -> None:
    world = [schedule(), schedule("weekly", schedule="0 4 * * 0"), backup(T0 - 3 * DAY), backup(T0, "Failed", reason="Timeout")]
    assert of(world, catalog.UNPROTECTED_SINCE) == {("ns", SHOP): at(T0 - 3 * DAY + timedelta(seconds=5))}
    by_hand = backup(T0 - DAY, schedule="")
    assert of([*world, by_hand], catalog.UNPROTECTED_SINCE) == {("ns", SHOP): at(T0 - DAY + timedelta(seconds=5))}
    assert of([*world, backup(T0, schedule="weekly")], catalog.UNPROTECTED_SINCE) == {("ns", SHOP): at(T0 + timedelta(seconds=5))}
    never = [schedule(created=T0 - DAY), backup(T0, "Failed", reason="Timeout")]
    assert of(never, catalog.UNPROTECTED_SINCE) == {("ns", SHOP): at(T0)}
    assert not of([backup(T0, schedule="", identity="db:5432/none")], catalog.UNPROTECTED_SINCE), "nobody has asked for more"


@pytest.mark.parametrize(
    ("annotations", "allowed"),
    [([None], None), (["36h"], 36 * 3600), (["never"], math.inf), (["36 hours"], None), ([None, "2h"], 7200), (["never", "2h", "3h"], 7200)],
)
def test_the_recovery_point_objective_is_the_shortest_of_a_databases_schedules(annotations: list[str | None], allowed: float | None) -> None:
    names = [f"s{number}" for number in range(len(annotations))]
    world = [schedule(name, annotations={"dbbackup.io/rpo": rpo} if rpo else {}) for name, rpo in zip(names, annotations, strict=True)]
    world += [backup(T0, schedule=name) for name in names]
    assert of(world, catalog.RPO) == ({} if allowed is None else {("ns", SHOP): allowed})


def test_objects_by_phase() -> None:
    made = [backup(T0), backup(T0 - DAY), backup(T0 - 2 * DAY, "Failed", reason="Timeout"), backup(T0 + DAY, "Pending")]
    assert of(made, catalog.BACKUPS) == {("ns", "Completed"): 2, ("ns", "Failed"): 1, ("ns", "Pending"): 1}
    assert of(made, catalog.OBJECTS)["DatabaseBackup",] == 4
    assert of([obj("DatabaseBackup", "new")], catalog.BACKUPS) == {("ns", "Pending"): 1}


# Restores, schedules, storages


def test_restores() -> None:
    def restore(name: str, phase: str, ended: datetime, reason: str = "") -> Raw:
        status: Raw = {"phase": phase, "startTime": timestamp(ended - timedelta(seconds=30)), "completionTime": timestamp(ended)}
        return obj("DatabaseRestore", name, status={**status, **({"failure": {"reason": reason}} if reason else {})})

    made = [
        restore("a", "Failed", T0, "TargetNotEmpty"),
        restore("b", "Failed", T0 + DAY, "RestoreFailed"),
        restore("c", "Completed", T0 - DAY),
        restore("d", "Failed", T0 - DAY, "RestoreFailed"),
    ]
    series = collected(made)
    assert series[catalog.RESTORE_FAILURE.name] == {("ns", "RestoreFailed"): at(T0 + DAY)}
    assert series[catalog.RESTORE_SUCCESS.name] == {("ns",): at(T0 - DAY)}
    assert series[catalog.RESTORE_DURATION.name] == {("ns",): 30}
    assert series[catalog.FAILED_RESTORES.name] == {("ns", "RestoreFailed"): 2, ("ns", "TargetNotEmpty"): 1}
    assert series[catalog.RESTORES.name] == {("ns", "Completed"): 1, ("ns", "Failed"): 3}


def test_a_schedule_is_late_from_the_time_on_that_it_has_not_dealt_with() -> None:
    key = ("ns", "nightly")
    assert of([schedule()], catalog.NEXT_RUN) == {key: at(T0 + DAY)}
    assert of([schedule()], catalog.DELAY, now=T0 + DAY) == {key: 0}
    assert of([schedule()], catalog.DELAY, now=T0 + DAY + timedelta(minutes=7)) == {key: 420}
    jitter = schedule(jitter="10m")
    [late] = of([jitter], catalog.NEXT_RUN).values()
    assert at(T0 + DAY) < late <= at(T0 + DAY) + 600
    changed = schedule(status={"effectiveSchedule": "0 2 * * * (Etc/UTC)"})
    assert of([changed], catalog.DELAY, now=T0 + 9 * DAY) == {key: 0}, "what is due by a new schedule, the operator has not reckoned yet"
    for asleep in (schedule(suspend=True), schedule(annotations={"dbbackup.io/suspend": "true"})):
        assert of([asleep], catalog.SUSPENDED) == {key: 1}
        assert of([asleep], catalog.DELAY, now=T0 + 9 * DAY) == {key: 0}
        assert not of([asleep], catalog.NEXT_RUN)


@pytest.mark.parametrize(("cron", "hours"), [("0 3 * * *", 24), ("0 * * * *", 1), ("0 3 * * 1-5", 72), ("0 3 * * 0", 168), ("0 3 1 * *", 31 * 24)])
def test_the_longest_pause_of_a_schedule(cron: str, hours: int) -> None:
    assert of([schedule(schedule=cron)], catalog.INTERVAL) == {("ns", "nightly"): hours * 3600}


def test_a_schedules_own_figures() -> None:
    status = {"consecutiveFailures": 3, "missedRuns": 2, "lastScheduleTime": timestamp(T0)}
    series = collected([schedule(status=status)])
    key = ("ns", "nightly")
    assert [series[metric.name][key] for metric in (catalog.CONSECUTIVE, catalog.MISSED, catalog.LAST_RUN)] == [3, 2, at(T0)]
    assert [series[metric.name][key] for metric in (catalog.SUSPENDED, catalog.STALLED)] == [0, 0]
    broken = schedule(schedule="0 3 31 2 *", status={"conditions": [{"type": "Stalled", "status": "True"}]})
    assert of([broken], catalog.STALLED) == {key: 1}
    assert not of([broken], catalog.INTERVAL)


def test_a_storage() -> None:
    usage = {"artifacts": 4, "bytes": 900, "size": "900 B", "orphans": 1, "debris": 2, "uploads": 3}
    ready = [{"type": "Ready", "status": "True"}, {"type": "NearCapacity", "status": "True"}]
    full = obj("BackupStorage", "full", {"capacity": "1Ki"}, {"conditions": ready, "usage": usage, "checkedAt": timestamp(T0)})
    away = obj("BackupStorage", "away", {}, {"conditions": [{"type": "Ready", "status": "False"}], "checkFailures": 2})
    series = collected([full, away])
    found = {name.removeprefix("dbbackup_storage_"): rows for name, rows in series.items() if name.startswith("dbbackup_storage_")}
    assert {name: rows[("ns", "full")] for name, rows in found.items()} == {
        "ready": 1,
        "inventory_timestamp_seconds": at(T0),
        "check_failures": 0,
        "used_bytes": 900,
        "capacity_bytes": 1024,
        "near_capacity": 1,
        "artifacts": 4,
        "orphans": 1,
        "debris": 5,
    }
    assert {name: rows[("ns", "away")] for name, rows in found.items() if ("ns", "away") in rows} == {
        "ready": 0,
        "check_failures": 2,
        "near_capacity": 0,
    }


# Bounds


def test_labels_never_come_from_free_text() -> None:
    strange = backup(T0, "Sideways", reason="because: of\nthis")
    failed = backup(T0, "Failed", reason="NotOfThisVersion")
    assert records.backup(strange).phase == "Other"
    assert records.backup(failed).reason == "Other"
    assert records.backup(backup(T0, identity="x" * 9999)).identity == "x" * 400
    assert all(records.reason_of({"failure": {"reason": reason}}) == reason for reason in REASONS)
    bounded = {"namespace", "schedule", "database", "storage", "phase", "reason", "kind", "metric", "outcome", "verb", "resource", "code", "version"}
    assert {label for metric in catalog.ALL.values() for label in metric.labels} <= bounded


def test_a_metric_has_no_more_series_than_allowed_and_says_so() -> None:
    world = [schedule("z"), backup(T0, schedule="z")]
    world += [backup(T0, schedule="", identity=f"db:5432/{number:03d}") for number in range(50)]
    series = collected(world, limit=20)
    assert all(len(rows) <= 20 for rows in series.values())
    assert next(iter(series[catalog.LAST_SUCCESS.name])) == ("ns", "z", SHOP), "what a schedule backs up is not what is left out"
    dropped = series[catalog.DROPPED.name]
    assert dropped[(catalog.LAST_SUCCESS.name,)] == 31
    assert (catalog.BACKUPS.name,) not in dropped
    assert not of(world, catalog.DROPPED)


def test_the_text_is_what_prometheus_reads() -> None:
    strange: families.Series = {("ns", "n", 'a"b\\c\nd'): 1.5, ("ns", "", ""): math.inf, ("ns", "x", "y"): 1732449600}
    text = page.text({catalog.LAST_SUCCESS.name: strange, catalog.MISSED.name: {("ns", "n"): 7}}).decode()
    success, missed = text_string_to_metric_families(text)
    assert {tuple(sample.labels[label] for label in catalog.GROUP): sample.value for sample in success.samples} == strange
    assert (success.type, success.documentation) == ("gauge", catalog.LAST_SUCCESS.help)
    assert (missed.type, missed.samples[0].name, missed.samples[0].value) == ("counter", catalog.MISSED.name, 7)


# The page


def cache_of(objects: Iterable[Raw]) -> Cache:
    cache = Cache()
    for found in objects:
        cache.put(found)
    return cache


def page_of(cache: Cache, *, whole: Callable[[], bool] = lambda: True) -> page.MetricsPage[Any]:
    return page.MetricsPage(ProcessMetrics(100), 100, cache.all_keys, cache.get, lambda: T0 + timedelta(hours=1), whole)


def objects_part(text: bytes) -> list[str]:
    names = tuple(metric.name for metric in catalog.ALL.values() if metric.objects)
    return [line for line in text.decode().splitlines() if line.startswith(names)]


async def test_a_new_process_shows_the_same() -> None:
    cache = cache_of([schedule(), backup(T0), backup(T0 - DAY), backup(T0, schedule="")])
    first = page_of(cache)
    pages = [objects_part(await first()), objects_part(await first()), objects_part(await page_of(cache)())]
    assert pages[0] == pages[1] == pages[2]
    assert f'dbbackup_last_backup_size_bytes{{namespace="ns",schedule="nightly",database="{SHOP}"}} 1000.0' in pages[0]


async def test_an_object_is_read_once_for_each_of_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(found: Raw) -> records.Record:
        read.append(found["metadata"]["name"])
        return records.record(found)

    monkeypatch.setattr(page, "record", counted)
    cache = cache_of([schedule(), *(backup(T0 - number * DAY) for number in range(600))])
    scrape = page_of(cache)
    await asyncio.gather(scrape(), scrape())
    assert len(read) == 601
    read.clear()
    newer = backup(T0, size=7, resourceVersion="2")
    cache.put(newer)
    gone = backup(T0 - 5 * DAY)
    key = next(key for key in cache.all_keys() if key.name == gone["metadata"]["name"])
    cache.remove(key, gone["metadata"]["uid"])
    text = objects_part(await scrape())
    assert read == [newer["metadata"]["name"]]
    assert f'dbbackup_last_backup_size_bytes{{namespace="ns",schedule="nightly",database="{SHOP}"}} 7.0' in text
    assert 'dbbackup_backups{namespace="ns",phase="Completed"} 599.0' in text


async def test_objects_have_no_series_before_all_are_known() -> None:
    known = False
    scrape = page_of(cache_of([backup(T0)]), whole=lambda: known)
    assert not objects_part(await scrape())
    assert b"dbbackup_build_info" in await scrape()
    known = True
    assert objects_part(await scrape())
