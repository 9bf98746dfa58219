"""The Job's manifest: what makes it safe, and what makes it one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.support.plan_world import SETTINGS, UID, backup_obj, decide, facts, restore_obj

from dbbackup.contract.errors import ExitCode
from dbbackup.contract.run import RunSpec
from dbbackup.plan.jobs import job_manifest, job_name

names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?", fullmatch=True)


def manifest(obj: dict[str, Any]) -> dict[str, Any]:
    created = decide(facts(obj)).create
    assert created is not None
    return dict(created)


@given(names, st.uuids(), st.sampled_from(["backup", "restore", "check", "cleanup"]))
def test_a_job_name_is_a_label_and_begins_with_its_run(name: str, uid: object, run: Any) -> None:
    found = job_name(run, name, str(uid))
    assert len(found) <= 63
    assert found.startswith(f"{run}-")
    assert found.replace("-", "").isalnum()
    assert found == found.lower()
    assert not found.endswith("-")


@given(names, st.uuids(), st.uuids())
def test_one_job_name_per_uid(name: str, one: object, other: object) -> None:
    assert (job_name("backup", name, str(one)) == job_name("backup", name, str(other))) == (one == other)
    assert job_name("backup", name, str(one)) == job_name("backup", name, str(one))


def test_restricted_pod_security() -> None:
    pod = manifest(backup_obj())["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert container["resources"]["requests"]
    assert container["resources"]["limits"]["memory"]


def test_openshift_chooses_the_user() -> None:
    settings = replace(SETTINGS, job_defaults={"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}})
    spec = RunSpec.model_validate_json(manifest(backup_obj())["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"])
    pod = job_manifest(backup_obj(), spec, settings, timedelta(minutes=10))["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_secrets_are_optional_mounts_and_nothing_secret_is_in_the_manifest() -> None:
    obj = backup_obj(database={"secretRef": {"name": "app-db"}, "caSecretRef": {"name": "db-ca"}})
    pod = manifest(obj)["spec"]["template"]["spec"]
    secrets = {volume["secret"]["secretName"]: volume["secret"]["optional"] for volume in pod["volumes"] if "secret" in volume}
    assert secrets == {"s3": True, "app-db": True, "db-ca": True}
    assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} == {
        "/tmp",
        "/run/dbbackup/storage",
        "/run/dbbackup/database",
        "/run/dbbackup/database-ca",
    }
    assert all(mount.get("readOnly") for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"] != "/tmp")
    assert [variable["name"] for variable in pod["containers"][0]["env"]] == ["DBBACKUP_RUN"]
    scratch = next(volume for volume in pod["volumes"] if volume["name"] == "scratch")
    assert scratch["emptyDir"]["medium"] == "Memory"


def test_a_backup_is_tried_again_but_not_after_what_a_retry_cannot_cure() -> None:
    spec = manifest(backup_obj(retries=3))["spec"]
    assert spec["backoffLimit"] == 3
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    disruption, codes = spec["podFailurePolicy"]["rules"]
    assert (disruption["action"], disruption["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert codes["action"] == "FailJob"
    for code in ExitCode:
        if code is not ExitCode.OK:
            assert (code in codes["onExitCodes"]["values"]) == (not code.retryable)


def test_a_restore_is_never_started_again() -> None:
    spec = manifest(restore_obj())["spec"]
    assert spec["backoffLimit"] == 0
    assert spec["podFailurePolicy"]["rules"][0] == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


@pytest.mark.parametrize(("retries", "timeout"), [(0, "1m"), (2, "1h"), (10, "365d")])
def test_the_deadline_is_a_backstop_behind_every_attempt(retries: int, timeout: str) -> None:
    obj = backup_obj(retries=retries, timeout=timeout, startDeadline="10m")
    spec = manifest(obj)["spec"]
    run = json.loads(spec["template"]["spec"]["containers"][0]["env"][0]["value"])
    waits = sum(min(10 * 2**n, 360) for n in range(retries))
    assert spec["activeDeadlineSeconds"] > 600 + (retries + 1) * run["timeoutSeconds"] + waits
    assert spec["activeDeadlineSeconds"] < 2**33
    assert "ttlSecondsAfterFinished" not in spec


def test_owner_labels_and_annotations() -> None:
    made = manifest(
        backup_obj(metadata={"name": "x" * 253}, job={"labels": {"team": "a", "dbbackup.io/run": "forged"}, "annotations": {"note": "b"}})
    )
    metadata, pod = made["metadata"], made["spec"]["template"]["metadata"]
    assert metadata["ownerReferences"][0]["uid"] == UID
    assert metadata["ownerReferences"][0]["blockOwnerDeletion"] is False
    for labels in (metadata["labels"], pod["labels"]):
        assert labels["dbbackup.io/owner-uid"] == UID
        assert labels["dbbackup.io/run"] == "backup"
        assert labels["team"] == "a"
        assert all(len(value) <= 63 for value in labels.values())
    assert pod["annotations"]["note"] == "b"
    assert metadata["annotations"]["dbbackup.io/owner-name"] == "x" * 253


def test_what_the_object_says_of_its_job_wins_over_the_defaults() -> None:
    resources = {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}
    obj = backup_obj(
        job={"resources": resources, "serviceAccountName": "irsa", "nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}]}
    )
    pod = manifest(obj)["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
    assert (pod["serviceAccountName"], pod["nodeSelector"], pod["tolerations"]) == ("irsa", {"disk": "ssd"}, [{"operator": "Exists"}])
    assert pod["automountServiceAccountToken"] is False


def test_the_run_spec_is_in_one_variable() -> None:
    run = RunSpec.model_validate_json(manifest(backup_obj(format="custom"))["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"])
    assert run.run == "backup"
    assert run.owner.uid == UID
    assert run.storage.bucket == "backups"
    assert run.backup is not None
    assert run.backup.format == "custom"
    assert run.database is not None
    assert run.database.secret == "app-db"


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}),
        ({"limits": {"memory": "4Gi"}}, {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "4Gi"}}),
        ({"limits": {"memory": "64Mi", "cpu": "0.05"}}, {"requests": {"cpu": "0.05", "memory": "64Mi"}, "limits": {"memory": "64Mi", "cpu": "0.05"}}),
        ({"requests": {"memory": "1Gi"}}, {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}),
    ],
)
def test_resources_replace_the_defaults_one_by_one_and_never_contradict_them(own: dict[str, Any], expected: dict[str, Any]) -> None:
    job = decide(facts(backup_obj(job={"resources": own}))).create
    assert job is not None
    assert job["spec"]["template"]["spec"]["containers"][0]["resources"] == expected
