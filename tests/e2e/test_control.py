"""What happens to a run when something interrupts it: one run, the right end, nothing left behind,
nothing stuck.

A run is held in mid-course by the advisory lock that runs on one database exclude each other with.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.e2e.conftest import Operator
from tests.e2e.lib.kube import Raw
from tests.e2e.lib.postgres import Database
from tests.e2e.lib.s3 import Bucket
from tests.e2e.lib.tenant import Tenant

from dbbackup.dataplane.postgres.locks import KEY

Databases = Callable[..., Database]


@contextmanager
def busy(database: Database) -> Iterator[None]:
    """Another run's lock on the database: ours wait meanwhile."""
    with database.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (KEY,))
        yield


def ready_reason(obj: Raw) -> str | None:
    return next((item["reason"] for item in obj.get("status", {}).get("conditions", []) if item["type"] == "Ready"), None)


def waiting(tenant: Tenant, obj: Raw) -> Raw:
    """The object once its Job runs and waits for the database."""
    return tenant.wait_until(obj["kind"].lower(), obj["metadata"]["name"], lambda seen: ready_reason(seen) == "WaitingForDatabase", 90, "waiting")


def only_pod(tenant: Tenant, obj: Raw) -> str:
    (pod,) = tenant.pods_of(obj)
    return str(pod["metadata"]["name"])


def set_up(tenant: Tenant, database: Databases, bucket: Bucket, rows: int = 300) -> Database:
    source = database(15)
    source.execute(
        "CREATE TABLE things (id int PRIMARY KEY, name text)", f"INSERT INTO things SELECT n, 'thing ' || n FROM generate_series(1, {rows}) n"
    )
    tenant.add_storage(bucket)
    tenant.add_database(source)
    return source


def nothing_runs(tenant: Tenant, obj: Raw, timeout: float = 60) -> None:
    """No Job and no pod of the object is left."""
    deadline = time.monotonic() + timeout
    uid = obj["metadata"]["uid"]
    while left := [*tenant.objects("jobs", f"dbbackup.io/owner-uid={uid}"), *tenant.objects("pods", f"dbbackup.io/owner-uid={uid}")]:
        assert time.monotonic() < deadline, [item["metadata"]["name"] for item in left]
        time.sleep(0.3)


def empty(bucket: Bucket) -> bool:
    return bucket.keys() == [] and bucket.uploads() == []


def pods_made(tenant: Tenant, obj: Raw) -> int:
    """How many pods the Job controller has ever made for the object's own run."""
    job = obj["status"]["jobName"]
    return sum(event.get("count") or 1 for event in tenant.events("Job", job) if event["reason"] == "SuccessfulCreate")


# References in any order


