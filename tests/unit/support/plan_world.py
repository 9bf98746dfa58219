"""A small world for tests of decisions: objects, Jobs and pods as the API server would show them,
and a clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from dbbackup.api.conditions import timestamp
from dbbackup.contract.run import RunKind
from dbbackup.plan import backup, restore
from dbbackup.plan.facts import Decision, Facts, Slot
from dbbackup.plan.jobs import job_name
from dbbackup.plan.settings import Settings

T0 = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
UID = "0b1c2d3e-0000-4000-8000-000000000001"
SETTINGS = Settings(image="registry/operator@sha256:0", started_at=T0 - timedelta(hours=1))

Raw = dict[str, Any]

__all__ = [
    "RUNNING",
    "SETTINGS",
    "T0",
    "UID",
    "backup_obj",
    "decide",
    "facts",
    "job",
    "job_of",
    "pod",
    "report",
    "restore_obj",
    "seen",
    "storage_obj",
]


def storage_obj(**spec: Any) -> Raw:
    s3 = {"bucket": "backups", "prefix": "team", "endpoint": "http://s3:7070", "credentialsSecretRef": {"name": "s3"}}
    return {
        "apiVersion": "dbbackup.io/v1",
        "kind": "BackupStorage",
        "metadata": {"name": "default", "namespace": "ns", "uid": "storage-uid", "generation": 1, "resourceVersion": "1"},
        "spec": {"s3": s3, **spec},
    }


def _obj(kind: str, spec: Raw, status: Raw | None, **metadata: Any) -> Raw:
    return {
        "apiVersion": "dbbackup.io/v1",
        "kind": kind,
        "metadata": {
            "name": "nightly",
            "namespace": "ns",
            "uid": UID,
            "generation": 1,
            "resourceVersion": "5",
            "creationTimestamp": timestamp(T0),
            **metadata,
        },
        "spec": spec,
        "status": {"observedGeneration": -1} if status is None else status,
    }


def backup_obj(status: Raw | None = None, *, metadata: Raw | None = None, **spec: Any) -> Raw:
    return _obj("DatabaseBackup", {"database": {"secretRef": {"name": "app-db"}}, **spec}, status, **(metadata or {}))


def restore_obj(status: Raw | None = None, *, metadata: Raw | None = None, **spec: Any) -> Raw:
    source = {"artifact": {"key": "team/ns/h/d/x"}}
    return _obj("DatabaseRestore", {"source": source, "database": {"secretRef": {"name": "app-db"}}, **spec}, status, **(metadata or {}))


def report(run: str = "backup", outcome: str = "Succeeded", *, uid: str = UID, failure: tuple[str, bool] | None = None, **more: Any) -> str:
    """A termination message. `failure` is (reason, retryable)."""
    value: Raw = {
        "version": 1,
        "run": run,
        "uid": uid,
        "outcome": outcome,
        "startedAt": timestamp(T0),
        "finishedAt": timestamp(T0 + timedelta(seconds=9)),
    }
    if outcome == "Succeeded" and run in ("backup", "check"):
        value["artifact"] = {
            "key": "team/ns/h/d/x",
            "sha256": "a" * 64,
            "manifestSha256": "b" * 64,
            "sizeBytes": 393216,
            "format": "plain",
            "compression": "zstd",
        }
    if outcome == "Succeeded" and run == "restore":
        value["restored"] = {"tables": 24, "rows": 276, "bytes": 1000}
    if failure:
        value["failure"] = {"reason": failure[0], "message": f"{failure[0]} happened", "hint": "do something", "retryable": failure[1]}
    return json.dumps({**value, **more})


def job(manifest: Raw, *, at: datetime = T0, conditions: dict[str, str] | None = None, **status: Any) -> Raw:
    """The Job as the API server holds it. `conditions` is type -> reason, all True."""
    held = [{"type": kind, "status": "True", "reason": reason, "message": f"{reason} message"} for kind, reason in (conditions or {}).items()]
    metadata = {**manifest["metadata"], "uid": f"uid-{manifest['metadata']['name']}", "resourceVersion": "7", "creationTimestamp": timestamp(at)}
    return {**manifest, "metadata": metadata, "status": {"conditions": held, **status}}


def pod(
    run: str = "backup",
    number: int = 1,
    *,
    state: Raw | None = None,
    message: str | None = None,
    code: int | None = None,
    deleted: bool = False,
    disrupted: bool = False,
    uid: str = UID,
    **metadata: Any,
) -> Raw:
    """A pod of the run. `code` ends its container, with `message` as its last words; `state` is the
    container's otherwise."""
    if code is not None:
        why = "OOMKilled" if code == 137 else "Error"
        state = {"terminated": {"exitCode": code, "message": message or "", "startedAt": timestamp(T0), "reason": why}}
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicted"}] if disrupted else []
    result: Raw = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{run}-pod-{number}",
            "namespace": "ns",
            "uid": f"pod-{run}-{number}",
            "creationTimestamp": timestamp(T0 + timedelta(seconds=number)),
            "labels": {"dbbackup.io/owner-uid": uid, "dbbackup.io/run": run},
            "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": job_name(cast("RunKind", run), "nightly", uid), "uid": "job", "controller": True}
            ],
            **metadata,
        },
        "status": {
            "phase": "Running" if code is None else "Succeeded" if code == 0 else "Failed",
            "conditions": conditions,
            "containerStatuses": [{"name": "main", "state": state}] if state else [],
        },
    }
    if deleted:
        result["dbbackup.io/deleted"] = True
    return result


RUNNING = {"running": {"startedAt": timestamp(T0)}}


def facts(obj: Raw, *, after: float = 0, storage: Raw | None = None, no_storage: bool = False, **more: Any) -> Facts:
    """Facts so many seconds after T0, with a BackupStorage unless the test says otherwise."""
    held = None if no_storage else storage or storage_obj()
    return Facts(obj=obj, now=T0 + timedelta(seconds=after), settings=SETTINGS, storage=held, **more)


def decide(known: Facts) -> Decision:
    """The decision for the object's kind; a slot is granted when it is wanted and nothing was said
    of it."""
    module: Callable[[Facts], Decision] = backup.decide if known.obj["kind"] == "DatabaseBackup" else restore.decide
    decision = module(known)
    return module(replace(known, slot=Slot(granted=True))) if decision.want == {"slot"} else decision


def seen(obj: Raw, *, at: float = 0, **more: Any) -> Raw:
    """The object with the status that it gets so many seconds after T0."""
    decision = decide(facts(obj, after=at, **more))
    return {**obj, "status": dict(decision.status or {})}


def job_of(obj: Raw, **more: Any) -> Raw:
    """The Job that the object gets, as the API server holds it."""
    decision = decide(facts(obj))
    assert decision.create is not None
    return job(dict(decision.create), **more)
