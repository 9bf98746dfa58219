"""A large backup as a real Job: what the pod's memory limit would count at most, and the times of
the whole."""

from __future__ import annotations

import json
import time

from tests.bench import cgroup, shapes
from tests.bench import cluster as servers
from tests.bench.cgroup import BenchError
from tests.bench.cluster import NAMESPACE, Watcher
from tests.bench.output import MIB, Output, save
from tests.e2e.lib.cluster import Cluster, CommandFailed, install_operator

DATABASE = "bench_big"
LIMIT = "200Mi"
PATIENCE = 1800.0
_POLL_SECONDS = 0.05


def in_cluster(output: Output, megabytes: int) -> bool:
    """Whether the backup of a database of that size completes in a Job whose memory limit is the
    target."""
    try:
        cluster = Cluster.from_environment()
        output.tell(f"the operator, PostgreSQL with a database of {megabytes} MB and an S3 server")
        install_operator(cluster)
        servers.serve(cluster)
        servers.load(cluster)
        servers.psql(cluster, "postgres", f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE);\nCREATE DATABASE {DATABASE} OWNER inventory_owner;")
        servers.psql(cluster, DATABASE, "SET ROLE inventory_owner;\n" + shapes.render("mixed", megabytes))
        return run(output, cluster, megabytes)
    except (CommandFailed, RuntimeError) as error:
        raise BenchError(str(error)) from None


def run(output: Output, cluster: Cluster, megabytes: int) -> bool:
    name = f"big-{int(time.time())}"
    resources = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": LIMIT}}
    database = {"secretRef": {"name": "assetdex-db"}, "name": DATABASE}
    spec = {"database": database, "retries": 0, "job": {"resources": resources}}
    manifest = {"apiVersion": "dbbackup.io/v1", "kind": "DatabaseBackup", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
    watcher = Watcher(cluster)
    with watcher.watching():
        started = time.monotonic()
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
        pod = watcher.wait("Pod", lambda o: o["metadata"].get("annotations", {}).get("dbbackup.io/owner-name") == name, 60)
        peak = watch_memory(watcher, pod.object["metadata"]["uid"], name)
        done = watcher.wait("DatabaseBackup", lambda o: o["metadata"]["name"] == name and ended(o), PATIENCE)
    status = done.object["status"]
    if status["phase"] != "Completed":
        raise BenchError(f"DatabaseBackup {name} with a memory limit of {LIMIT}: {json.dumps(status.get('failure'))}")
    results = {"megabytes": megabytes, "seconds": done.at - started, "limit": LIMIT, "peak": peak, "status": status}
    save("in-cluster", results)
    told = f"{peak / MIB:.0f} MiB" if peak else "not told: the node is not this machine"
    output.console.print(f"Backup of {megabytes} MB in a Job limited to {LIMIT}: Completed after {done.at - started:.1f} s; peak of its pod: {told}")
    return True


def ended(backup: dict[str, object]) -> bool:
    status = backup.get("status")
    return isinstance(status, dict) and status.get("phase") in {"Completed", "Failed"}


def watch_memory(watcher: Watcher, uid: str, name: str) -> int | None:
    """The greatest that the pod's cgroup was charged for, as long as it was there."""
    deadline, peak = time.monotonic() + PATIENCE, None
    while watcher.first("DatabaseBackup", lambda o: o["metadata"]["name"] == name and ended(o)) is None:
        if time.monotonic() > deadline:
            raise BenchError(f"DatabaseBackup {name} did not end in {PATIENCE:.0f} s")
        if group := servers.pod_cgroup(uid, "memory"):
            try:
                peak = max(peak or 0, cgroup.memory_peak(group))
            except OSError:
                return peak
        time.sleep(_POLL_SECONDS)
    return peak