def test_objects_may_be_applied_in_any_order(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    source, target = database(15), database(15)
    source.execute("CREATE TABLE things AS SELECT 1 AS id")
    back = tenant.restore("back", "one", "target")
    assert ready_reason(tenant.wait_until("dbr", "back", lambda seen: bool(ready_reason(seen)), 30)) == "WaitingForBackup"
    one = tenant.backup("one", "source")
    assert ready_reason(tenant.wait_until("dbb", "one", lambda seen: bool(ready_reason(seen)), 30)) == "WaitingForStorage"
    tenant.add_database(source, "source")
    tenant.add_database(target, "target")
    tenant.add_storage(bucket)
    tenant.completed(one)
    tenant.completed(back)
    assert target.value("SELECT count(*) FROM things") == 1


# Pods and Jobs that go


@pytest.mark.xdist_group("alone")  # an operator that starts in between has not seen the first attempt
def test_a_backups_pod_is_deleted_and_the_next_attempt_completes(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    source = set_up(tenant, database, bucket)
    with busy(source):
        one = waiting(tenant, tenant.backup("one"))
        tenant.run("delete", "pod", only_pod(tenant, one), "--wait=false")
        tenant.wait_until("dbb", "one", lambda seen: seen["status"].get("attempts") == 2, 90, "a second attempt")
    done = tenant.completed(one)
    assert done["status"]["attempts"] >= 2
    assert bucket.manifest(done["status"]["artifact"]["key"])["contents"]["tables"][0]["rows"] == 300
    keys = bucket.keys()
    assert len({key.rsplit("/", 1)[0] for key in keys}) == 1
    nothing_runs(tenant, one)


def test_a_backups_job_is_deleted(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    source = set_up(tenant, database, bucket)
    with busy(source):
        one = waiting(tenant, tenant.backup("one"))
        tenant.run("delete", "job", one["status"]["jobName"], "--wait=false")
        ended = tenant.finished(one)
    assert ended["status"]["phase"] == "Failed"
    assert ended["status"]["failure"]["reason"] in ("Terminated", "RunLost")
    assert empty(bucket)
    nothing_runs(tenant, one)


@pytest.mark.xdist_group("alone")  # an operator that starts in between has not seen the first attempt
def test_an_eviction_does_not_count_as_an_attempt_of_a_backup(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    source = set_up(tenant, database, bucket)
    with busy(source):
        one = waiting(tenant, tenant.backup("one", retries=0))
        evict(tenant, only_pod(tenant, one))
        tenant.wait_until("dbb", "one", lambda seen: seen["status"].get("attempts") == 2, 90, "a second attempt")
    assert tenant.completed(one)["status"]["phase"] == "Completed"


def evict(tenant: Tenant, pod: str) -> None:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": tenant.name}}
    tenant.run("create", "--raw", f"/api/v1/namespaces/{tenant.name}/pods/{pod}/eviction", "-f", "-", stdin=json.dumps(eviction))


@pytest.mark.parametrize("how", ["deleted", "evicted", "killed"])
def test_a_restore_whose_pod_goes_is_not_started_again_and_has_changed_nothing(how: str, tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    source, target = set_up(tenant, database, bucket), database(15)
    target.execute("CREATE TABLE mine AS SELECT 7 AS id")
    before = target.contents()
    tenant.completed(tenant.backup("one"))
    tenant.add_database(target, "target")
    with busy(target):
        back = waiting(tenant, tenant.restore("back", "one", "target", onExisting="Replace"))
        pod = only_pod(tenant, back)
        if how == "evicted":
            evict(tenant, pod)
        else:
            tenant.run("delete", "pod", pod, "--wait=false", *(["--grace-period=0", "--force"] if how == "killed" else []))
        ended = tenant.finished(back)
    assert ended["status"]["phase"] == "Failed"
    assert ended["status"]["failure"]["reason"] in ("Terminated", "RunLost", "Evicted")
    assert pods_made(tenant, ended) == 1
    assert target.contents() == before
    assert source.value("SELECT count(*) FROM things") == 300
    nothing_runs(tenant, back)


def test_a_container_killed_for_memory_is_looked_after_and_told(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    set_up(tenant, database, bucket)
    small = {"resources": {"requests": {"memory": "20Mi"}, "limits": {"memory": "20Mi"}}}
    ended = tenant.failed(tenant.backup("one", retries=0, job=small), "OutOfMemory")
    assert "memory" in ended["status"]["failure"]["hint"]
    assert empty(bucket)
    nothing_runs(tenant, ended)
    assert {event["reason"] for event in tenant.events("DatabaseBackup", "one")} >= {"JobCreated", "Checking", "Failed"}


def over_its_deadline(tenant: Tenant, obj: Raw) -> None:
    """The Job controller's own deadline, which a run that keeps its `timeout` never meets, is over
    in a second."""
    tenant.patch("job", obj["status"]["jobName"], {"spec": {"activeDeadlineSeconds": 1}})


@pytest.mark.parametrize("retries", [0, 2])
def test_the_job_controller_ends_a_backup_at_its_own_deadline(retries: int, tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    source = set_up(tenant, database, bucket)
    with busy(source):
        one = waiting(tenant, tenant.backup("one", retries=retries))
        over_its_deadline(tenant, one)
        ended = tenant.finished(one)
    # The controller deletes the pod: its own report is to be seen for a moment only.
    assert (ended["status"]["phase"], ended["status"]["failure"]["reason"] in ("DeadlineExceeded", "Terminated")) == ("Failed", True), ended["status"]
    assert pods_made(tenant, ended) == 1
    assert empty(bucket)
    nothing_runs(tenant, one)


# Pods that do not start


def test_a_pod_that_no_node_takes(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    set_up(tenant, database, bucket)
    one = tenant.backup("one", startDeadline="15s", job={"nodeSelector": {"there-is": "none"}})
    seen = tenant.wait_until(
        "dbb", "one", lambda seen: "node affinity" in str(seen.get("status", {}).get("conditions")), 30, "the scheduler's reason"
    )
    assert seen["status"]["phase"] == "Pending"
    ended = tenant.failed(one, "StartDeadlineExceeded", 60)
    assert "node affinity" in ended["status"]["failure"]["message"]
    nothing_runs(tenant, one)


def test_a_quota_that_holds_a_run_up_and_then_lets_it_go(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    set_up(tenant, database, bucket)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    tenant.apply(quota)
    tenant.wait_until("resourcequota", "none", lambda seen: bool(seen.get("status", {}).get("hard")), 30)
    one = tenant.backup("one")
    seen = tenant.wait_until("dbb", "one", lambda seen: ready_reason(seen) == "PodRefused", 30, "the quota's refusal")
    assert "exceeded quota" in seen["status"]["conditions"][0]["message"]
    tenant.run("delete", "resourcequota", "none")
    tenant.completed(one)


def test_a_limit_range_that_refuses_the_pod(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    set_up(tenant, database, bucket)
    limits = {"limits": [{"type": "Container", "max": {"memory": "32Mi"}}]}
    tenant.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": limits})
    one = tenant.backup("one", startDeadline="15s")
    ended = tenant.failed(one, "PodRefused", 60)
    assert "maximum memory usage per Container is 32Mi" in ended["status"]["failure"]["message"]
    nothing_runs(tenant, one)


# Objects that go


def test_a_backup_object_deleted_in_mid_run_leaves_nothing(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    source = set_up(tenant, database, bucket)
    with busy(source):
        one = waiting(tenant, tenant.backup("one"))
        tenant.delete("dbb", "one")
        tenant.wait_gone("dbb", "one", 10)
        nothing_runs(tenant, one)
    assert empty(bucket)


@pytest.mark.parametrize("cascade", ["background", "foreground"])
@pytest.mark.parametrize("when", ["running", "completed"])
def test_deletion_policy_delete(cascade: str, when: str, tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    source = set_up(tenant, database, bucket)
    if when == "running":
        with busy(source):
            one = waiting(tenant, tenant.backup("one", deletionPolicy="Delete"))
            tenant.delete("dbb", "one", f"--cascade={cascade}")
            tenant.wait_gone("dbb", "one", 60)
    else:
        one = tenant.completed(tenant.backup("one", deletionPolicy="Delete"))
        assert not empty(bucket)
        tenant.delete("dbb", "one", f"--cascade={cascade}")
        tenant.wait_gone("dbb", "one", 60)
    assert empty(bucket)
    assert "ArtifactDeleted" in {event["reason"] for event in tenant.events("DatabaseBackup", "one")}
    nothing_runs(tenant, one)


def test_an_artifact_is_retained_without_a_finalizer(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    set_up(tenant, database, bucket)
    one = tenant.completed(tenant.backup("one"))
    assert "finalizers" not in one["metadata"]
    tenant.delete("dbb", "one")
    tenant.wait_gone("dbb", "one", 10)
    assert bucket.manifest(one["status"]["artifact"]["key"])["objects"]


def test_a_deletion_policy_changed_later_counts(tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    set_up(tenant, database, bucket)
    kept, dropped = tenant.backup("kept", deletionPolicy="Delete"), tenant.backup("dropped", deletionPolicy="Retain")
    kept, dropped = tenant.completed(kept), tenant.completed(dropped)
    tenant.patch("dbb", "kept", {"spec": {"deletionPolicy": "Retain"}})
    tenant.patch("dbb", "dropped", {"spec": {"deletionPolicy": "Delete"}})
    tenant.wait_until("dbb", "kept", lambda seen: not seen["metadata"].get("finalizers"), 30, "no finalizer")
    tenant.wait_until("dbb", "dropped", lambda seen: bool(seen["metadata"].get("finalizers")), 30, "a finalizer")
    for name in ("kept", "dropped"):
        tenant.delete("dbb", name)
        tenant.wait_gone("dbb", name)
    keys = bucket.keys()
    assert {key.rsplit("/", 1)[0] for key in keys} == {kept["status"]["artifact"]["key"]}


@pytest.mark.parametrize("gone", ["secret", "storage"])
def test_a_deletion_gives_up_where_the_bucket_cannot_be_reached(gone: str, tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    set_up(tenant, database, bucket)
    one = tenant.completed(tenant.backup("one", deletionPolicy="Delete"))
    tenant.run("delete", *(("secret", "s3") if gone == "secret" else ("bst", "default")))
    tenant.delete("dbb", "one")
    tenant.wait_gone("dbb", "one", 90)
    (told,) = [event["message"] for event in tenant.events("DatabaseBackup", "one") if event["reason"] == "ArtifactRetained"]
    assert f"{bucket.name}/{one['status']['artifact']['key']} stays in the bucket" in told
    assert not empty(bucket)


@pytest.mark.parametrize("when", ["running", "completed"])
def test_a_namespace_goes_away_and_nothing_holds_it(when: str, tenant: Tenant, database: Databases, bucket: Bucket) -> None:
    source = set_up(tenant, database, bucket)
    if when == "running":
        with busy(source):
            waiting(tenant, tenant.backup("one", deletionPolicy="Delete"))
            tenant.cluster.kubectl("delete", "namespace", tenant.name, "--timeout=90s", timeout=100)
    else:
        one = tenant.completed(tenant.backup("one", deletionPolicy="Delete"))
        tenant.cluster.kubectl("delete", "namespace", tenant.name, "--timeout=90s", timeout=100)
        assert bucket.manifest(one["status"]["artifact"]["key"])["objects"], "the artifact is retained"


# The operator


@pytest.mark.xdist_group("alone")
@pytest.mark.parametrize("kind", ["backup", "restore"])
def test_the_operator_is_killed_in_mid_run(kind: str, tenant: Tenant, database: Databases, bucket: Bucket, operator: Operator) -> None:
    source, target = set_up(tenant, database, bucket), database(15)
    tenant.add_database(target, "target")
    if kind == "restore":
        tenant.completed(tenant.backup("one"))
    with busy(target if kind == "restore" else source):
        obj = waiting(tenant, tenant.restore("back", "one", "target") if kind == "restore" else tenant.backup("one"))
        operator.wait_ready()
        operator.kill()
    operator.wait_ready()
    done = tenant.completed(obj)
    assert pods_made(tenant, done) == 1
    if kind == "restore":
        assert target.value("SELECT count(*) FROM things") == 300
    nothing_runs(tenant, obj)


@pytest.mark.xdist_group("alone")
def test_a_run_that_ends_while_no_operator_is_there(tenant: Tenant, database: Databases, bucket: Bucket, operator: Operator) -> None:
    source = set_up(tenant, database, bucket)
    (deployment,) = operator.kube.objects("deployments", "app.kubernetes.io/component=operator")
    name = deployment["metadata"]["name"]
    try:
        with busy(source):
            one = waiting(tenant, tenant.backup("one"))
            operator.kube.run("scale", "deployment", name, "--replicas=0")
            operator.kube.run("wait", "pod", "-l", "app.kubernetes.io/component=operator", "--for=delete", "--timeout=60s")
        tenant.run("wait", "job", one["status"]["jobName"], "--for=condition=Complete", "--timeout=60s")
        assert tenant.get("dbb", "one")["status"]["phase"] == "Running"
    finally:
        operator.kube.run("scale", "deployment", name, "--replicas=1")
        operator.wait_ready()
    tenant.completed(one)
    nothing_runs(tenant, one)


@pytest.mark.xdist_group("alone")
def test_two_operators_by_accident_make_one_job_for_each_object(tenant: Tenant, database: Databases, bucket: Bucket, operator: Operator) -> None:
    set_up(tenant, database, bucket)
    (deployment,) = operator.kube.objects("deployments", "app.kubernetes.io/component=operator")
    name = deployment["metadata"]["name"]
    try:
        operator.kube.run("scale", "deployment", name, "--replicas=2")
        operator.wait_ready()
        done = [tenant.completed(obj) for obj in [tenant.backup(f"n{number}") for number in range(4)]]
    finally:
        operator.kube.run("scale", "deployment", name, "--replicas=1")
        operator.wait_ready()
    assert [pods_made(tenant, obj) for obj in done] == [1] * 4
    assert len({obj["status"]["artifact"]["key"] for obj in done}) == 4
    assert [len([e for e in tenant.events("DatabaseBackup", f"n{number}") if e["reason"] == "Completed"]) for number in range(4)] == [1] * 4
