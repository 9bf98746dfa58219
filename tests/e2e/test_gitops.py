"""GitOps on the cluster: what Flux and Argo CD make of real objects, that nothing drifts, that a
failed backup stops a release."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests import health
from tests.e2e.lib import gitops
from tests.e2e.lib.cluster import Cluster
from tests.e2e.lib.gitops import Tool, build
from tests.e2e.lib.kube import Raw, condition
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant
from tests.e2e.test_control import set_up
from tests.e2e.test_schedules import annotate, failures, schedule, settled
from tests.root import ROOT

Databases = Callable[..., Database]
TOOLS: tuple[Tool, ...] = ("kustomize-controller", "argocd-controller")
RUNS = {"DatabaseBackup", "DatabaseRestore"}
BY_PHASE = {
    "": ("Progressing", "InProgress"),
    "Pending": ("Progressing", "InProgress"),
    "Running": ("Progressing", "InProgress"),
    "Completed": ("Healthy", "Current"),
    "Failed": ("Degraded", "Failed"),
    "Expired": ("Healthy", "Current"),
}


# Health


def test_health_of_real_objects(tenant: Tenant, database: Databases, bucket: Bucket, run_id: str) -> None:
    """Every state that the cluster tells in a life with all phases, judged by the tools' own code;
    the tests' interpreters say the same."""
    with gitops.watched(tenant) as seen:
        live(tenant, database, bucket)
        objects = seen()
    told = gitops_told(gitops.evaluator(run_id), objects)
    phases: dict[str, set[str]] = defaultdict(set)
    last: dict[tuple[str, str], tuple[str, str]] = {}
    for obj, (flux, argo) in zip(objects, told, strict=True):
        phase = obj["status"].get("phase", "")
        phases[obj["kind"]].add(phase)
        last[obj["kind"], obj["metadata"]["name"]] = (argo.status, flux)
        if "deletionTimestamp" in obj["metadata"]:
            assert (argo.status, flux) == ("Progressing", "InProgress"), obj
        elif obj["kind"] in RUNS and phase != "Deleting":
            assert (argo.status, flux) == BY_PHASE[phase], obj
    assert phases["DatabaseBackup"] >= {"", "Pending", "Running", "Completed", "Failed", "Deleting", "Expired"}
    assert phases["DatabaseRestore"] >= {"", "Pending", "Completed", "Failed"}
    expected = {
        ("BackupStorage", "default"): ("Healthy", "Current"),
        ("BackupStorage", "wrong"): ("Degraded", "Failed"),
        ("BackupStorage", "late"): ("Progressing", "InProgress"),
        ("DatabaseBackupSchedule", "nightly"): ("Healthy", "Current"),
        ("DatabaseBackupSchedule", "paused"): ("Suspended", "Current"),
        ("DatabaseBackupSchedule", "broken"): ("Degraded", "Current"),
        ("DatabaseBackupSchedule", "nonsense"): ("Degraded", "Failed"),
    }
    assert {key: last[key] for key in expected} == expected
    near = [argo for obj, (_, argo) in zip(objects, told, strict=True) if condition(obj, "NearCapacity") == "True"]
    assert near
    assert near[-1].status == "Healthy"
    assert "are used" in near[-1].message


def gitops_told(binary: Path, objects: list[Raw]) -> list[tuple[health.Flux, health.Health]]:
    told = health.by_the_tools_own_code(binary, objects)
    assert told == [(health.flux(obj), health.argo(obj)) for obj in objects]
    return told


