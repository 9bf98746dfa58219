"""The control path: from `kubectl apply` to the end, beside a bare Job of the same cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rich.table import Table
from tests.bench import cgroup
from tests.bench import cluster as servers
from tests.bench.cgroup import BenchError
from tests.bench.cluster import NAMESPACE, Watcher
from tests.bench.output import MIB, Output, save
from tests.bench.samples import Sample, Series, alternate
from tests.e2e.lib.cluster import Cluster, CommandFailed, install_operator

JOB, BACKUP, CUSTOM, RESTORE = "bare Job", "backup, plain", "backup, custom", "restore in place, safety backup"
TARGETS = {BACKUP: 5.0, CUSTOM: 5.0, RESTORE: 10.0}
SETTLE_SECONDS = 2.0
"""Between runs: what the operator does after the end counts to the run that it belongs to."""
PATIENCE = 120.0


def control(output: Output, rounds: int) -> bool:
    """Whether the targets are met."""
    try:
        cluster = Cluster.from_environment()
        prepare(output, cluster)
        pod = servers.operator_pod(cluster)
        watcher = Watcher(cluster)
        with servers.counting(cluster, pod["spec"]["serviceAccountName"]) as requests, watcher.watching():
            bench = Control(cluster, watcher, requests, pod["metadata"]["uid"])
            bench.once(BACKUP)  # warms the node: the first container of an image is slower
            contenders: dict[str, Callable[[], Sample]] = {
                JOB: bench.job,
                BACKUP: lambda: bench.once(BACKUP),
                CUSTOM: lambda: bench.once(CUSTOM),
                RESTORE: lambda: bench.once(RESTORE),
            }
            series = alternate(Series("Demo database, from kubectl apply to Completed"), contenders, rounds, output.tell)
            show(output, series, bench)
    except (CommandFailed, RuntimeError) as error:
        raise BenchError(str(error)) from None
    finally:
        output.tell(f"namespace {NAMESPACE} is left to look at; kubectl delete namespace {NAMESPACE} removes it")
    save("control", {"control": series.as_json(), "operator": bench.operator()})
    met = [output.verdict(f"{name}, median", series.wall(name).median, limit, unit=" s") for name, limit in TARGETS.items()]
    return all(met)


def prepare(output: Output, cluster: Cluster) -> None:
    output.tell("the operator, PostgreSQL, an S3 server and the demo's database")
    install_operator(cluster)
    if cluster.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name").strip():
        cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=180s", timeout=200)
    servers.serve(cluster)
    servers.load(cluster)


class Control:
    def __init__(self, cluster: Cluster, watcher: Watcher, requests: Callable[[], int | None], operator_uid: str) -> None:
        self._cluster, self._watcher, self._requests = cluster, watcher, requests
        self._memory, self._cpu = (servers.pod_cgroup(operator_uid, controller) for controller in ("memory", "cpuacct"))
        self._number = 0
        self._backup = ""

    def once(self, what: str) -> Sample:
        """One object of that kind to its end. A restore takes the newest plain backup."""
        kind = "DatabaseRestore" if what == RESTORE else "DatabaseBackup"
        spec: dict[str, Any] = {"database": {"secretRef": {"name": "assetdex-db"}}}
        if what == RESTORE:
            spec |= {"source": {"backupRef": {"name": self._backup}}, "onExisting": "Replace", "safetyBackup": True}
        elif what == CUSTOM:
            spec["format"] = "custom"
        name = self._name(kind)
        started, requests, cpu = time.monotonic(), self._requests(), self._operator_cpu()
        started = time.monotonic()
        applied = self._apply({"apiVersion": "dbbackup.io/v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
        done = self._watcher.wait(
            kind, lambda o: o["metadata"]["name"] == name and o.get("status", {}).get("phase") in {"Completed", "Failed"}, PATIENCE
        )
        if done.object["status"]["phase"] != "Completed":
            raise BenchError(f"{kind} {name}: {json.dumps(done.object['status'].get('failure'))}")
        time.sleep(SETTLE_SECONDS)
        if what == BACKUP:
            self._backup = name
        facts = {"applied": applied - started, "done": done.at - started} | self._steps(
            done.object["metadata"]["uid"], "dbbackup.io/owner-uid", started
        )
        after, cpu_after = self._requests(), self._operator_cpu()
        if requests is not None and after is not None:
            facts["requests"] = after - requests
        if cpu is not None and cpu_after is not None:
            facts["operator cpu"] = cpu_after - cpu
        return Sample(done.at - started, facts=facts)

    def job(self) -> Sample:
        """A Job of one command, `id`, in the operator's image: to its container's end, and to
        Complete."""
        name = self._name("Job")
        security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        container = {"name": "main", "image": self._cluster.image, "imagePullPolicy": "IfNotPresent", "command": ["id"], "securityContext": security}
        pod_security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        pod = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": pod_security, "containers": [container]}
        template = {"metadata": {"labels": {"bench": name}}, "spec": pod}
        metadata = {"name": name, "namespace": NAMESPACE, "labels": {"bench": name}}
        started = time.monotonic()
        applied = self._apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template, "backoffLimit": 0}})

        def complete(o: dict[str, Any]) -> bool:
            conditions = o.get("status", {}).get("conditions", [])
            return o["metadata"]["name"] == name and any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)

        done = self._watcher.wait("Job", complete, PATIENCE)
        facts = {"applied": applied - started, "done": done.at - started} | self._steps(name, "bench", started)
        self._cluster.kubectl("-n", NAMESPACE, "delete", "job", name, "--wait=false")
        time.sleep(SETTLE_SECONDS)
        return replace(Sample(done.at - started), facts=facts)

    def _name(self, kind: str) -> str:
        self._number += 1
        return f"{kind.removeprefix('Database').lower()}-{self._number}"

    def _apply(self, manifest: dict[str, Any]) -> float:
        self._cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
        return time.monotonic()

    def _steps(self, owner: str, label: str, started: float) -> dict[str, float]:
        """When the Job, its pod, its container came and the container ended; `run` is how long the
        run took by its own report."""

        def ours(o: dict[str, Any]) -> bool:
            return bool(o["metadata"].get("labels", {}).get(label) == owner)

        def state(o: dict[str, Any], name: str) -> Any:
            statuses = o.get("status", {}).get("containerStatuses", [])
            return next((s["state"][name] for s in statuses if name in s.get("state", {})), None)

        moments = {
            "job": self._watcher.first("Job", ours),
            "pod": self._watcher.first("Pod", ours),
            "container": self._watcher.first("Pod", lambda o: ours(o) and bool(state(o, "running") or state(o, "terminated"))),
            "ended": self._watcher.first("Pod", lambda o: ours(o) and bool(state(o, "terminated"))),
        }
        return {name: at - started for name, at in moments.items() if at is not None}

    def _operator_cpu(self) -> float | None:
        return cgroup.cpu_seconds(self._cpu) if self._cpu else None

    def operator(self) -> dict[str, int | None]:
        """Bytes of the operator's pod, where the node is this machine."""
        if not self._memory:
            return {"memory": None, "peak": None}
        return {"memory": cgroup.memory_now(self._memory), "peak": cgroup.memory_peak(self._memory)}


def show(output: Output, series: Series, bench: Control) -> None:
    table = Table(title=series.title + ", seconds", title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    table.add_column("")
    columns = ("done", "kubectl returned", "Job seen", "pod seen", "container runs", "container ended", "API requests", "operator CPU")
    for column in columns:
        table.add_column(column, justify="right")
    for name in series.samples:
        facts = [series.fact(name, fact) for fact in ("applied", "job", "pod", "container", "ended", "requests", "operator cpu")]
        table.add_row(name, series.wall(name).text(), *(f"{fact.median:.2f}" if fact else "-" for fact in facts))
    output.console.print()
    output.console.print(table)
    memory = bench.operator()
    if memory["memory"] and memory["peak"]:
        output.console.print(f"operator: {memory['memory'] / MIB:.0f} MiB, at most {memory['peak'] / MIB:.0f} MiB (its pod's cgroup)")
