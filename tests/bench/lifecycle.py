"""Many schedules that are due at the same minute, beside thousands of finished backups: how late
their runs start, and what the operator needs.

Two rounds. "As installed" has the chart's default limit and backups that really run: the pods of
the first runs compete with what starts the others. "No node" has no limit, and a nodeSelector that
no node has: every Job is made at once and none starts, so it is the control plane's work alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.bench import cgroup, finished
from tests.bench import cluster as servers
from tests.bench.api import Api, Arrival
from tests.bench.cgroup import BenchError
from tests.bench.cluster import NAMESPACE
from tests.bench.output import MIB, Output, save
from tests.e2e.lib.cluster import OPERATOR_NAMESPACE, Cluster, CommandFailed, install_operator

from dbbackup.api.metadata import OWNER_KIND

SCHEDULES = 200
LIMIT = 10
"""The chart's own default."""
LATE_TARGET = 2.0
MEMORY_TARGET = 200
AHEAD = timedelta(seconds=75)
"""For the schedules to be made and seen before they are due."""
BEFORE, AFTER = 10.0, 50.0
"""Seconds before and after the due time: the minute that is watched."""
PATIENCE = 1200.0
QUIET = 0.05
"""Share of a processor below which the operator counts as idle."""
ROUND = "bench-round"
SELECTOR = "app.kubernetes.io/name=database-backup-operator"
GROUP = f"/apis/dbbackup.io/v1/namespaces/{NAMESPACE}"
BACKUPS, PLANS, JOBS = f"{GROUP}/databasebackups", f"{GROUP}/databasebackupschedules", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
KINDS = "backupstorages,databasebackups,databasebackupschedules,databaserestores"


def schedules(output: Output, few: int, many: int) -> bool:
    """Whether the targets are met, beside `few` finished backups; memory is told of `many` too."""
    try:
        cluster = Cluster.from_environment()
        with Api.through(cluster) as api, bench_of(output, cluster, api) as bench:
            return measure(output, bench, few, many)
    except (CommandFailed, RuntimeError) as error:
        raise BenchError(str(error)) from None


def measure(output: Output, bench: Bench, few: int, many: int) -> bool:
    memory = {"no objects": bench.memory(0)}
    bench.serve()
    bench.fill(range(few))
    installed = bench.round("as installed", LIMIT, {})
    memory[f"{few} backups, {SCHEDULES} schedules"] = installed.memory
    nobody = bench.round("no node", 0, {"nodeSelector": {"dbbackup.io/bench": "no-node"}})
    bench.fill(range(few, many))
    memory[f"{many} backups, {SCHEDULES} schedules"] = bench.memory(len(bench.api.names(BACKUPS)))
    rounds = (installed, nobody)
    show(output, rounds, memory)
    save("schedules", {"rounds": [asdict(one) for one in rounds], "memory": {title: asdict(one) for title, one in memory.items()}})
    met = True
    for one in rounds:
        met &= output.verdict(f"{one.title}: DatabaseBackups after their time, p99", percentile(one.backups, 99), LATE_TARGET, unit=" s")
    told = f"{installed.title}: Jobs of the {LIMIT} that found a free slot, p99"
    met &= output.verdict(told, percentile(installed.jobs[:LIMIT], 99), LATE_TARGET, unit=" s")
    if installed.memory.working_set is not None:
        told = f"operator's memory beside {few} backups and {SCHEDULES} schedules"
        met &= output.verdict(told, installed.memory.working_set / MIB, MEMORY_TARGET, unit=" MiB")
    return met


