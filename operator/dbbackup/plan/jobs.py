"""The manifest of a run's Job. An object has one Job name for each kind of run, so that creating
the Job twice makes one Job."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

from dbbackup.api.metadata import OWNER_KIND, OWNER_NAME, OWNER_UID, RUN
from dbbackup.api.units import parse_quantity
from dbbackup.contract.errors import FINAL_EXIT_CODES
from dbbackup.contract.mounts import CONTAINER, DATABASE_CA, DATABASE_SECRET, ENVIRONMENT, SCRATCH, STORAGE_CA, STORAGE_SECRET
from dbbackup.contract.run import RunKind, RunSpec
from dbbackup.plan.settings import Settings

NAME_LIMIT = 63
CHECK_RETRIES = 4
CLEANUP_RETRIES = 4
UPKEEP_RETRIES = 2
SMALL_RUN_SECONDS = 300
"""A check or a cleanup reads and deletes a few objects: longer than this it hangs."""
CLEARING_UP_SECONDS = 120
"""How long an attempt may take after its timeout, to roll back and to remove what it has stored."""
MARGIN_SECONDS = 300
CLEANUP_TTL_SECONDS = 3600

_DEFAULT_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
_UNSAFE = re.compile(r"[^a-z0-9-]+")


def job_name(run: RunKind, name: str, uid: str, token: str = "") -> str:
    """`<run>-<object's name, cut>-<hash of its UID>`, at most 63 characters, a DNS label. `token`
    distinguishes several runs of one kind of the same object."""
    digest = hashlib.sha256((f"{uid}/{token}" if token else uid).encode()).hexdigest()[:10]
    room = NAME_LIMIT - len(run) - len(digest) - 2
    middle = _UNSAFE.sub("-", name.lower())[:room].strip("-")
    return "-".join(part for part in (run, middle, digest) if part)


def back_off_seconds(retries: int) -> int:
    """The sum of the Job controller's pauses between attempts: 10 s, doubled each time, at most 6
    minutes."""
    return sum(min(10 * 2**attempt, 360) for attempt in range(retries))


def retries_of(run: RunKind, spec_retries: int) -> int:
    """How often Kubernetes may start the run again by itself; a restore never."""
    return {"backup": spec_retries, "restore": 0, "check": CHECK_RETRIES, "cleanup": CLEANUP_RETRIES}.get(run, UPKEEP_RETRIES)


def _pod_failure_policy(run: RunKind) -> dict[str, Any]:
    # The first rule that matches counts. `Ignore` on a disruption starts another pod whatever
    # backoffLimit says: right for all runs but restores.
    return {
        "rules": [
            {
                "action": "FailJob" if run == "restore" else "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            },
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(FINAL_EXIT_CODES)},
            },
        ]
    }


def _volumes(spec: RunSpec) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    secrets: list[tuple[str, str | None, str]] = [
        ("storage", spec.storage.credentials_secret, STORAGE_SECRET),
        ("storage-ca", spec.storage.ca_secret, STORAGE_CA),
    ]
    if spec.database:
        secrets += [("database", spec.database.secret, DATABASE_SECRET), ("database-ca", spec.database.ca_secret, DATABASE_CA)]
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}]
    mounts: list[dict[str, Any]] = [{"name": "scratch", "mountPath": SCRATCH}]
    for name, secret, path in secrets:
        if secret:
            # Optional: the container starts without the Secret and reports SecretMissing; otherwise
            # the kubelet would only wait.
            volumes.append({"name": name, "secret": {"secretName": secret, "optional": True, "defaultMode": 0o440}})
            mounts.append({"name": name, "mountPath": path, "readOnly": True})
    return volumes, mounts


def _merged(defaults: Mapping[str, Any], overrides: Mapping[str, Any], key: str) -> Any:
    return overrides[key] if overrides.get(key) else defaults.get(key)


def _resources(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides replace the defaults one by one. A default request above an overriding limit, which
    Kubernetes would refuse, becomes that limit, and the other way round."""
    merged = {kind: {**(defaults.get(kind) or {}), **(overrides.get(kind) or {})} for kind in ("requests", "limits")}
    own_requests, own_limits = overrides.get("requests") or {}, overrides.get("limits") or {}
    for name, limit in own_limits.items():
        if name in merged["requests"] and name not in own_requests and _amount(merged["requests"][name]) > _amount(limit):
            merged["requests"][name] = limit
    for name, request in own_requests.items():
        if name in merged["limits"] and name not in own_limits and _amount(merged["limits"][name]) < _amount(request):
            merged["limits"][name] = request
    return {kind: amounts for kind, amounts in merged.items() if amounts}


