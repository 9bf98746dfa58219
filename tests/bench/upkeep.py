"""What many artifacts cost: a retention decision over 10,000 of them, and an inventory of them on a
real S3 server."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.bench import finished
from tests.bench.cgroup import BenchError, measure
from tests.bench.dataplane import MEMORY_TARGET
from tests.bench.output import DIRECTORY, MIB, Output, save
from tests.bench.samples import Sample
from tests.bench.servers import BUCKET, S3, s3
from tests.integration.artifacts import PREFIX, known, objects_of, owner_of
from tests.root import ROOT

from dbbackup.api.specs import API_VERSION, parse_storage
from dbbackup.contract.run import InventoryOptions, RunSpec, StorageTarget
from dbbackup.plan import candidates, pruning, retention, storage
from dbbackup.plan.facts import Facts, Related
from dbbackup.plan.settings import Settings
from dbbackup.storage.base import Storage
from dbbackup.storage.s3 import open_storage

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TIMES = 5
DECISION_TARGET = 100
"""Milliseconds."""
GROWTH_TARGET = 16
"""MiB that an inventory of ten times as many artifacts may take more: its memory is bounded."""
USUAL = {"keepLast": 7, "keepDaily": 14, "keepWeekly": 8, "keepMonthly": 12, "maxPruneShare": 100}
EVERYTHING = dict.fromkeys(("keepLast", "keepHourly", "keepDaily", "keepWeekly", "keepMonthly", "keepYearly"), 100_000)
TRIVIAL = {"keepLast": 100_000}


# Retention


@dataclass(frozen=True, slots=True)
class Case:
    title: str
    schedules: int
    every: timedelta
    rules: dict[str, int]


CASES = (
    Case("200 schedules, daily, all four rules: most go", 200, timedelta(days=1), USUAL),
    Case("200 schedules, daily, keepLast alone: none goes", 200, timedelta(days=1), TRIVIAL),
    Case("10 schedules, hourly, all four rules: most go", 10, timedelta(hours=1), USUAL),
    Case("one schedule, hourly, six rules that keep all", 1, timedelta(hours=1), EVERYTHING),
)


def retention_decisions(output: Output, count: int) -> bool:
    """Whether decisions over `count` backups keep within the target."""
    results, rows, slowest = {}, [], 0.0
    for case in CASES:
        facts = world(case, count)
        spec, schedules = parse_storage(facts.obj), facts.related.schedules
        known_ones = [found for obj in facts.related.backups if (found := candidates.of_backup(obj, {})) is not None]
        policies = candidates.policies(schedules)
        verdicts = retention.decide(known_ones, policies, NOW)
        going = len(retention.prune(known_ones, verdicts, policies, {}).removals)

        def decision() -> object:
            return retention.prune(known_ones, retention.decide(known_ones, policies, NOW), policies, {})  # noqa: B023 - called at once

        figures = {
            "decide": best(lambda: retention.decide(known_ones, policies, NOW)),  # noqa: B023
            "decision": best(decision),
            "nextStep": best(lambda: pruning.next_step(facts, spec, pruning.judged(facts))),  # noqa: B023
            "wholeLook": best(lambda: storage.decide(facts)),  # noqa: B023
        }
        slowest = max(slowest, figures["decision"])
        results[case.title] = {"going": going, **figures}
        rows.append((case.title, str(going), *(f"{1000 * seconds:.0f}" for seconds in figures.values())))
    columns = ("", "go", "which go", "and whether they may", "next step, from objects", "whole look at a storage")
    output.grid(f"Retention over {count} backups, least of {TIMES}, milliseconds", columns, rows)
    save("retention", {"backups": count, "cases": results})
    return output.verdict(f"retention decision over {count} artifacts, slowest case", 1000 * slowest, DECISION_TARGET, unit=" ms")


def world(case: Case, count: int) -> Facts:
    """A storage that was looked at just now, with its backups and their schedules."""
    obj = {
        "apiVersion": API_VERSION,
        "kind": "BackupStorage",
        "metadata": {"name": "default", "namespace": "bench", "uid": "1", "generation": 1},
        "spec": {"s3": {"bucket": "backups", "prefix": "bench"}},
        "status": {"checkedAt": NOW.isoformat(), "checkedGeneration": 1, "conditions": []},
    }
    backups = finished.stored(finished.effects(obj, range(count), case.schedules, NOW, case.every))
    spec = {"schedule": "@daily", "template": {"spec": {"database": {"secretRef": {"name": "db"}}}}, "retention": case.rules}
    schedules = [finished.schedule(number, "bench", spec) for number in range(case.schedules)]
    settings = Settings(image="image", started_at=NOW)
    return Facts(obj=obj, now=NOW, settings=settings, related=Related(backups=backups, schedules=schedules))


def best(work: Callable[[], object]) -> float:
    """Seconds of CPU of the cheapest of a few: nothing here waits, and other work on the machine is
    not counted."""
    taken = []
    for _ in range(TIMES):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


# Inventory


def inventory(output: Output, count: int) -> bool:
    """Whether an inventory of `count` artifacts keeps within the targets."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=DIRECTORY) as name:
        directory = Path(name)
        with s3(directory) as server:
            bench = Inventories(directory, server)
            few = max(1, count // 10)
            output.tell(f"storing {count} artifacts")
            bench.fill(range(few))
            runs = {f"{few} artifacts, manifests read": bench.run(few, known_ones=False)}
            bench.fill(range(few, count))
            runs[f"{count} artifacts, manifests read"] = every = bench.run(count, known_ones=False)
            runs[f"{count} artifacts that have an object"] = bench.run(count, known_ones=True)
    columns = ("", "seconds", "CPU s", "servers' CPU s", "peak MiB", "listing calls", "manifests read", "other calls")
    output.grid("Inventory on versitygw: three objects an artifact", columns, [(title, *run.cells()) for title, run in runs.items()])
    save("inventory", {title: run.as_json() for title, run in runs.items()})
    keys = 3 * count
    most = max(run.listings for run in runs.values())
    met = output.verdict(f"listing calls for {keys} keys, after the one that looks for the bucket", most - 1, math.ceil(keys / 1000), unit="")
    if every.sample.peak:
        met &= output.verdict(f"peak memory of an inventory of {count} artifacts", every.sample.peak / MIB, MEMORY_TARGET / MIB, unit=" MiB")
        least = next(iter(runs.values())).sample.peak or 0
        met &= output.verdict(f"beyond that of {few}", (every.sample.peak - least) / MIB, GROWTH_TARGET, unit=" MiB")
    return met


@dataclass(frozen=True, slots=True)
class Counted:
    """One run, and its S3 requests by operation."""

    sample: Sample
    calls: dict[str, int]

    @property
    def listings(self) -> int:
        return self.calls.get("ListObjectsV2", 0)

    def cells(self) -> Sequence[str]:
        sample, read = self.sample, self.calls.get("GetObject", 0)
        others = sum(self.calls.values()) - self.listings - read
        peak = f"{sample.peak / MIB:.0f}" if sample.peak else "-"
        cpu, servers = (f"{seconds:.1f}" if seconds is not None else "-" for seconds in (sample.cpu, sample.facts.get("servers")))
        return (f"{sample.wall:.1f}", cpu, servers, peak, str(self.listings), str(read), str(others))

    def as_json(self) -> dict[str, Any]:
        sample = self.sample
        return {"wall": sample.wall, "cpu": sample.cpu, "peak": sample.peak, "facts": dict(sample.facts), "load": sample.load, "calls": self.calls}


class Inventories:
    """The Job of a storage that `server` holds."""

    def __init__(self, directory: Path, server: S3) -> None:
        self._job, self._server = directory / "job", server
        secret = self._job / "storage"
        secret.mkdir(parents=True)
        (secret / "accessKeyId").write_text(server.key)
        (secret / "secretAccessKey").write_text(server.secret)
        self._target = StorageTarget(name="bench", bucket=BUCKET, prefix=PREFIX, endpoint=server.endpoint, credentials_secret="s3")

    def fill(self, numbers: range) -> None:
        storage = open_storage(self._target, secret_dir=str(self._job / "storage"))
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda number: put(storage, number), numbers):
                pass

    def run(self, count: int, *, known_ones: bool) -> Counted:
        options = InventoryOptions(known=known(owner_of(number) for number in range(count)) if known_ones else "")
        spec = RunSpec(run="inventory", owner=owner_of(0, "BackupStorage"), storage=self._target, timeout_seconds=600, inventory=options)
        (self._job / "spec.json").write_text(spec.to_json())
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}", "LC_ALL": "C.UTF-8"}
        sample = measure([sys.executable, "-m", "tests.bench.counted_job", str(self._job)], environment, (self._server.group,))
        report = json.loads((self._job / "report.json").read_text())
        if report["outcome"] != "Succeeded" or report["inventory"]["artifacts"] != count:
            raise BenchError(f"the inventory of {count} artifacts: {report}")
        return Counted(sample, json.loads((self._job / "calls.json").read_text()))


def put(storage: Storage, number: int) -> None:
    for key, body in objects_of(owner_of(number), f"app-{number % 10}").items():
        storage.put(key, body, "application/octet-stream")
