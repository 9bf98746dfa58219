"""The CRDs and the chart against a real API server. No operator is needed: a finished object's
status is played by the test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.root import CRDS, ROOT

from dbbackup.api import conditions

RIG = ROOT / "build" / "rig"
CHART = ROOT / "charts" / "database-backup-operator"
REFUSED = sorted((ROOT / "tests" / "data" / "refused").glob("*.yaml"))
RELEASE, RELEASE_NAMESPACE = "dbbackup", "dbbackup-system"
DATABASE = {"secretRef": {"name": "app-db"}}


class Kubectl:
    def __init__(self, namespace: str) -> None:
        tool = RIG / "bin" / "kubectl"
        self.path = str(tool) if tool.exists() else shutil.which("kubectl") or "kubectl"
        self.namespace = namespace
        self.environment = os.environ | ({} if os.environ.get("KUBECONFIG") else {"KUBECONFIG": str(RIG / "kubeconfig")})

    def __call__(self, *arguments: str, stdin: Any = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        text = None if stdin is None else stdin if isinstance(stdin, str) else yaml.safe_dump(stdin)
        command = [self.path, "--namespace", self.namespace, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, env=self.environment, check=False)
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done

    def get(self, *arguments: str) -> dict[str, Any]:
        return dict(json.loads(self("get", *arguments, "-o", "json").stdout))

    @contextmanager
    def watching(self, *arguments: str) -> Iterator[Iterator[str]]:
        """The lines of `kubectl get --watch`, which ends by itself after 20 seconds."""
        command = [self.path, "--namespace", self.namespace, "--request-timeout=20s", "get", *arguments, "--watch"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment) as process:
            assert process.stdout
            try:
                yield iter(process.stdout)
            finally:
                process.kill()

    def patch(self, what: str, change: dict[str, Any], *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self("patch", *what.split("/"), "--type", "merge", "-p", json.dumps(change), *more, check=check)

    def ensure_crds(self) -> None:
        """Where the chart has installed them they stay as they are; those made here belong to the
        release that installs them later."""
        for path in sorted(CRDS.glob("*.yaml")):
            if self("get", "crd", f"{path.stem}.dbbackup.io", check=False).returncode:
                crd = yaml.safe_load(path.read_text())
                crd["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
                crd["metadata"]["annotations"] = {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": RELEASE_NAMESPACE}
                self("apply", "--server-side", "--field-manager=helm", "-f", "-", stdin=crd)
                self("wait", "--for=condition=Established", f"crd/{path.stem}.dbbackup.io", "--timeout=30s")


@pytest.fixture(scope="module")
def kubectl() -> Iterator[Kubectl]:
    """A namespace of its own, in a cluster that has the CRDs. Nothing is served there: storages and
    Secrets are missing on purpose."""
    found = Kubectl(f"crds-{uuid.uuid4().hex[:6]}")
    found.ensure_crds()
    found("create", "namespace", found.namespace)
    try:
        yield found
    finally:
        found("delete", "namespace", found.namespace, "--wait=false")


def helm() -> str:
    tool = RIG / "bin" / "helm"
    return str(tool) if tool.exists() else "helm"


def manifest(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "dbbackup.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def backup(kubectl: Kubectl) -> str:
    """A backup with a value in every kind of field."""
    job = {
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": 1, "memory": "1Gi"}},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}
            }
        },
        "labels": {"sidecar.istio.io/inject": "false"},
    }
    kubectl(
        "create", "-f", "-", stdin=manifest("DatabaseBackup", "full", database=DATABASE, schemas=["public"], storageRef={"name": "none"}, job=job)
    )
    return "full"


@pytest.mark.parametrize("path", sorted(CRDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_api_server_takes_the_crd_whole(kubectl: Kubectl, path: Path) -> None:
    """Strictly: a misspelt keyword would only be dropped."""
    kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", str(path))
    conditions = {entry["type"]: entry for entry in kubectl.get("crd", f"{path.stem}.dbbackup.io")["status"]["conditions"]}
    assert conditions["Established"]["status"] == "True"
    assert "NonStructuralSchema" not in conditions


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_refused(kubectl: Kubectl, path: Path) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# expect: ")
    done = kubectl("create", "--dry-run=server", "-f", str(path), check=False)
    assert done.returncode != 0, done.stdout
    assert expected in done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_taken(kubectl: Kubectl, path: Path) -> None:
    for item in yaml.safe_load_all(path.read_text()):
        if item and item["apiVersion"].startswith("dbbackup.io/"):
            item["metadata"].pop("namespace", None)
            kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=item)


def test_the_shortest_objects_get_their_defaults(kubectl: Kubectl) -> None:
    def made(item: dict[str, Any]) -> dict[str, Any]:
        return dict(json.loads(kubectl("create", "--dry-run=server", "-f", "-", "-o", "json", stdin=item).stdout))

    new = made(manifest("DatabaseBackup", "short", database=DATABASE))
    assert new["status"] == {"observedGeneration": -1}
    assert new["spec"] == {
        "database": DATABASE,
        "storageRef": {"name": "default"},
        "format": "plain",
        "clean": True,
        "rowCounts": "Exact",
        "compression": {"algorithm": "zstd"},
        "deletionPolicy": "Retain",
        "timeout": "1h",
        "startDeadline": "10m",
        "retries": 2,
        "origin": "Run",
    }
    restore = made(manifest("DatabaseRestore", "short", source={"artifact": {"key": "a/b"}}, database=DATABASE))
    assert restore["status"] == {"observedGeneration": -1}
    assert restore["spec"]["source"]["artifact"]["storageRef"] == {"name": "default"}
    assert (restore["spec"]["onExisting"], restore["spec"]["safetyBackup"], restore["spec"]["lockTimeout"]) == ("Fail", True, "1m")
    storage = made(manifest("BackupStorage", "short", s3={"bucket": "backups"}))
    assert storage["status"] == {"observedGeneration": -1}
    assert (storage["spec"]["defaultTTL"], storage["spec"]["inventoryInterval"]) == ("30d", "24h")
    schedule = made(manifest("DatabaseBackupSchedule", "short", schedule="@daily", databases={}, template={"spec": {"database": DATABASE}}))
    assert schedule["status"] == {"observedGeneration": -1}
    assert schedule["spec"] == {
        "schedule": "@daily",
        "timeZone": "Etc/UTC",
        "suspend": False,
        "immediate": False,
        "concurrencyPolicy": "Forbid",
        "databases": {"include": ["*"]},
        "template": {"spec": {name: value for name, value in new["spec"].items() if name != "origin"}},
        "retention": {"minKeep": 1, "maxPruneShare": 50},
        "failedHistoryLimit": 3,
    }


SCHEDULES = [
    "0 3 * * *",
    " */15  0,12 1-7 JAN-mar Mon#1 ",
    "0 3 L * 5L",
    "@hourly",
    "@daily",
    "@midnight",
    "@weekly",
    "@monthly",
    "@yearly",
    "@annually",
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_that_are_taken(kubectl: Kubectl, schedule: str) -> None:
    template = {"metadata": {"labels": {"example.com/team": "a", "empty": ""}, "annotations": {"contact": "a b"}}, "spec": {"database": DATABASE}}
    item = manifest("DatabaseBackupSchedule", "a" * 40, schedule=schedule, timeZone="America/Argentina/Buenos_Aires", jitter="0s", template=template)
    kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=item)


@pytest.mark.parametrize("interval", ["1m", "60s", "0h1m", "1h30m", "90s", "1d"])
def test_intervals_that_are_taken(kubectl: Kubectl, interval: str) -> None:
    item = manifest("BackupStorage", "s", s3={"bucket": "backups"}, inventoryInterval=interval, defaultTTL="never", capacity=1000)
    kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=item)


@pytest.mark.parametrize(
    "source", [{"scheduleRef": {"name": "nightly", "before": "2026-11-20T00:00:00Z", "database": "Mixed Case"}}, {"artifact": {"key": "a/b"}}]
)
def test_sources_that_are_taken(kubectl: Kubectl, source: dict[str, Any]) -> None:
    item = manifest("DatabaseRestore", "r", source=source, database=DATABASE)
    kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=item)


def test_a_discovered_backup_needs_its_key_only(kubectl: Kubectl) -> None:
    item = manifest("DatabaseBackup", "found", origin="Discovered", artifactKey="team-a/ns/db_5432/app/20261122T100000Z-a-0123abcd")
    kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=item)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"format": "custom"}, "spec.format"),
        ({"schemas": None}, "spec.schemas"),
        ({"excludeTables": ["public.a"]}, "spec.excludeTables"),
        ({"database": {"port": 5433}}, "spec.database"),
        ({"job": {"resources": {"limits": {"cpu": 2}}}}, "spec.job"),
        ({"job": {"affinity": None}}, "spec.job"),
        ({"timeout": "2h"}, "spec.timeout"),
        ({"ttl": "30d"}, "spec.ttl"),
        ({"origin": "Discovered", "artifactKey": "a/b", "database": None}, "spec.origin"),
    ],
)
def test_a_backup_cannot_be_changed(kubectl: Kubectl, backup: str, change: dict[str, Any], field: str) -> None:
    done = kubectl.patch(f"dbb/{backup}", {"spec": change}, "--dry-run=server", check=False)
    assert f"{field}: Invalid value" in done.stderr
    assert "cannot be changed: a DatabaseBackup is one run; create a new object for another" in done.stderr


def test_a_backups_deletion_policy_can_be_changed(kubectl: Kubectl, backup: str) -> None:
    kubectl.patch(f"dbb/{backup}", {"spec": {"deletionPolicy": "Delete"}}, "--dry-run=server")


def test_a_schedule_can_be_changed(kubectl: Kubectl) -> None:
    template = {"spec": {"database": DATABASE, "schemas": ["public"]}}
    kubectl("create", "-f", "-", stdin=manifest("DatabaseBackupSchedule", "s", schedule="@yearly", suspend=True, template=template))
    change = {"schedule": "@monthly", "template": {"spec": {"format": "custom", "schemas": None, "database": {"port": 5433}}}}
    kubectl.patch("dbs/s", {"spec": change}, "--dry-run=server")
    done = kubectl.patch("dbs/s", {"spec": {"schedule": "* * * * * *"}}, "--dry-run=server", check=False)
    assert "spec.schedule: Invalid value" in done.stderr


def test_a_restore_cannot_be_changed(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest("DatabaseRestore", "r", source={"backupRef": {"name": "none"}}, database=DATABASE))
    for change in ({"onExisting": "Replace"}, {"source": {"backupRef": {"name": "other"}}}, {"tables": ["public.a"]}):
        done = kubectl.patch("dbr/r", {"spec": change}, "--dry-run=server", check=False)
        assert "cannot be changed: a DatabaseRestore is one run" in done.stderr


def test_a_storage_stays_where_its_artifacts_are(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest("BackupStorage", "s", s3={"bucket": "backups", "endpoint": "http://s3:7070"}))
    for change in ({"bucket": "others"}, {"prefix": "a"}, {"endpoint": None}, {"endpoint": "https://s3:7070"}):
        done = kubectl.patch("bst/s", {"spec": {"s3": change}}, "--dry-run=server", check=False)
        assert "cannot be changed: artifacts lie there; create another BackupStorage" in done.stderr
    kubectl.patch("bst/s", {"spec": {"s3": {"region": "eu-1", "credentialsSecretRef": {"name": "new"}}, "maxConcurrent": 2}}, "--dry-run=server")


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


def test_a_status_is_written_and_shown_in_columns(kubectl: Kubectl, backup: str) -> None:
    """Where an operator runs, it leaves a Completed object alone."""
    condition = {"status": "True", "lastTransitionTime": "2026-11-22T10:00:00Z", "reason": "Completed", "message": ""}
    status = {
        "phase": "Completed",
        "size": "384 KiB",
        "duration": "4s",
        "database": {"name": "assetdex"},
        "artifact": {"key": "team-a/k"},
        "expirationTime": "2026-12-22T10:00:00Z",
        "expires": "2026-12-22 10:00",
        "conditions": [{"type": "Ready", **condition}],
    }
    kubectl.patch(f"dbb/{backup}", {"status": status}, "--subresource=status")
    shown = table(kubectl("get", "dbb", backup, "-o", "wide").stdout)
    assert shown[0] == ["NAME", "PHASE", "DATABASE", "SIZE", "DURATION", "EXPIRES", "AGE", "STORAGE", "FORMAT", "KEY", "REASON"]
    assert shown[1][:8] == ["full", "Completed", "assetdex", "384", "KiB", "4s", "2026-12-22", "10:00"]
    assert shown[1][9:] == ["none", "plain", "team-a/k", "Completed"]
    done = kubectl.patch(f"dbb/{backup}", {"status": {"phase": "Done"}}, "--subresource=status", check=False)
    assert 'Unsupported value: "Done"' in done.stderr


def test_columns_of_the_other_kinds(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest("DatabaseRestore", "columns", source={"backupRef": {"name": "none"}}, database=DATABASE))
    kubectl("create", "-f", "-", stdin=manifest("BackupStorage", "columns", s3={"bucket": "backups", "prefix": "team-a"}))
    assert table(kubectl("get", "dbr").stdout)[0] == ["NAME", "PHASE", "SOURCE", "DATABASE", "ROWS", "DURATION", "AGE"]
    assert table(kubectl("get", "bst").stdout)[0] == ["NAME", "READY", "BUCKET", "PREFIX", "USED", "ARTIFACTS", "AGE"]
    assert "databaserestore.dbbackup.io/columns" in kubectl("get", "dbbackup", "-o", "name").stdout


def test_columns_of_a_schedule(kubectl: Kubectl) -> None:
    """A watch shows every version: where an operator runs, it writes its own status over the test's
    at once."""
    spec = {"schedule": "@yearly", "timeZone": "No/Where", "suspend": True, "template": {"spec": {"database": DATABASE}}}
    kubectl("create", "-f", "-", stdin=manifest("DatabaseBackupSchedule", "columns", **spec))
    last = (datetime.now(UTC) - timedelta(hours=5, minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"lastSuccessfulTime": last, "nextScheduleTime": "2126-01-01T00:00:00Z", "consecutiveFailures": 2, "suspended": True}
    shown = []
    with kubectl.watching("dbs", "columns", "-o", "wide") as lines:
        header = next(lines).split()
        kubectl.patch("dbs/columns", {"status": status}, "--subresource=status")
        for line in lines:
            shown = line.split()
            if "2126-01-01T00:00:00Z" in shown:
                break
    assert header == ["NAME", "SCHEDULE", "SUSPENDED", "LAST", "NEXT", "FAILURES", "AGE", "ZONE", "REASON"]
    assert shown[:6] == ["columns", "@yearly", "true", "5h1m", "2126-01-01T00:00:00Z", "2"]
    assert "databasebackupschedule.dbbackup.io/columns" in kubectl("get", "dbbackup", "-o", "name").stdout


@pytest.mark.parametrize(
    "path",
    [
        "dbs.spec.template.spec.ttl",
        "dbs.status.retention.next.reason",
        "databasebackup.spec.database.sslMode",
        "dbr.spec.source.artifact.key",
        "bst.spec.s3.endpoint",
        "dbb.status.failure",
    ],
)
def test_explain(kubectl: Kubectl, path: str) -> None:
    text = kubectl("explain", path).stdout
    assert "DESCRIPTION:" in text
    assert "<empty>" not in text


def test_a_field_that_does_not_exist_is_told(kubectl: Kubectl) -> None:
    done = kubectl("create", "--dry-run=server", "-f", "-", stdin=manifest("DatabaseBackup", "x", database=DATABASE, keepLast=3), check=False)
    assert 'unknown field "spec.keepLast"' in done.stderr


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"maxConcurrent": 0, "job": {"tolerations": [{"operator": "Exists"}], "podSecurityContext": {"runAsUser": None}}},
        {"image": {"digest": "sha256:" + "a" * 64}, "imagePullSecrets": [{"name": "r"}], "extraEnv": [{"name": "A", "value": "b"}]},
        {"commonAnnotations": {"a": "b"}, "podLabels": {"a": "b"}, "priorityClassName": "system-cluster-critical", "nodeSelector": {"a": "b"}},
        {"networkPolicy": {"extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [{"port": 8443}]}]}},
    ],
    ids=["defaults", "jobs", "image", "placement", "network"],
)
def test_the_api_server_takes_the_chart(kubectl: Kubectl, values: dict[str, Any]) -> None:
    """Strictly, and with the restricted pod security standard enforced on the namespace."""
    kubectl("label", "namespace", kubectl.namespace, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    command = [helm(), "template", "dry", str(CHART), "--namespace", kubectl.namespace, "--values", "-"]
    rendered = subprocess.run(command, input=yaml.safe_dump(values), capture_output=True, text=True, timeout=60, check=True).stdout
    done = kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-", stdin=rendered)
    assert "would violate PodSecurity" not in done.stderr
    assert "deployment.apps/dry-database-backup-operator serverside-applied (server dry run)" in done.stdout


def conditions_of(state: str, generation: int) -> list[dict[str, Any]]:
    return conditions.build(
        [], "done" if state == "Completed" else "failed", state, f"the message of {state}", generation=generation, now=datetime.now(UTC)
    )


@pytest.mark.parametrize("outcome", ["Completed", "Failed"])
def test_helm_waits_for_an_object_and_stops_at_its_failure(kubectl: Kubectl, tmp_path: Path, outcome: str) -> None:
    name = f"waited-{outcome.lower()}"
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": name, "version": "0.1.0"}))
    item = manifest("DatabaseBackup", name, database=DATABASE, storageRef={"name": "none"})
    (tmp_path / "templates" / "backup.yaml").write_text(yaml.safe_dump(item))
    command = [helm(), "install", name, str(tmp_path), "--namespace", kubectl.namespace, "--wait", "--timeout", "60s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=kubectl.environment) as installing:
        kubectl("wait", "--for=create", f"dbb/{name}", "--timeout=30s")
        with pytest.raises(subprocess.TimeoutExpired):
            installing.wait(timeout=3)
        generation = kubectl.get("dbb", name)["metadata"]["generation"]
        status = {"phase": outcome, "observedGeneration": generation, "conditions": conditions_of(outcome, generation)}
        kubectl.patch(f"dbb/{name}", {"status": status}, "--subresource=status")
        output, _ = installing.communicate(timeout=20)
    assert (installing.returncode == 0) == (outcome == "Completed"), output
    kubectl("wait", "--for=condition=Finished", f"dbb/{name}", "--timeout=5s")
