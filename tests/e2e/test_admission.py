"""The annotation that tells for whom an object was written names nobody but the writer: tried with
ServiceAccounts' own tokens."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import Operator
from tests.e2e.lib import pods
from tests.e2e.lib.cluster import OPERATOR_NAMESPACE, RELEASE
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.tenant import Tenant

BY = "dbbackup.io/requested-by"
POLICY = f"{RELEASE}-database-backup-operator-requested-by"
ENFORCED_SECONDS = 60
"""The API server takes a new policy up some moments after it was made."""
DATABASE = {"secretRef": {"name": "db"}}
SPECS: dict[str, Raw] = {
    "BackupStorage": {"s3": {"bucket": "bbb", "endpoint": "http://127.0.0.1:1", "credentialsSecretRef": {"name": "s"}}},
    "DatabaseBackup": {"database": DATABASE},
    "DatabaseBackupSchedule": {"schedule": "@yearly", "suspend": True, "template": {"spec": {"database": DATABASE}}},
    "DatabaseRestore": {"source": {"artifact": {"key": "a/b"}}, "database": DATABASE},
}


def obj(kind: str, name: str, by: str | None) -> Raw:
    metadata: Raw = {"name": name, **({"annotations": {BY: by}} if by is not None else {})}
    return {"apiVersion": "dbbackup.io/v1", "kind": kind, "metadata": metadata, "spec": SPECS[kind]}


class Person:
    """A ServiceAccount that may do everything in its namespace, and speaks with its own token."""

    def __init__(self, tenant: Tenant, name: str, folder: Path) -> None:
        self.tenant = tenant
        self.user = f"system:serviceaccount:{tenant.name}:{name}"
        tenant.run("create", "serviceaccount", name)
        tenant.run("create", "rolebinding", name, "--clusterrole=cluster-admin", f"--serviceaccount={tenant.name}:{name}")
        config = json.loads(tenant.cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
        config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": tenant.run("create", "token", name).strip()}}]
        self._config = folder / f"{name}.json"
        self._config.write_text(json.dumps(config))

    def __call__(self, *arguments: str, stdin: Raw | None = None) -> str:
        """What kubectl says, good or bad."""
        text = json.dumps(stdin) if stdin is not None else None
        return self.tenant.run(f"--kubeconfig={self._config}", *arguments, stdin=text, check=False)

    def create(self, wanted: Raw) -> str:
        return self("create", "-f", "-", stdin=wanted)


@pytest.fixture
def alice(tenant: Tenant, tmp_path: Path) -> Person:
    """Once the policy holds."""
    found = Person(tenant, "alice", tmp_path)
    deadline = time.monotonic() + ENFORCED_SECONDS
    while "denied request" not in found("create", "--dry-run=server", "-f", "-", stdin=obj("DatabaseBackup", "try", "mallory")):
        assert time.monotonic() < deadline, "the policy is not enforced"
    return found


def test_nobody_writes_in_the_name_of_another(tenant: Tenant, alice: Person) -> None:
    for kind in SPECS:
        refused = alice.create(obj(kind, "forged", "bob"))
        assert f"{BY} says bob, but you are {alice.user}: leave it out, or name yourself" in refused, kind
        assert POLICY in refused
        assert "created" in alice.create(obj(kind, "own", alice.user)), kind
        assert "created" in alice.create(obj(kind, "none", None)), kind
        for change in (f"{BY}=bob", f"{BY}-"):
            assert "cannot be changed or removed" in alice("annotate", "--overwrite", kind, "own", change), (kind, change)
        assert "cannot be changed" in alice("annotate", kind, "none", f"{BY}={alice.user}")
        assert "annotated" in alice("annotate", kind, "own", "team=shop")
        assert tenant.get(kind, "own")["metadata"]["annotations"][BY] == alice.user
        assert tenant.find(kind, "forged") is None


def test_the_plugins_pods_name_their_maker(tenant: Tenant, alice: Person) -> None:
    def pod(name: str, by: str, **labels: str) -> Raw:
        metadata: Raw = {"name": name, "annotations": {BY: by}, "labels": labels}
        spec = pods.server("x", tenant.cluster.image, 1, user=65532, probe={"tcpSocket": {"port": 1}})[0]["spec"]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    tool = {"dbbackup.io/tool": "kubectl"}
    assert "says bob" in alice.create(pod("forged", "bob", **tool))
    assert "created" in alice.create(pod("own", alice.user, **tool))
    assert "cannot be changed or removed" in alice("annotate", "--overwrite", "pod", "own", f"{BY}=bob")
    assert "cannot be changed or removed" in alice("annotate", "--overwrite", "pod", "own", f"{BY}=bob", "dbbackup.io/tool-")
    assert "created" in alice.create(pod("other", "bob", team="shop"))  # any other pod is nobody's business here


def test_apply_edits_and_statuses_are_not_in_the_way(tenant: Tenant, alice: Person) -> None:
    own = obj("DatabaseBackupSchedule", "s", alice.user)
    for _ in range(2):
        assert "serverside-applied" in alice("apply", "--server-side", "-f", "-", stdin=own)
    changed = {**own, "spec": {**own["spec"], "schedule": "@monthly"}}
    assert "serverside-applied" in alice("apply", "--server-side", "-f", "-", stdin=changed)
    assert "says bob" in alice("apply", "--server-side", "-f", "-", stdin=obj("DatabaseBackupSchedule", "t", "bob"))
    # Another person's apply that knows nothing of the annotation leaves it.
    assert "configured" in tenant.run("apply", "-f", "-", stdin=json.dumps(obj("DatabaseBackupSchedule", "s", None)), check=False)
    forged = {"metadata": {"annotations": {BY: "eve"}}, "status": {"missedRuns": 7}}
    assert "patched" in alice("patch", "dbs", "s", "--subresource=status", "--type=merge", "-p", json.dumps(forged))
    found = tenant.get("dbs", "s")
    assert found["metadata"]["annotations"][BY] == alice.user
    assert found["status"]["missedRuns"] == 7


def test_the_operator_and_the_console_are_trusted_and_no_template_makes_use_of_that(tenant: Tenant, alice: Person, operator: Operator) -> None:
    account = operator.pods()[0]["spec"]["serviceAccountName"]
    for name in (account, f"{account}-console"):
        wanted = json.dumps(obj("DatabaseBackup", name, "bob"))
        user = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{name}"
        assert "created" in tenant.run("create", "--as", user, "-f", "-", stdin=wanted, check=False), user
    schedule = obj("DatabaseBackupSchedule", "forging", None)
    schedule["spec"] = {**schedule["spec"], "template": {**schedule["spec"]["template"], "metadata": {"annotations": {BY: "bob"}}}}
    assert "keys that begin with dbbackup.io/ belong to the operator" in alice.create(schedule)
