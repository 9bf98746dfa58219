"""What the control part needs of a cluster: servers and data in a namespace of its own, and the
moments at which things happen."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.bench.cgroup import ROOT as CGROUPS
from tests.bench.cgroup import BenchError
from tests.data import generate
from tests.e2e.lib.cluster import OPERATOR_NAMESPACE, Cluster, CommandFailed
from tests.root import ROOT

NAMESPACE = "dbbackup-bench"
FLOW_SCHEMA = "dbbackup-bench"
WATCHED = {"DatabaseBackup": "databasebackups.dbbackup.io", "DatabaseRestore": "databaserestores.dbbackup.io", "Job": "jobs", "Pod": "pods"}


def manifests(cluster: Cluster) -> str:
    """The demo's servers, Secrets and storage, in the bench's namespace."""
    texts = [(ROOT / name).read_text() for name in ("tests/demo/servers.yaml", "examples/secrets.yaml", "examples/storage.yaml")]
    text = "\n---\n".join(texts).replace("__POSTGRES_IMAGE__", cluster.postgres_image(17)).replace("__S3_IMAGE__", cluster.s3_image)
    text = re.sub(r"(?m)^(  name(?:space)?): demo$", rf"\1: {NAMESPACE}", text)
    return text.replace(".demo.svc", f".{NAMESPACE}.svc")


def serve(cluster: Cluster) -> None:
    """The bench's servers, where they are not there yet."""
    cluster.kubectl("apply", "-f", "-", stdin=manifests(cluster))
    cluster.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/postgres", "deployment/s3", "--timeout=180s", timeout=200)


def psql(cluster: Cluster, database: str, sql: str) -> str:
    """As the superuser, within the server's pod."""
    argv = ("psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database)
    return cluster.kubectl("-n", NAMESPACE, "exec", "-i", "deploy/postgres", "--", *argv, stdin=sql, timeout=900)


def load(cluster: Cluster) -> None:
    """The demo's database, new."""
    secrets = [document["stringData"] for document in yaml.safe_load_all((ROOT / "examples/secrets.yaml").read_text())]
    password = next(data["password"] for data in secrets if "username" in data)
    psql(cluster, "postgres", "DROP DATABASE IF EXISTS assetdex WITH (FORCE);\nCREATE DATABASE assetdex;")
    psql(cluster, "assetdex", generate.render())
    psql(cluster, "assetdex", f"ALTER ROLE inventory_owner CREATEDB PASSWORD '{password}'")


def operator_pod(cluster: Cluster) -> dict[str, Any]:
    found = json.loads(
        cluster.kubectl("-n", OPERATOR_NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/name=database-backup-operator", "-o", "json")
    )["items"]
    running: list[dict[str, Any]] = [pod for pod in found if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]]
    if len(running) != 1:
        raise BenchError(f"expected one running operator in {OPERATOR_NAMESPACE}, found {len(running)}")
    return running[0]


@contextmanager
def counting(cluster: Cluster, service_account: str) -> Iterator[Callable[[], int | None]]:
    """Yields a function that tells how many requests the API server has taken from the operator: it
    counts by flow schema, so we make one.

    None where we may not."""
    subject = {"kind": "ServiceAccount", "serviceAccount": {"name": service_account, "namespace": OPERATOR_NAMESPACE}}
    rule = {
        "subjects": [subject],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }
    schema = {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": FLOW_SCHEMA},
        "spec": {"priorityLevelConfiguration": {"name": "workload-low"}, "matchingPrecedence": 850, "rules": [rule]},
    }

    def requests() -> int:
        lines = cluster.kubectl("get", "--raw", "/metrics").splitlines()
        own = [
            line for line in lines if line.startswith("apiserver_flowcontrol_dispatched_requests_total{") and f'flow_schema="{FLOW_SCHEMA}"' in line
        ]
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in own)

    try:
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(schema))
    except CommandFailed:
        yield lambda: None
        return
    try:
        yield requests
    finally:
        cluster.kubectl("delete", "flowschema", FLOW_SCHEMA)


def pod_cgroup(uid: str, controller: str) -> Path | None:
    """The pod's cgroup where the node is this machine."""
    base = CGROUPS if (CGROUPS / "cgroup.controllers").exists() else CGROUPS / controller
    for name in (f"pod{uid}", f"*pod{uid.replace('-', '_')}.slice"):
        if found := next(base.glob(f"**/{name}"), None):
            return found
    return None


@dataclass(frozen=True, slots=True)
class Seen:
    at: float
    kind: str
    object: dict[str, Any]


class Watcher:
    """Everything that changes in the namespace, with the moment at which we were told
    (time.monotonic)."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._seen: list[Seen] = []
        self._changed = threading.Condition()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._over = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._watch, args=item, daemon=True) for item in WATCHED.items()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over = True
            for process in self._processes.values():
                process.terminate()
            for thread in threads:
                thread.join()

    def _watch(self, kind: str, resource: str) -> None:
        """Begins again where the connection was lost; then what is there is told once more."""
        while not self._over:
            with self._cluster.popen("-n", NAMESPACE, "get", resource, "--watch", "-o", r'jsonpath={}{"\n"}') as process:
                self._processes[kind] = process
                for line in process.stdout or ():
                    now = time.monotonic()
                    with self._changed:
                        self._seen.append(Seen(now, kind, json.loads(line)))
                        self._changed.notify_all()

    def wait(self, kind: str, wanted: Callable[[dict[str, Any]], bool], seconds: float) -> Seen:
        """The first change of that kind that fits, from the beginning on."""
        deadline, position = time.monotonic() + seconds, 0
        with self._changed:
            while True:
                for seen in self._seen[position:]:
                    if seen.kind == kind and wanted(seen.object):
                        return seen
                position = len(self._seen)
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise BenchError(f"{kind}: what was waited for did not happen in {seconds:.0f} s")

    def first(self, kind: str, wanted: Callable[[dict[str, Any]], bool]) -> float | None:
        with self._changed:
            return next((seen.at for seen in self._seen if seen.kind == kind and wanted(seen.object)), None)