def percentile(values: Sequence[float], of: float) -> float:
    """The least value that so many per cent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * of / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the operator's pod, None where the node is not this machine. `objects`:
    DatabaseBackups in the cluster."""

    objects: int
    working_set: int | None = None
    anonymous: int | None = None
    peak: int | None = None

    @classmethod
    def of(cls, objects: int, directory: Path | None) -> Memory:
        if directory is None:
            return cls(objects)
        figures = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
        inactive = int(figures.get("total_inactive_file", figures.get("inactive_file", "0")))
        anonymous = int(figures.get("total_rss", figures.get("anon", "0")))
        return cls(objects, cgroup.memory_now(directory) - inactive, anonymous, cgroup.memory_peak(directory))


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds after the due time, sorted: when a watch told of the objects, and their
    creationTimestamps. The figures of requests, CPU and load are those of the minute that is
    watched, `jobs` are those made in it."""

    title: str
    limit: int
    backups: list[float]
    backups_created: list[float]
    jobs: list[float]
    jobs_created: list[float]
    memory: Memory
    peak: int | None
    requests: int | None
    cpu: float | None
    busy: float
    completed: float | None = None
    outcomes: dict[str, int] = field(default_factory=dict)


@contextmanager
def bench_of(output: Output, cluster: Cluster, api: Api) -> Iterator[Bench]:
    """With the operator alone in the cluster; afterwards the namespace is gone, and the operator as
    the other parts have it."""
    output.tell("the operator, alone")
    install_operator(cluster, values=[f"maxConcurrent={LIMIT}"])
    delete_namespace(cluster)
    pod = servers.operator_pod(cluster)
    try:
        with servers.counting(cluster, pod["spec"]["serviceAccountName"]) as requests:
            yield Bench(output, cluster, api, requests)
    finally:
        output.tell(f"deleting namespace {NAMESPACE}")
        scale(cluster, 0)
        delete_namespace(cluster)
        scale(cluster, 1)
        install_operator(cluster)


def delete_namespace(cluster: Cluster) -> None:
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=900s", timeout=920)


def scale(cluster: Cluster, replicas: int) -> None:
    cluster.kubectl("-n", OPERATOR_NAMESPACE, "scale", "deployment", "-l", SELECTOR, f"--replicas={replicas}")
    if replicas:
        cluster.kubectl("-n", OPERATOR_NAMESPACE, "rollout", "status", "deployment", "-l", SELECTOR, "--timeout=120s", timeout=140)
    else:
        cluster.kubectl("-n", OPERATOR_NAMESPACE, "wait", "--for=delete", "pod", "-l", SELECTOR, "--timeout=120s", timeout=140)


class Bench:
    def __init__(self, output: Output, cluster: Cluster, api: Api, requests: Callable[[], int | None]) -> None:
        self.output, self.cluster, self.api, self._requests = output, cluster, api, requests
        found = json.loads(cluster.kubectl("get", KINDS, "-A", "-o", "json"))["items"]
        if found:
            output.tell(f"{len(found)} objects of the operator's kinds are in other namespaces: the figures are with them")
        scale(cluster, 0)
        scale(cluster, 1)

    def serve(self) -> None:
        """PostgreSQL, an S3 server, the demo's database, and a storage that is Ready."""
        servers.serve(self.cluster)
        servers.load(self.cluster)
        self.cluster.kubectl("-n", NAMESPACE, "wait", "backupstorage/default", "--for=condition=Ready", "--timeout=120s", timeout=140)

    def fill(self, numbers: range) -> None:
        """Finished backups, made while the operator is away: it lists them as it does after every
        start."""
        self.output.tell(f"{len(numbers)} finished backups")
        scale(self.cluster, 0)
        storage = json.loads(self.cluster.kubectl("-n", NAMESPACE, "get", "backupstorage", "default", "-o", "json"))
        newest = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        made = finished.effects(storage, numbers, SCHEDULES, newest, timedelta(days=1))
        self.api.create(BACKUPS, [(dict(effect.obj), dict(effect.status or {})) for effect in made])
        scale(self.cluster, 1)

    def memory(self, objects: int, until: float | None = None) -> Memory:
        """Once it is idle, at the latest at `until`."""
        self._settle(time.time() + PATIENCE if until is None else until)
        return Memory.of(objects, self._group("memory"))

    def round(self, title: str, limit: int, job: dict[str, Any]) -> Round:
        """All schedules due at one minute; at most `limit` Jobs at a time, 0 for any number."""
        self.output.tell(f"{SCHEDULES} schedules, {title}")
        if limit != LIMIT:
            install_operator(self.cluster, values=[f"maxConcurrent={limit}"])
        label = title.replace(" ", "-")
        due = (datetime.now(UTC) + AHEAD + timedelta(minutes=1)).replace(second=0, microsecond=0)
        self._schedule(due, label, job)
        names = self._await_seen(due)
        memory = self.memory(len(self.api.names(BACKUPS)), due.timestamp() - BEFORE)
        self._sleep_until(due.timestamp() - BEFORE)
        backups, watching = self.api.watch(BACKUPS, int(BEFORE + AFTER), lambda metadata: metadata.get("labels", {}).get(ROUND) == label)
        jobs, too = self.api.watch(JOBS, int(BEFORE + AFTER), lambda metadata: metadata.get("annotations", {}).get(OWNER_KIND) == "DatabaseBackup")
        requests, cpu, busy, began = self._requests(), self._cpu(), cgroup.machine_busy(), time.monotonic()
        self._sleep_until(due.timestamp() + AFTER)
        busy = (cgroup.machine_busy() - busy) / (time.monotonic() - began)
        cpu_after, requests_after = self._cpu(), self._requests()
        for thread in (watching, too):
            thread.join()
        if len(backups) != len(names):
            raise BenchError(f"{len(backups)} of {len(names)} due runs were made within {AFTER:.0f} s")
        completed, outcomes = (None, {}) if job else self._await_end(label, due)
        peak = Memory.of(0, self._group("memory")).peak
        self._clear(label, job)
        at, created = lateness(backups, due)
        jobs_at, jobs_created = lateness(jobs, due)
        spent = cpu_after - cpu if cpu is not None and cpu_after is not None else None
        made = requests_after - requests if requests is not None and requests_after is not None else None
        return Round(title, limit, at, created, jobs_at, jobs_created, memory, peak, made, spent, busy, completed, outcomes)

    def _schedule(self, due: datetime, label: str, job: dict[str, Any]) -> None:
        template = {"spec": {"database": {"secretRef": {"name": "assetdex-db"}}, "retries": 0, **({"job": job} if job else {})}}
        spec = {"schedule": f"{due.minute} {due.hour} * * *", "template": template, "retention": {"keepLast": 1000}}
        made = [finished.schedule(number, NAMESPACE, spec, {ROUND: label}) for number in range(SCHEDULES)]
        self.api.create(PLANS, [(obj, None) for obj in made])

    def _await_seen(self, due: datetime) -> list[str]:
        """The schedules' names, once the operator has told of each when it runs next."""
        wanted = f"{due:%Y-%m-%dT%H:%M:%SZ}"
        while True:
            items = self.api.call("GET", PLANS)["items"]
            if all((item.get("status") or {}).get("nextScheduleTime") == wanted for item in items):
                return [item["metadata"]["name"] for item in items]
            if time.time() > due.timestamp() - 20:
                raise BenchError("the operator had not seen all schedules 20 s before they were due")
            time.sleep(1)

    def _await_end(self, label: str, due: datetime) -> tuple[float, dict[str, int]]:
        """Seconds after the due time at which all runs were over, and how they ended."""
        deadline = time.monotonic() + PATIENCE
        while True:
            items = self.api.call("GET", f"{BACKUPS}?labelSelector={ROUND}%3D{label}")["items"]
            outcomes: dict[str, int] = {}
            for item in items:
                phase = (item.get("status") or {}).get("phase") or "Pending"
                outcomes[phase] = outcomes.get(phase, 0) + 1
            if set(outcomes) <= {"Completed", "Failed"}:
                ends = [datetime.fromisoformat(item["status"]["completionTime"]) for item in items]
                return (max(ends) - due).total_seconds(), outcomes
            if time.monotonic() > deadline:
                raise BenchError(f"not all runs had ended after {PATIENCE:.0f} s: {outcomes}")
            time.sleep(5)

    def _clear(self, label: str, job: dict[str, Any]) -> None:
        """The schedules go; so do runs that would wait for ever."""
        self.cluster.kubectl("-n", NAMESPACE, "delete", "databasebackupschedules", "--all", "--wait=false", timeout=300)
        if job:
            self.cluster.kubectl("-n", NAMESPACE, "delete", "databasebackups", "-l", f"{ROUND}={label}", "--wait=false", timeout=300)

    def _settle(self, until: float) -> None:
        """Until the operator has been idle for some seconds."""
        group, quiet = self._group("cpuacct"), 0
        before = cgroup.cpu_seconds(group) if group else 0.0
        while group and quiet < 4 and time.time() < until - 2:
            time.sleep(2)
            now = cgroup.cpu_seconds(group)
            quiet = quiet + 1 if (now - before) / 2 < QUIET else 0
            before = now

    def _group(self, controller: str) -> Path | None:
        return servers.pod_cgroup(servers.operator_pod(self.cluster)["metadata"]["uid"], controller)

    def _cpu(self) -> float | None:
        group = self._group("cpuacct")
        return cgroup.cpu_seconds(group) if group else None

    @staticmethod
    def _sleep_until(moment: float) -> None:
        time.sleep(max(0.0, moment - time.time()))


