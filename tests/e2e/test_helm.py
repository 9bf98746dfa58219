"""The chart's life as a person lives it: install, upgrade with a run in flight, uninstall; and what
stays."""

from __future__ import annotations

import itertools
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
import yaml
from tests.e2e.conftest import Operator
from tests.e2e.lib.cluster import CHART, Cluster, CommandFailed
from tests.e2e.lib.kube import Kube, Raw
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant
from tests.e2e.lib.tenant import backup as backup_object
from tests.e2e.test_control import busy, nothing_runs, pods_made, ready_reason, set_up, waiting

Databases = Callable[..., Database]
CRDS = ("backupstorages.dbbackup.io", "databasebackups.dbbackup.io", "databaserestores.dbbackup.io")
TAKE = ("--take-ownership", "--force-conflicts")
"""What takes over CRDs that another release has left."""


class Release:
    """A second release that serves one namespace, beside the one that all tests share."""

    def __init__(self, cluster: Cluster, serves: str) -> None:
        self.name = f"second-{secrets.token_hex(3)}"
        self.kube = Kube(cluster, self.name)
        self._serves = serves

    def install(self, *more: str) -> None:
        """Installs or upgrades, and waits."""
        repository, _, tag = self.kube.cluster.image.rpartition(":")
        self.kube.cluster.helm(
            *("upgrade", "--install", self.name, str(CHART), "--namespace", self.name, "--create-namespace", "--wait", "--timeout", "2m"),
            *("--set", f"image.repository={repository}", "--set", f"image.tag={tag}", "--set", f"namespaces={{{self._serves}}}"),
            *("--set", "rbac.aggregate=false", *more),
        )

    def pod(self) -> str:
        (pod,) = [pod for pod in self.kube.objects("pods") if "deletionTimestamp" not in pod["metadata"]]
        return str(pod["metadata"]["name"])

    def probe(self, path: str) -> str:
        return self.kube.cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{self.name}/pods/{self.pod()}:8080/proxy{path}").strip()

    def log(self) -> str:
        return self.kube.run("logs", self.pod(), "--tail=-1")

    def uninstall(self) -> None:
        self.kube.cluster.helm("uninstall", self.name, "--namespace", self.name, "--wait", "--timeout", "60s", check=False)

    def remove(self) -> None:
        self.uninstall()
        self.kube.cluster.kubectl("delete", "namespace", self.name, "--ignore-not-found", "--wait=false")


@pytest.fixture
def second(cluster: Cluster, tenant: Tenant) -> Iterator[Release]:
    release = Release(cluster, tenant.name)
    yield release
    release.remove()


def owners(cluster: Cluster) -> set[str]:
    """The releases that the CRDs belong to, which must all carry the policy that keeps them."""
    found = [Kube(cluster, "default").get("crd", name)["metadata"]["annotations"] for name in CRDS]
    assert {annotations["helm.sh/resource-policy"] for annotations in found} == {"keep"}
    return {annotations["meta.helm.sh/release-name"] for annotations in found}


@pytest.mark.xdist_group("alone")
def test_install_upgrade_uninstall(tenant: Tenant, database: Databases, bucket: Bucket, operator: Operator, second: Release) -> None:
    source = set_up(tenant, database, bucket)
    second.install("--set", "crds.create=false")
    assert (second.probe("/healthz"), second.probe("/readyz")) == ("ok", "ok")

    # Alone, with rights in one namespace only, it does the whole work there and leaves the rest be.
    (deployment,) = operator.kube.objects("deployments", "app.kubernetes.io/component=operator")
    elsewhere = Tenant(tenant.cluster, second.name)
    try:
        operator.kube.run("scale", "deployment", deployment["metadata"]["name"], "--replicas=0")
        operator.kube.run("wait", "pod", "-l", "app.kubernetes.io/component=operator", "--for=delete", "--timeout=60s")
        elsewhere.backup("outside")
        first = tenant.completed(tenant.backup("first", deletionPolicy="Delete"))
        assert elsewhere.get("dbb", "outside")["status"] == {"observedGeneration": -1}
    finally:
        operator.kube.run("scale", "deployment", deployment["metadata"]["name"], "--replicas=1")
        operator.wait_ready()
    log = second.log()
    assert f"{tenant.name}/first" in log
    assert "forbidden" not in log.lower()
    assert "/outside" not in log

    # An upgrade in mid-run: another pod goes on with the same Job.
    before = second.pod()
    with busy(source):
        held = waiting(tenant, tenant.backup("held"))
        second.install("--set", "crds.create=false", "--set", "podAnnotations.upgraded=yes")
        assert second.pod() != before
    done = tenant.completed(held)
    assert pods_made(tenant, done) == 1
    nothing_runs(tenant, done)

    # Uninstalled: it returns, and objects, artifacts and CRDs stay.
    second.uninstall()
    second.kube.run("wait", "pod", "-l", "app.kubernetes.io/component=operator", "--for=delete", "--timeout=60s")
    for obj in (first, done):
        assert tenant.get("dbb", obj["metadata"]["name"])["status"]["phase"] == "Completed"
        assert bucket.manifest(obj["status"]["artifact"]["key"])["objects"]

    # Whoever is installed next takes the finalizer's work up.
    tenant.delete("dbb", "first")
    tenant.wait_gone("dbb", "first")
    left = bucket.keys()
    assert {key.rsplit("/", 1)[0] for key in left} == {done["status"]["artifact"]["key"]}


