"""`helm upgrade` from the first version, with runs in flight: each ends well with its one Job, and
nothing that was made before retention expires.

The CRDs are today's throughout, as the whole cluster shares them: the first version is installed
without its own. So it is in practice, where CRDs are upgraded before the operator;
tests/unit/test_crd_compatibility.py holds them to those of the first version.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.e2e.conftest import Operator
from tests.e2e.lib.cluster import Cluster
from tests.e2e.lib.hold import eventually
from tests.e2e.lib.kube import Raw, condition
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant
from tests.e2e.test_control import busy, nothing_runs, pods_made, ready_reason, set_up, waiting
from tests.e2e.test_helm import Release
from tests.e2e.test_schedules import annotate, made, schedule, settled
from tests.root import ROOT

SCRIPT = ROOT / "tests" / "upgrade" / "first-version.sh"
FIRST = ROOT / "build" / "first-version" / "charts" / "database-backup-operator"
IMAGE = "localhost/dbbackup/operator:first"


@pytest.fixture(scope="module")
def first_version(cluster: Cluster) -> tuple[Path, str]:
    """Chart and image of the first version."""
    if cluster.existing:
        pytest.skip("CLUSTER=existing: the first version's image is not in a registry")
    done = subprocess.run([SCRIPT, IMAGE], cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return FIRST, IMAGE


@pytest.fixture
def release(cluster: Cluster, tenant: Tenant) -> Iterator[Release]:
    found = Release(cluster, tenant.name)
    yield found
    found.remove()


def install(release: Release, tenant: Tenant, version: tuple[Path, str]) -> None:
    chart, image = version
    repository, _, tag = image.rpartition(":")
    release.kube.cluster.helm(
        *("upgrade", "--install", release.name, str(chart), "--namespace", release.name, "--create-namespace", "--wait", "--timeout", "2m"),
        *("--set", f"image.repository={repository}", "--set", f"image.tag={tag}", "--set", f"namespaces={{{tenant.name}}}"),
        *("--set", "rbac.aggregate=false", "--set", "crds.create=false"),
    )


@contextmanager
def away(operator: Operator) -> Iterator[None]:
    """The operator that all tests share does nothing meanwhile: it would work on this test's
    objects too."""
    pods = ("-l", "app.kubernetes.io/component=operator")
    operator.kube.run("scale", "deployment", *pods, "--replicas=0")
    try:
        operator.kube.run("wait", "pod", *pods, "--for=delete", "--timeout=60s")
        yield
    finally:
        operator.kube.run("scale", "deployment", *pods, "--replicas=1")
        operator.wait_ready()


def jobs_created(tenant: Tenant, obj: Raw) -> int:
    told = tenant.events(obj["kind"], obj["metadata"]["name"])
    return sum(event.get("count") or 1 for event in told if event["reason"] == "JobCreated")


@pytest.mark.xdist_group("alone")
def test_an_upgrade_from_the_first_version_with_runs_in_flight(
    first_version: tuple[Path, str],
    tenant: Tenant,
    database: Callable[..., Database],
    bucket: Bucket,
    operator: Operator,
    release: Release,
) -> None:
    target = database(15)
    tenant.add_database(target, "target")
    install(release, tenant, first_version)
    with away(operator):
        source = set_up(tenant, database, bucket)
        finished = [tenant.completed(tenant.backup(name)) for name in ("old-1", "old-2")]
        storage = tenant.wait_ready("bst", "default")
        assert "capabilities" not in storage["status"], "the first version believes a storage unseen"
        with ExitStack() as locks:
            locks.enter_context(busy(source))
            locks.enter_context(busy(target))
            flying = [waiting(tenant, tenant.backup("held")), waiting(tenant, tenant.restore("back", "old-1", "target"))]
            pending = tenant.restore("later", "held", "db", onExisting="Replace")
            tenant.wait_until("dbr", "later", lambda seen: ready_reason(seen) == "WaitingForBackup", 30, "waiting for the backup")
            release.install("--set", "crds.create=false")
            pod = release.pod()
            image = release.kube.get("pod", pod)["spec"]["containers"][0]["image"]
            assert image == tenant.cluster.image
        ended = [tenant.completed(obj) for obj in (*flying, pending)]

    for obj in ended:
        assert pods_made(tenant, obj) == 1, obj["metadata"]["name"]
        assert jobs_created(tenant, obj) == 1, obj["metadata"]["name"]
        nothing_runs(tenant, obj)
    assert target.value("SELECT count(*) FROM things") == 300
    looked_at = tenant.wait_until("bst", "default", lambda seen: "capabilities" in seen["status"], 60, "a real look")
    assert condition(looked_at, "Ready") == "True"
    assert looked_at["status"]["usage"]["orphans"] == 0

    # From now on backups expire, and these soon; those from before never do, though they are older.
    old = [*finished, ended[0]]
    tenant.patch("bst", "default", {"spec": {"defaultTTL": "10s"}})
    new = tenant.completed(tenant.backup("new"))
    assert new["status"]["expirationTime"]
    tenant.completed(tenant.backup("newest", ttl="never"))
    tenant.wait_until("dbb", "new", lambda seen: seen["status"]["phase"] == "Expired", 90, "Expired")
    tenant.create(schedule(immediate=True, retention={"keepLast": 1}))
    settled(tenant)
    annotate(tenant, "dbs", "nightly", run_now="1")
    tenant.wait_until("dbs", "nightly", lambda seen: seen["status"].get("lastRunNow") == "1", 60, "a second run")
    eventually(lambda: [obj["status"].get("phase") for obj in made(tenant)] == ["Completed"], "the newest alone is left of the schedule's")
    for before in old:
        seen = tenant.get("dbb", before["metadata"]["name"])
        assert seen["status"]["phase"] == "Completed"
        assert "expirationTime" not in seen["status"]
        key = seen["status"]["artifact"]["key"]
        assert "expiresAt" not in bucket.manifest(key)
        assert len(bucket.keys(f"{key}/")) == 3
    assert "forbidden" not in release.log().lower()