def _amount(quantity: str | int) -> int:
    """The quantity in thousandths, to compare: `parse_quantity` rounds 100m of a CPU up to a whole
    one."""
    text = str(quantity)
    if text.endswith("m"):
        return parse_quantity(text[:-1])
    return parse_quantity(f"{text}k") if text[-1:].isdigit() and "e" not in text.lower() else 1000 * parse_quantity(text)


def _pod_spec(spec: RunSpec, settings: Settings, overrides: Mapping[str, Any]) -> dict[str, Any]:
    defaults = settings.job_defaults
    volumes, mounts = _volumes(spec)
    pod_security = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    pod_security.update(defaults.get("podSecurityContext") or {})
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    security.update(defaults.get("securityContext") or {})
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        # A null in the defaults removes a field: on OpenShift the user comes from the namespace's
        # range.
        "securityContext": {key: value for key, value in pod_security.items() if value is not None},
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.image,
                "imagePullPolicy": settings.image_pull_policy,
                "args": ["run"],
                "env": [{"name": ENVIRONMENT, "value": spec.to_json()}],
                "resources": _resources(defaults.get("resources") or _DEFAULT_RESOURCES, overrides.get("resources") or {}),
                "securityContext": {key: value for key, value in security.items() if value is not None},
                "terminationMessagePolicy": "File",
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    for key in ("nodeSelector", "tolerations", "affinity", "serviceAccountName", "priorityClassName", "imagePullSecrets"):
        if value := _merged(defaults, overrides, key):
            pod[key] = value
    return pod


def labels_of(run: RunKind) -> dict[str, str]:
    """The labels of this operator's pods, also for NetworkPolicies."""
    return {
        "app.kubernetes.io/name": "database-backup-operator",
        "app.kubernetes.io/component": run,
        "app.kubernetes.io/managed-by": "database-backup-operator",
        RUN: run,
    }


def pod_template(spec: RunSpec, settings: Settings, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A pod of that run for a person to create by their own rights, after they have filled in what
    only they know. It ends by itself; the operator does not watch it."""
    defaults = settings.job_defaults
    pod = _pod_spec(spec, settings, overrides)
    pod |= {"activeDeadlineSeconds": spec.timeout_seconds + CLEARING_UP_SECONDS, "terminationGracePeriodSeconds": 5}
    labels = {**(defaults.get("labels") or {}), **(overrides.get("labels") or {}), **labels_of(spec.run)}
    annotations = {**(defaults.get("annotations") or {}), **(overrides.get("annotations") or {})}
    # Without nulls: a merge patch of a status cannot write them.
    return cast("dict[str, Any]", _without_nulls({"metadata": {"labels": labels, "annotations": annotations}, "spec": pod}))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, (list, tuple)) else value


def _deadline_seconds(spec: RunSpec, start_deadline: timedelta, retries: int) -> int:
    # A backstop for a container that does not keep its own timeout: the wait for a node, every
    # attempt with its end, every pause between attempts.
    attempt = spec.timeout_seconds + CLEARING_UP_SECONDS
    return int(start_deadline.total_seconds()) + (retries + 1) * attempt + back_off_seconds(retries) + MARGIN_SECONDS


def job_manifest(
    owner: Mapping[str, Any],
    spec: RunSpec,
    settings: Settings,
    start_deadline: timedelta,
    overrides: Mapping[str, Any] | None = None,
    retries: int = 0,
    token: str = "",
) -> dict[str, Any]:
    """The Job that runs `spec` for the object `owner`. `overrides` is the object's `spec.job`;
    `retries` counts for backups only; `token` as for `job_name`."""
    overrides, defaults = overrides or {}, settings.job_defaults
    metadata = owner["metadata"]
    limit = retries_of(spec.run, retries)
    own_labels = {**labels_of(spec.run), OWNER_UID: metadata["uid"]}
    own_annotations = {OWNER_KIND: owner["kind"], OWNER_NAME: metadata["name"]}
    labels = {**(defaults.get("labels") or {}), **(overrides.get("labels") or {}), **own_labels}
    annotations = {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        **(defaults.get("annotations") or {}),
        **(overrides.get("annotations") or {}),
        **own_annotations,
    }
    job: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(spec.run, metadata["name"], metadata["uid"], token),
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": own_annotations,
        },
        "spec": {
            "backoffLimit": limit,
            "activeDeadlineSeconds": _deadline_seconds(spec, start_deadline, limit),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": _pod_failure_policy(spec.run),
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": _pod_spec(spec, settings, overrides)},
        },
    }
    if spec.run == "cleanup":
        # Without an owner: foreground deletion would delete an owned Job before it has done its
        # work.
        job["spec"]["ttlSecondsAfterFinished"] = CLEANUP_TTL_SECONDS
    else:
        job["metadata"]["ownerReferences"] = [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ]
    return job