@pytest.mark.xdist_group("alone")
def test_a_limit_for_the_whole_operator(tenant: Tenant, database: Databases, bucket: Bucket, operator: Operator, second: Release) -> None:
    """Backups and restores, of whatever storage and database, in order of arrival; an operator that
    starts anew counts what runs."""
    source, other = set_up(tenant, database, bucket), database(15)
    tenant.add_storage(bucket, "second-storage")
    tenant.add_database(other, "other")
    second.install("--set", "crds.create=false", "--set", "maxConcurrent=1")
    (deployment,) = operator.kube.objects("deployments", "app.kubernetes.io/component=operator")
    try:
        operator.kube.run("scale", "deployment", deployment["metadata"]["name"], "--replicas=0")
        operator.kube.run("wait", "pod", "-l", "app.kubernetes.io/component=operator", "--for=delete", "--timeout=60s")
        first = tenant.completed(tenant.backup("first"))
        with busy(source):
            held = waiting(tenant, tenant.backup("held"))
            queued = [
                queue(tenant, tenant.backup("next", "other", storageRef={"name": "second-storage"})),
                queue(tenant, tenant.restore("back", "first", "other", onExisting="Replace")),
            ]
            second.kube.run("delete", "pod", second.pod(), "--grace-period=0", "--force", "--wait=false")
            second.kube.run("rollout", "status", "deployment", "--timeout=90s")
            last = queue(tenant, tenant.backup("last", "other"))
            assert [job["metadata"]["name"] for job in tenant.objects("jobs")] == [held["status"]["jobName"]]
        ended = [tenant.completed(obj)["status"] for obj in (held, *queued, last)]
    finally:
        operator.kube.run("scale", "deployment", deployment["metadata"]["name"], "--replicas=1")
        operator.wait_ready()
    assert other.value("SELECT count(*) FROM things") == 300
    for before, after in itertools.pairwise(ended):
        assert before["completionTime"] <= after["startTime"], "one after the other, the older first"
    assert first["status"]["phase"] == "Completed"


def queue(tenant: Tenant, obj: Raw) -> Raw:
    """The object once it waits for its turn, and says so; a second later than the one before, as
    age is counted in seconds."""
    name = obj["metadata"]["name"]
    seen = tenant.wait_until(obj["kind"].lower(), name, lambda found: ready_reason(found) == "WaitingForTurn", 60, "waiting for its turn")
    assert seen["status"]["phase"] == "Pending"
    assert "the operator allows one run at once" in seen["status"]["conditions"][0]["message"]
    time.sleep(1.1)
    return seen


@pytest.mark.xdist_group("alone")
def test_crds_change_hands_and_stay_when_their_release_goes(cluster: Cluster, tenant: Tenant, operator: Operator, second: Release) -> None:
    """The two commands of the documentation: a release of another name takes over the CRDs that
    were kept."""
    (shared,) = owners(cluster)
    with pytest.raises(CommandFailed, match=r"take-ownership|invalid ownership metadata"):
        second.install()
    second.uninstall()
    tenant.backup("stays")
    try:
        second.install(*TAKE)
        assert owners(cluster) == {second.name}
        second.uninstall()
        assert owners(cluster) == {second.name}
        assert tenant.get("dbb", "stays")["spec"]["database"]
    finally:
        cluster.helm("upgrade", shared, str(CHART), "--namespace", operator.kube.name, "--reuse-values", *TAKE, "--wait")
    assert owners(cluster) == {shared}


def test_a_field_that_two_managers_set_conflicts_and_the_annotation_does_not(tenant: Tenant) -> None:
    """What people change by hand beside Helm or GitOps: a spec field that both hold is refused to
    the second, with both named."""
    mine = backup_object("shared", "db", deletionPolicy="Retain")
    apply(tenant, mine, "helm")
    tenant.patch("dbb", "shared", {"spec": {"deletionPolicy": "Delete"}}, "--field-manager=kubectl-dbbackup")
    with pytest.raises(CommandFailed, match=r'conflict with "kubectl-dbbackup".*\n?.*deletionPolicy'):
        apply(tenant, mine, "helm")
    tenant.run("annotate", "dbb", "shared", "example.com/note=by hand", "--field-manager=person")
    apply(tenant, backup_object("shared", "db", deletionPolicy="Delete"), "helm")
    assert tenant.get("dbb", "shared")["metadata"]["annotations"]["example.com/note"] == "by hand"


def apply(tenant: Tenant, obj: Raw, manager: str) -> None:
    tenant.run("apply", "--server-side", f"--field-manager={manager}", "-f", "-", stdin=yaml.safe_dump(obj))


def test_values_that_the_schema_refuses_do_not_reach_the_cluster(cluster: Cluster) -> None:
    done = subprocess.run(
        [*cluster.helm_argv, "install", "refused", str(CHART), "--dry-run=server", "--set", "maxConcurrent=many"],
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode
    assert "maxConcurrent" in done.stderr
