"""Finished DatabaseBackups by the thousand, as an import of a bucket would leave them: made by the
import's own code."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from tests.integration.artifacts import manifest_of

from dbbackup.api.specs import API_VERSION
from dbbackup.contract.keys import directory
from dbbackup.contract.report import InventoryItem, ManifestSummary
from dbbackup.contract.run import Owner
from dbbackup.dataplane.bucket import SealedArtifact
from dbbackup.plan import cron, discovered
from dbbackup.plan.facts import Effect, Facts, Related
from dbbackup.plan.settings import Settings

Raw = dict[str, Any]


def schedule_name(number: int) -> str:
    return f"schedule-{number:03d}"


def effects(storage: Raw, numbers: range, schedules: int, newest: datetime, every: timedelta) -> Sequence[Effect]:
    """Objects and statuses of the `numbers`th backups. One after the other they are of the next
    schedule, which backs up a database of its own; what a schedule has made lies `every` apart, the
    newest first."""
    items = [_item(storage, number, schedules, newest, every) for number in numbers]
    facts = Facts(obj=storage, now=newest, settings=Settings(image="image", started_at=newest))
    return discovered.new_backups(discovered.Found.of(items, Related()), facts)


def _item(storage: Raw, number: int, schedules: int, newest: datetime, every: timedelta) -> InventoryItem:
    schedule, database = schedule_name(number % schedules), f"app-{number % schedules}"
    created = newest - (number // schedules) * every
    uid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"bench {number}"))
    owner = Owner(
        kind="DatabaseBackup", namespace=storage["metadata"]["namespace"], name=cron.run_name(schedule, created), uid=uid, created_at=created
    )
    key = directory(storage["spec"]["s3"].get("prefix", ""), owner, "db", 5432, database)
    manifest = manifest_of(owner, database, schedule=schedule)
    artifact = SealedArtifact(key, manifest, manifest.artifact.sha256)
    summary = ManifestSummary(
        owner=owner,
        artifact=artifact.report(),
        database=artifact.database_report(),
        started_at=manifest.started_at,
        finished_at=manifest.finished_at,
        schedule=schedule,
    )
    return InventoryItem(key=key, size_bytes=manifest.artifact.size, modified=manifest.finished_at, manifest=summary)


def stored(made: Sequence[Effect]) -> list[Raw]:
    """The objects as the API server would hand them out."""
    found = []
    for number, effect in enumerate(made):
        assert effect.status is not None
        metadata = {
            **effect.obj["metadata"],
            "uid": str(uuid.uuid5(uuid.NAMESPACE_URL, str(number))),
            "resourceVersion": str(number + 1),
            "generation": 1,
            "creationTimestamp": effect.status["completionTime"],
        }
        found.append({**effect.obj, "metadata": metadata, "status": effect.status})
    return found


def schedule(number: int, namespace: str, spec: Raw, labels: Raw | None = None) -> Raw:
    """`spec` is the schedule's, its template without metadata; `labels` are those of its
    backups."""
    template = {"metadata": {"labels": labels or {}}, **spec["template"]}
    metadata = {"name": schedule_name(number), "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": "DatabaseBackupSchedule", "metadata": metadata, "spec": {**spec, "template": template}}