def live(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    source, target = set_up(tenant, database, bucket), database(15)
    tenant.patch("bst", "default", {"spec": {"capacity": "1Ki"}})
    tenant.add_database(target, "target")
    tenant.apply(bucket.storage("wrong", s3={"bucket": f"{bucket.name}-none"}), bucket.storage("late", s3={"endpoint": "http://127.0.0.1:9"}))
    tenant.create(schedule("paused"), schedule("broken", secret="missing", template={"retries": 0}), schedule("nightly"))
    tenant.create(schedule("nonsense", timeZone="Mars/Base"))
    annotate(tenant, "dbs", "paused", suspend="true")
    annotate(tenant, "dbs", "broken", run_now="1")
    first = tenant.backup("first", ttl="1s")
    gone = tenant.backup("gone", deletionPolicy="Delete")
    bad = tenant.backup("bad", "missing", retries=0)
    tenant.completed(first)
    tenant.completed(gone)
    tenant.completed(tenant.backup("second"))
    tenant.completed(tenant.restore("back", "second", "target"))
    tenant.failed(tenant.restore("again", "second", "target"), "TargetNotEmpty")
    tenant.delete("dbb", "gone")
    annotate(tenant, "dbs", "nightly", run_now="1")
    annotate(tenant, "bst", "default", check_now="1")
    settled(tenant)
    tenant.failed(bad, "SecretMissing")
    tenant.wait_until("dbs", "broken", failures(1), 90, "a failure")
    tenant.wait_until("dbb", "first", lambda obj: obj["status"].get("phase") == "Expired", 90, "Expired")
    tenant.wait_gone("dbb", "gone")
    tenant.wait_until("bst", "default", lambda obj: condition(obj, "NearCapacity") == "True", 60, "NearCapacity")
    tenant.wait_until("bst", "wrong", lambda obj: condition(obj, "Stalled") == "True", 90, "Stalled")
    tenant.wait_until("dbs", "paused", lambda obj: bool(obj["status"].get("suspended")), 30, "suspended")
    tenant.wait_until("dbs", "nonsense", lambda obj: condition(obj, "Stalled") == "True", 30, "Stalled")
    assert source.value("SELECT count(*) FROM things") == target.value("SELECT count(*) FROM things")


# Nothing drifts


def everything(tenant: Tenant, source: Database, bucket: Bucket) -> list[Raw]:
    """The objects of all examples and of the example repository, in the tenant's namespace, on its
    bucket and its database."""
    texts = [path.read_text() for path in sorted((ROOT / "examples").glob("*.yaml"))]
    found = [document for text in texts for document in yaml.safe_load_all(text.replace("PUT-THE-KEY-HERE", "not/there"))]
    found += [obj for folder in ("tenants/shop", "apps/shop") for obj in build(tenant.cluster, folder)]
    ours = [copy.deepcopy(obj) for obj in found if obj["apiVersion"].startswith("dbbackup.io/")]
    names: dict[tuple[str, str], Raw] = {}
    for obj in ours:
        obj["metadata"].pop("namespace")
        if obj["kind"] == "BackupStorage":
            obj["spec"] = {**obj["spec"], "s3": bucket.storage()["spec"]["s3"]}
        if "databases" in obj["spec"]:
            obj["spec"]["databases"] = {"include": [source.name]}  # the server has those of other tests too
        names[obj["kind"], obj["metadata"]["name"]] = obj
    return list(names.values())


def held(obj: Raw) -> Raw:
    """What is the tool's and not the operator's."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("resourceVersion", "managedFields")}
    return {"metadata": metadata, "spec": obj["spec"]}


def owners(obj: Raw) -> dict[str, set[str]]:
    """Field manager -> what it has written at the top."""
    found: dict[str, set[str]] = defaultdict(set)
    for entry in obj["metadata"]["managedFields"]:
        found[entry["manager"]] |= set(entry["fieldsV1"])
    return found


def test_objects_never_fight_the_tool(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    """Every example, applied before, while and after it runs, by Flux and by Argo CD: no field is
    another's, no spec changes, nothing differs, and at the end a further apply writes nothing."""
    source = database(15)
    source.execute("CREATE TABLE things AS SELECT generate_series(1, 10) AS id")
    for secret in ("assetdex-db", "shop-db"):
        tenant.add_database(source, secret)
    tenant.apply(bucket.secret())
    objects = everything(tenant, source, bucket)
    assert {obj["kind"] for obj in objects} == {"BackupStorage", "DatabaseBackup", "DatabaseBackupSchedule", "DatabaseRestore"}
    first = {(obj["kind"], obj["metadata"]["name"]): obj for obj in gitops.apply(tenant, TOOLS[0], *objects)}

    def over() -> bool:
        runs = [obj for kind in ("dbb", "dbr") for obj in tenant.objects(kind)]
        return all(condition(obj, "Finished") == "True" for obj in runs)

    applied = 0
    for tool in gitops.until(tenant, over, itertools.cycle(reversed(TOOLS)), "the end of all runs", 180):
        for obj in gitops.apply(tenant, tool, *objects):
            assert held(obj) == held(first[obj["kind"], obj["metadata"]["name"]])
        applied += 1
    assert applied >= 2, "they ended before both tools had applied them once more"
    for kind in ("bst", "dbs"):
        for obj in tenant.objects(kind):
            tenant.wait_until(kind, obj["metadata"]["name"], lambda seen: health.flux(seen) != "InProgress", 90, "an end")

    for tool in TOOLS:
        before = {(obj["kind"], obj["metadata"]["name"]): obj for obj in gitops.apply(tenant, tool, *objects)}
        for obj in gitops.apply(tenant, tool, *objects):
            known = before[obj["kind"], obj["metadata"]["name"]]
            assert held(obj) == held(first[obj["kind"], obj["metadata"]["name"]])
            assert obj["metadata"]["generation"] == 1
            assert obj["metadata"]["managedFields"] == known["metadata"]["managedFields"], "a second apply writes nothing"
            assert owners(obj)[tool] <= {"f:metadata", "f:spec"}
            others = set().union(*(fields for manager, fields in owners(obj).items() if manager not in TOOLS))
            assert others == {"f:status"}, owners(obj)
        assert gitops.drift(tenant, tool, *objects) == ""

    by_hand(tenant, objects)
    pruned(tenant, bucket, objects)


def by_hand(tenant: Tenant, objects: list[Raw]) -> None:
    """What a person sets beside the tool stays, and is no drift: with Flux where the object says
    so, as those of the example repository do."""
    annotate(tenant, "dbs", "nightly", suspend="true")
    annotate(tenant, "dbs", "assetdex-nightly", suspend="true")
    annotate(tenant, "dbb", "before-release-42", pin="true")
    tenant.wait_until("dbs", "nightly", lambda seen: bool(seen["status"].get("suspended")), 30, "suspended")
    tenant.wait_until("dbb", "before-release-42", lambda seen: seen["status"].get("expires") == "pinned", 30, "pinned")
    for tool in reversed(TOOLS):
        gitops.apply(tenant, tool, *objects)
        assert gitops.drift(tenant, tool, *objects) == ""
        assert tenant.get("dbs", "nightly")["metadata"]["annotations"]["dbbackup.io/suspend"] == "true"
        assert tenant.get("dbb", "before-release-42")["metadata"]["annotations"]["dbbackup.io/pin"] == "true"
        other = tenant.get("dbs", "assetdex-nightly")["metadata"].get("annotations", {})
        assert ("dbbackup.io/suspend" in other) == (tool == "argocd-controller"), "Flux undoes what kubectl did"
    assert tenant.get("dbs", "nightly")["status"]["suspended"] is True


def pruned(tenant: Tenant, bucket: Bucket, objects: list[Raw]) -> None:
    """Everything goes from Git: the tool deletes its objects, and no artifact goes, nor any backup
    that a schedule has made."""

    def manifests() -> list[str]:
        return [key for key in bucket.keys() if key.endswith("/manifest.json")]  # noqa: SIM118 - a method of ours

    artifacts = manifests()
    assert artifacts
    made = {obj["metadata"]["name"] for obj in tenant.objects("dbb", "dbbackup.io/schedule")}
    assert made
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    tenant.run("delete", "-f", "-", "--wait", "--timeout=60s", stdin=text)
    assert manifests() == artifacts
    assert {obj["metadata"]["name"] for obj in tenant.objects("dbb")} == made


# A backup before a release

MIGRATION = """
import os, psycopg
told = {name: os.environ[name] for name in ("host", "dbname", "password")}
with psycopg.connect(user=os.environ["username"], **told) as connection:
    connection.execute("CREATE TABLE RELEASE (id int)")
"""


def released(tenant: Tenant, folder: str, release: str) -> list[Raw]:
    """A folder of apps/shop at that release, with images that the cluster has."""
    text = json.dumps(build(tenant.cluster, f"apps/shop/{folder}"))
    found: list[Raw] = json.loads(re.sub(r"(?<=[-:])42(?=\")", release, text))
    return [here(tenant, obj, release) for obj in found]


def here(tenant: Tenant, obj: Raw, release: str) -> Raw:
    obj["metadata"].pop("namespace", None)
    if obj["kind"] == "Job":
        pod = obj["spec"]["template"]["spec"]
        [container] = pod["containers"]
        container["image"], container["command"] = tenant.cluster.image, ["python", "-c", MIGRATION.replace("RELEASE", f"release_{release}")]
        del container["args"]
        for step in pod.get("initContainers", ()):
            step["image"] = tenant.cluster.kubectl_image
    if obj["kind"] == "Deployment":
        obj["spec"]["replicas"] = 0
    return obj


def tables(source: Database) -> set[str]:
    return {name for (name,) in source.query("SELECT relname FROM pg_class WHERE relname LIKE 'release%'")}


def wrong_password(tenant: Tenant, source: Database) -> None:
    broken = source.secret("shop-db")
    broken["stringData"]["password"] = "not-it"
    tenant.apply(broken)


@pytest.fixture
def shop(tenant: Tenant, database: Databases, bucket: Bucket) -> Database:
    source = set_up(tenant, database, bucket)
    tenant.add_database(source, "shop-db")
    return source


def test_argo_cd_a_failed_backup_stops_the_release(tenant: Tenant, shop: Database, bucket: Bucket) -> None:
    def sync(release: str) -> gitops.Outcome:
        return gitops.argo_sync(tenant, [obj for folder in ("1-backup", "2-migration", "3-app") for obj in released(tenant, folder, release)])

    assert sync("42") == "good"
    assert tables(shop) == {"release_42"}
    first = tenant.get("dbb", "before-release-42")
    assert tenant.find("deployment", "shop")

    shop.execute("DROP TABLE release_42")
    assert sync("42") == "good", "a second sync runs the hooks again"
    second = tenant.get("dbb", "before-release-42")
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    for obj in (first, second):
        assert bucket.manifest(obj["status"]["artifact"]["key"])["objects"], "the first one's artifact stays"

    wrong_password(tenant, shop)
    assert sync("43") == "failed"
    assert health.argo(tenant.get("dbb", "before-release-43")).message.startswith("AuthenticationFailed: ")
    assert tenant.find("job", "migrate-43") is None
    assert tables(shop) == {"release_42"}


def test_flux_a_failed_backup_stops_the_release(tenant: Tenant, shop: Database) -> None:
    def reconcile(release: str) -> gitops.Outcome:
        return gitops.flux_reconcile(tenant, released(tenant, "1-backup", release), released(tenant, "2-migration", release))

    assert reconcile("42") == "good"
    assert tables(shop) == {"release_42"}
    done = tenant.get("dbb", "before-release-42")
    assert reconcile("42") == "good", "the same commit again"
    assert tenant.get("dbb", "before-release-42")["metadata"] == done["metadata"]

    wrong_password(tenant, shop)
    assert reconcile("43") == "failed"
    assert tenant.find("job", "migrate-43") is None
    tenant.add_database(shop, "shop-db")
    assert reconcile("43") == "failed", "a run is one run"
    tenant.run("delete", "dbb", "before-release-43", "--wait")
    assert reconcile("43") == "good", "deleted, the tool makes it anew"
    assert tables(shop) == {"release_42", "release_43"}


def test_a_job_of_its_own_does_the_same_where_there_is_no_such_tool(tenant: Tenant, shop: Database) -> None:
    def portable(release: str) -> str:
        text = re.sub(r"(?<=[-:])42\b", release, (gitops.TREE / "portable" / "migration.yaml").read_text())
        tenant.apply(*(here(tenant, obj, release) for obj in yaml.safe_load_all(text)))
        job: dict[str, Any] = {"kind": "Job", "metadata": {"name": f"migrate-{release}"}}
        return gitops.wait(tenant, job, gitops.argo)

    assert portable("42") == "good"
    assert tables(shop) == {"release_42"}
    assert tenant.get("dbb", "before-release-42")["status"]["phase"] == "Completed"
    wrong_password(tenant, shop)
    assert portable("43") == "failed"
    assert tenant.get("dbb", "before-release-43")["status"]["failure"]["reason"] == "AuthenticationFailed"
    assert tables(shop) == {"release_42"}


# The example repository

FOREIGN = {"ExternalSecret", "GitRepository", "HelmRelease", "Application"}
"""Kinds of tools that are not in the cluster."""


def test_the_example_repository_builds_and_is_taken(cluster: Cluster, tenant: Tenant) -> None:
    """Each folder by kustomize; all that the cluster knows by the API server, with unknown fields
    refused."""
    foreign = set()
    for path in sorted(gitops.TREE.rglob("kustomization.yaml")):
        for obj in build(cluster, str(path.parent.relative_to(gitops.TREE))):
            if obj["kind"] in FOREIGN or obj["apiVersion"].startswith("kustomize.toolkit.fluxcd.io"):
                foreign.add(obj["kind"])
                continue
            if obj["kind"] != "Namespace":
                obj["metadata"]["namespace"] = tenant.name
            cluster.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(obj))
    assert foreign == {*FOREIGN, "Kustomization"}


def test_the_health_checks_reach_every_kustomization(cluster: Cluster) -> None:
    made = [obj for obj in build(cluster, "flux") if obj["kind"] == "Kustomization"]
    assert len(made) == 5
    for obj in made:
        assert {entry["kind"]: entry for entry in obj["spec"]["healthCheckExprs"]} == health.expressions()


def test_argo_cds_config_map_takes_the_patch(tenant: Tenant) -> None:
    """As the documentation says it: a strategic merge into a ConfigMap that holds other keys."""
    tenant.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm"}, "data": {"url": "https://argocd.example.com"}})
    patch = yaml.safe_load((gitops.TREE / "argocd" / "argocd-cm.yaml").read_text())
    patch["metadata"]["namespace"] = tenant.name
    tenant.run("patch", "configmap", "argocd-cm", "--type=strategic", "-p", yaml.safe_dump(patch))
    assert tenant.get("configmap", "argocd-cm")["data"] == {"url": "https://argocd.example.com", **health.scripts()}
