"""Audit lines of objects that people create, change and delete, derived from the objects alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.support.plan_world import Raw, backup_obj, restore_obj, storage_obj

from dbbackup.handlers.auditing import Auditor
from dbbackup.handlers.cache import key_of
from dbbackup.process import JsonFormatter

DONE = {"phase": "Completed", "conditions": [{"type": "Ready"}], "artifact": {"key": "team/ns/h/d/x"}}


def managed(name: str, fields: Raw, time: str = "2026-11-23T01:00:00Z", operation: str = "Update", **more: str) -> Raw:
    return {"manager": name, "operation": operation, "time": time, "fieldsV1": fields, **more}


def written(obj: Raw, *managers: Raw, version: int = 5, **annotations: str | None) -> Raw:
    """The object as the API server shows it then; annotations by their short names, None to have
    none."""
    known = {**(obj["metadata"].get("annotations") or {}), **{f"dbbackup.io/{name.replace('_', '-')}": value for name, value in annotations.items()}}
    metadata = {
        **obj["metadata"],
        "resourceVersion": str(version),
        "annotations": {name: value for name, value in known.items() if value is not None},
        "managedFields": [*obj["metadata"].get("managedFields", ()), *managers],
    }
    return {**obj, "metadata": metadata}


def changed(obj: Raw, spec: Raw, version: int) -> Raw:
    metadata = {**obj["metadata"], "generation": obj["metadata"]["generation"] + 1, "resourceVersion": str(version)}
    return {**obj, "metadata": metadata, "spec": {**obj["spec"], **spec}}


def going(obj: Raw, version: int = 9) -> Raw:
    metadata = {**obj["metadata"], "deletionTimestamp": "2026-11-23T02:00:00Z", "resourceVersion": str(version)}
    return {**obj, "metadata": {**metadata, "generation": metadata["generation"] + 1}}


def schedule_obj(status: Raw | None = None, **spec: Any) -> Raw:
    template = {"spec": {"database": {"secretRef": {"name": "app-db"}}}}
    obj = {**backup_obj(status), "kind": "DatabaseBackupSchedule"}
    return {**obj, "spec": {"schedule": "@daily", "template": template, **spec}}


SPEC: Raw = {"f:spec": {}}


def annotated(name: str) -> Raw:
    return {"f:metadata": {"f:annotations": {".": {}, f"f:dbbackup.io/{name}": {}}}}


@pytest.fixture
def auditor() -> Auditor:
    """The auditor of an operator that has listed: an object that is new was created just now."""
    found = Auditor()
    found.listed([])
    return found


@pytest.fixture
def recorded(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, str]]]:
    """The audit lines since it was called last."""

    def lines() -> list[dict[str, str]]:
        found = [json.loads(JsonFormatter().format(item)) for item in caplog.records if item.name == "dbbackup.audit"]
        caplog.clear()
        return found

    return lines


Recorded = Callable[[], list[dict[str, str]]]


def short(lines: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    return [(line["action"], line["who"], line["via"]) for line in lines]


# Creation


def test_a_backup_made_by_plain_kubectl_names_the_manager_and_no_person(auditor: Auditor, recorded: Recorded) -> None:
    auditor.shown(written(backup_obj(), managed("kubectl-create", SPEC)))
    [line] = recorded()
    assert (line["action"], line["kind"], line["namespace"], line["name"]) == ("create", "DatabaseBackup", "ns", "nightly")
    assert (line["who"], line["via"], line["outcome"]) == ("unknown", "kubectl", "allowed")
    assert line["source"] == "manager kubectl-create Update 2026-11-23T01:00:00Z"
    assert line["target"] == "Secret app-db"
    assert line["uid"]


@pytest.mark.parametrize(("manager", "via"), [("dbbackup-cli", "cli"), ("dbbackup-console", "console"), ("argocd-controller", "argocd-controller")])
def test_the_annotation_names_the_person(auditor: Auditor, recorded: Recorded, manager: str, via: str) -> None:
    auditor.shown(written(backup_obj(), managed(manager, SPEC), requested_by="alice"))
    assert short(recorded()) == [("create", "alice", via)]


def test_a_restore_is_recorded_with_its_source_and_target(auditor: Auditor, recorded: Recorded) -> None:
    obj = restore_obj(source={"backupRef": {"name": "one"}}, database={"host": "db", "name": "shop", "secretRef": {"name": "owner"}})
    auditor.shown(written(obj, managed("kubectl-create", SPEC)))
    [line] = recorded()
    assert (line["action"], line["from"], line["target"]) == ("restore", "DatabaseBackup one", "Secret owner db/shop")


def test_nothing_is_recorded_twice_however_often_it_is_shown(auditor: Auditor, recorded: Recorded) -> None:
    obj = written(backup_obj(), managed("kubectl-create", SPEC))
    auditor.shown(obj)
    auditor.shown(obj)
    auditor.shown(written({**obj, "status": DONE}, version=6))
    auditor.shown(obj)  # a list that was on its way
    assert short(recorded()) == [("create", "unknown", "kubectl")]


def test_after_a_restart_only_objects_that_no_operator_has_seen_are_new(recorded: Recorded) -> None:
    auditor = Auditor()
    old = written({**backup_obj(DONE), "metadata": {**backup_obj()["metadata"], "uid": "old", "name": "old"}}, managed("kubectl-create", SPEC))
    auditor.shown(old)
    auditor.shown(written(backup_obj(), managed("kubectl-create", SPEC)))
    auditor.listed([])
    assert [line["name"] for line in recorded()] == ["nightly"]
    auditor.shown(written({**old, "metadata": {**old["metadata"], "uid": "new", "name": "new"}}))
    assert [line["name"] for line in recorded()] == ["new"]


def test_objects_of_the_operator_are_its_own_and_no_manager_can_claim_that(auditor: Auditor, recorded: Recorded) -> None:
    obj = backup_obj()
    auditor.creating(key_of(obj))
    auditor.shown(written(obj, managed("dbbackup-operator", SPEC)))
    assert short(recorded()) == [("create", "operator", "operator")]
    other = {**obj, "metadata": {**obj["metadata"], "uid": "other"}}
    auditor.shown(written(other, managed("dbbackup-operator", SPEC), version=9))
    assert short(recorded()) == [("create", "unknown", "dbbackup-operator")]
    auditor.creating(key_of(obj))
    quicker = {**obj, "metadata": {**obj["metadata"], "uid": "quicker"}}
    auditor.shown(written(quicker, managed("kubectl-create", SPEC), version=10))  # of the very name that the operator wants
    assert short(recorded()) == [("create", "unknown", "kubectl")]
    auditor.creating(key_of(obj))
    auditor.not_created(key_of(obj))
    auditor.shown(written({**obj, "metadata": {**obj["metadata"], "uid": "third"}}, managed("kubectl-create", SPEC), version=11))
    assert short(recorded()) == [("create", "unknown", "kubectl")]


# Changes


def test_pin_and_unpin(auditor: Auditor, recorded: Recorded) -> None:
    obj = written(backup_obj(DONE), managed("kubectl-create", SPEC))
    auditor.shown(obj)
    recorded()
    pinned = written(obj, managed("kubectl-annotate", annotated("pin"), "2026-11-23T03:00:00Z"), version=6, pin="true")
    auditor.shown(pinned)
    [line] = recorded()
    assert (line["action"], line["who"], line["via"], line["source"]) == (
        "pin",
        "unknown",
        "kubectl",
        "manager kubectl-annotate Update 2026-11-23T03:00:00Z",
    )
    auditor.shown(written(obj, version=7, pin=None))
    assert short(recorded()) == [("unpin", "unknown", "unknown")]


@pytest.mark.parametrize(("name", "action"), [("run_now", "run-now"), ("approve_prune", "approve-prune")])
def test_each_request_to_a_schedule_is_recorded(auditor: Auditor, recorded: Recorded, name: str, action: str) -> None:
    obj = schedule_obj(DONE)
    auditor.shown(obj)
    recorded()
    for version, token in enumerate(("one", "two"), 6):
        auditor.shown(written(obj, managed("kubectl-annotate", annotated(action)), version=version, **{name: token}))
        [line] = recorded()
        assert (line["action"], line["target"], line["via"]) == (action, token, "kubectl")


@pytest.mark.parametrize(("name", "action"), [("import", "import"), ("check_now", "check-now"), ("approve_prune", "approve-prune")])
def test_each_request_to_a_storage_is_recorded(auditor: Auditor, recorded: Recorded, name: str, action: str) -> None:
    obj = {**storage_obj(), "status": DONE}
    auditor.shown(obj)
    recorded()
    auditor.shown(written(obj, managed("kubectl-annotate", annotated(action)), version=6, **{name: "now"}))
    assert [(line["action"], line["target"]) for line in recorded()] == [(action, "now")]


def test_suspend_by_annotation_and_by_spec(auditor: Auditor, recorded: Recorded) -> None:
    obj = written(schedule_obj(DONE, suspend=False), managed("kubectl-create", {"f:spec": {"f:suspend": {}}}))
    auditor.shown(obj)
    recorded()
    auditor.shown(written(obj, managed("kubectl-annotate", annotated("suspend")), version=6, suspend="true"))
    auditor.shown(written(obj, version=7))
    auditor.shown(
        written(changed(obj, {"suspend": True}, 8), managed("argocd-controller", {"f:spec": {"f:suspend": {}}}, "2026-11-23T05:00:00Z"), version=8)
    )
    assert short(recorded()) == [("suspend", "unknown", "kubectl"), ("resume", "unknown", "unknown"), ("suspend", "unknown", "argocd-controller")]


def test_a_changed_spec_is_an_update_and_a_changed_status_is_not(auditor: Auditor, recorded: Recorded) -> None:
    obj = written(schedule_obj(DONE), managed("kubectl-create", SPEC))
    auditor.shown(obj)
    recorded()
    auditor.shown(
        written({**obj, "status": {**DONE, "missedRuns": 1}}, managed("dbbackup-operator", {"f:status": {}}, subresource="status"), version=6)
    )
    assert recorded() == []
    auditor.shown(written(changed(obj, {"schedule": "@hourly"}, 7), managed("kubectl-edit", SPEC, "2026-11-23T04:00:00Z"), version=7))
    assert short(recorded()) == [("update", "unknown", "kubectl")]


def test_a_writer_that_the_policy_trusts_names_the_person_of_a_change(auditor: Auditor, recorded: Recorded) -> None:
    obj = written(backup_obj(DONE), managed("kubectl-create", SPEC), requested_by="alice")
    auditor.shown(obj)
    recorded()
    auditor.shown(written(obj, managed("dbbackup-console", annotated("pin")), version=6, pin="true", requested_by="bob"))
    assert short(recorded()) == [("pin", "bob", "console")]


def test_requests_that_are_still_open_are_recorded_after_a_restart(recorded: Recorded) -> None:
    auditor = Auditor()
    auditor.shown(written(schedule_obj({**DONE, "lastRunNow": "one"}), managed("kubectl-annotate", annotated("run-now")), run_now="one"))
    assert recorded() == []
    other = schedule_obj({**DONE, "lastRunNow": "one"})
    auditor.shown(written({**other, "metadata": {**other["metadata"], "uid": "other"}}, run_now="two"))
    assert [(line["action"], line["target"]) for line in recorded()] == [("run-now", "two")]


def test_an_older_answer_undoes_nothing(auditor: Auditor, recorded: Recorded) -> None:
    obj = backup_obj(DONE)
    pinned = written(obj, managed("kubectl-annotate", annotated("pin")), version=6, pin="true")
    auditor.shown(obj)
    auditor.shown(pinned)
    auditor.shown(obj)
    auditor.shown(pinned)
    assert [action for action, _, _ in short(recorded())] == ["create", "pin"]


def test_the_writer_of_a_status_is_not_the_creator(auditor: Auditor, recorded: Recorded) -> None:
    status = managed("dbbackup-operator", {"f:status": {}}, "2026-11-23T00:59:59Z", subresource="status")
    auditor.shown(written(backup_obj(), status, managed("odd-client", {"f:metadata": {"f:labels": {}}})))
    assert short(recorded()) == [("create", "unknown", "odd-client")]


# Deletion


def test_a_deletion_is_recorded_once_by_an_unknown_person(auditor: Auditor, recorded: Recorded) -> None:
    obj = written(backup_obj(DONE, deletionPolicy="Delete"), managed("kubectl-create", SPEC), requested_by="alice")
    auditor.shown(obj)
    recorded()
    auditor.shown(going(obj))
    auditor.shown(going(obj, 10), deleted=True)
    auditor.shown(obj)
    [line] = recorded()
    assert (line["action"], line["who"], line["via"], line["deletion_policy"]) == ("delete", "unknown", "unknown", "Delete")


def test_a_deletion_that_a_watch_missed_is_recorded(auditor: Auditor, recorded: Recorded) -> None:
    obj = backup_obj(DONE)
    auditor.shown(obj)
    recorded()
    auditor.gone(key_of(obj), obj["metadata"]["uid"])
    auditor.shown(going(obj), deleted=True)
    assert short(recorded()) == [("delete", "unknown", "unknown")]


def test_an_object_that_is_gone_before_it_was_seen_was_made_and_deleted(auditor: Auditor, recorded: Recorded) -> None:
    auditor.shown(written(backup_obj(), managed("kubectl-create", SPEC)), deleted=True)
    auditor.shown(going({**backup_obj(), "metadata": {**backup_obj()["metadata"], "uid": "other"}}), deleted=True)
    assert [action for action, _, _ in short(recorded())] == ["create", "delete"] * 2


def test_retention_records_why_it_deletes(auditor: Auditor, recorded: Recorded) -> None:
    obj = backup_obj(DONE)
    auditor.shown(obj)
    recorded()
    auditor.deleting(obj["metadata"]["uid"], "Expired")
    auditor.shown(going(obj), deleted=True)
    [line] = recorded()
    assert (line["who"], line["via"], line["reason"]) == ("operator", "operator", "Expired")


# Pods that people make


def pod(**labels: str) -> Raw:
    metadata = {
        "name": "dbbackup-serve-x",
        "namespace": "ns",
        "uid": "pod-uid",
        "resourceVersion": "7",
        "labels": {f"dbbackup.io/{name.replace('_', '-')}": value for name, value in labels.items()},
        "annotations": {"dbbackup.io/requested-by": "alice"},
        "ownerReferences": [{"kind": "BackupStorage", "name": "default"}],
        "managedFields": [managed("dbbackup-cli", SPEC)],
    }
    return {"kind": "Pod", "metadata": metadata}


def test_a_pod_that_reads_a_storage_for_a_person_is_recorded_once(auditor: Auditor, recorded: Recorded) -> None:
    auditor.shown(pod(run="serve", tool="kubectl"))
    auditor.shown(pod(run="serve", tool="kubectl"))
    [line] = recorded()
    assert (line["action"], line["who"], line["via"], line["kind"], line["target"]) == ("transfer", "alice", "cli", "Pod", "BackupStorage default")


def test_pods_of_the_operators_jobs_and_those_of_before_are_not(auditor: Auditor, recorded: Recorded) -> None:
    auditor.shown(pod(run="backup", owner_uid="x"))
    auditor.shown(pod(run="backup", owner_uid="x", tool="kubectl"))
    auditor.shown(pod(run="serve"))
    started = Auditor()
    started.shown(pod(run="serve", tool="kubectl"))
    started.listed([])
    started.shown(pod(run="serve", tool="kubectl"))
    assert recorded() == []


# Outcomes


@pytest.mark.parametrize(
    ("obj", "status", "wanted"),
    [
        (backup_obj(), DONE, ("backup-ended", "succeeded", "")),
        (backup_obj(), {"phase": "Failed", "failure": {"reason": "AuthenticationFailed"}}, ("backup-ended", "failed", "AuthenticationFailed")),
        (restore_obj(), {"phase": "Failed", "failure": {"reason": "TargetNotEmpty"}}, ("restore-ended", "failed", "TargetNotEmpty")),
    ],
)
def test_the_end_of_a_run_is_recorded(auditor: Auditor, recorded: Recorded, obj: Raw, status: Raw, wanted: tuple[str, str, str]) -> None:
    before = written({**obj, "status": {"phase": "Running"}}, requested_by="alice")
    auditor.status_written(before, {**before, "status": status})
    [line] = recorded()
    assert (line["action"], line["outcome"], line.get("reason", "")) == wanted
    assert (line["who"], line["via"]) == ("alice", "operator")


def test_other_changes_of_status_are_not_recorded_as_ends(auditor: Auditor, recorded: Recorded) -> None:
    auditor.status_written(backup_obj(), backup_obj({"phase": "Running"}))
    auditor.status_written(backup_obj(origin="Discovered"), backup_obj(DONE, origin="Discovered"))
    auditor.status_written(backup_obj(DONE), backup_obj({"phase": "Failed", "failure": {"reason": "ArtifactMissing"}}))
    auditor.status_written({**storage_obj(), "status": {}}, {**storage_obj(), "status": {"conditions": []}})
    assert recorded() == []