def lateness(arrivals: Sequence[Arrival], due: datetime) -> tuple[list[float], list[float]]:
    moment = due.timestamp()
    return sorted(one.at - moment for one in arrivals), sorted(one.created - moment for one in arrivals)


def show(output: Output, rounds: Sequence[Round], memory: dict[str, Memory]) -> None:
    def text(values: Sequence[float], digits: int) -> str:
        return " / ".join(f"{percentile(values, of):.{digits}f}" for of in (50, 99, 100)) if values else "-"

    rows = [
        (
            f"{one.title}, " + (f"{one.limit} at a time" if one.limit else "no limit"),
            text(one.backups, 2),
            text(one.backups_created, 0),
            text(one.jobs[: one.limit or None], 2),
            text(one.jobs_created[: one.limit or None], 0),
            str(len(one.jobs)),
            "-" if one.requests is None else str(one.requests),
            "-" if one.cpu is None else f"{one.cpu:.1f}",
            f"{one.busy:.1f}",
            "-" if one.completed is None else f"{one.completed:.0f}",
        )
        for one in rounds
    ]
    columns = ("", "backups", "by stamp", "Jobs with a slot", "by stamp", "Jobs made", "requests", "CPU s", "machine busy", "all over")
    output.grid(f"{SCHEDULES} schedules of one minute: seconds after it, p50 / p99 / most", columns, rows)

    def mebibytes(value: int | None) -> str:
        return "-" if value is None else f"{value / MIB:.0f}"

    held = [(title, mebibytes(one.working_set), mebibytes(one.anonymous), mebibytes(one.peak)) for title, one in memory.items()]
    output.grid("The operator's memory, MiB", ("", "working set", "of it anonymous", "peak since its start"), held)
    first, *_, before, last = memory.values()
    if first.working_set is not None and before.working_set is not None and last.working_set is not None:
        growth = (last.working_set - before.working_set) / (last.objects - before.objects) * 1000 / MIB
        output.console.print(f"growth for each 1000 finished backups: {growth:.1f} MiB")
