"""`list`: backups or restores, or the artifacts in a bucket."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from dbbackup.api.conditions import instant
from dbbackup.api.metadata import SCHEDULE
from dbbackup.api.objects import Raw
from dbbackup.api.units import duration_text, size_text
from dbbackup.cli import flags
from dbbackup.cli.app import access, connection
from dbbackup.cli.errors import CliExit
from dbbackup.cli.lists import say_whole, where, with_namespaces
from dbbackup.cli.output import NONE, age, count, document, moment_text, say, say_err, table

PHASES = ("Pending", "Running", "Completed", "Failed", "Deleting", "Expired")


@click.command("list")
@click.option("-A", "--all-namespaces", is_flag=True, help="In all namespaces.")
@click.option("--restores", is_flag=True, help="Restores instead of backups.")
@click.option(
    "--storage",
    type=flags.STORAGE,
    metavar="NAME",
    help="The artifacts in this storage's bucket, with an object or without. Starts a short-lived pod.",
)
@click.option("--schedule", type=flags.SCHEDULE, metavar="NAME", help="Only backups of this schedule.")
@click.option("--database", metavar="NAME", help="Only backups of this database: its name, or host:port/name.")
@click.option("--phase", type=click.Choice(PHASES), multiple=True, help="Only in this phase; may be given several times.")
@click.option("-l", "--selector", metavar="SELECTOR", help="Only with these labels, as in kubectl get.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the newest N.")
@click.option("-o", "--output", type=click.Choice(["wide", "json", "yaml", "name"]), help="More columns, whole objects, or names only.")
@click.option("--no-headers", is_flag=True, help="Print no headings and no totals.")
@click.option("--image", metavar="IMAGE", help="With --storage: image for the pod, instead of the operator's.")
@connection
@click.pass_context
def list_(ctx: click.Context, /, **values: Any) -> int:
    """List backups, newest first, or the artifacts in a bucket.

    The last line counts them, in total and by phase, and adds up their size.
    """
    if values["storage"]:
        return _stored(ctx, values)
    kube = access(ctx)
    kind = "DatabaseRestore" if values["restores"] else "DatabaseBackup"
    selector = ",".join(part for part in (values["selector"], f"{SCHEDULE}={values['schedule']}" if values["schedule"] else "") if part)
    found = newest_first(kube.objects(kind, everywhere=values["all_namespaces"], selector=selector))
    found = [obj for obj in found if _wanted(obj, values)][: values["limit"]]
    if say_whole(found, values["output"]):
        return CliExit.OK
    if not found:
        what = "restores" if values["restores"] else "backups"
        say_err(f"no {what} {where(kube, everywhere=values['all_namespaces'])}" + (" that match" if _filters(values) else ""))
    else:
        _print(found, values, restores=values["restores"])
    return CliExit.OK


def newest_first(found: list[Raw]) -> list[Raw]:
    """By the object's creation; objects created by an import by the start of their run."""
    return sorted(found, key=lambda obj: (_started_at(obj), obj["metadata"]["name"]), reverse=True)


def _started_at(obj: Raw) -> str:
    discovered = (obj.get("spec") or {}).get("origin") == "Discovered"
    started = (obj.get("status") or {}).get("startTime") if discovered else None
    return str(started or obj["metadata"]["creationTimestamp"])


def _filters(values: Raw) -> bool:
    return any(values[name] for name in ("schedule", "database", "phase", "selector"))


def phase_of(obj: Raw) -> str:
    return (obj.get("status") or {}).get("phase") or "Pending"


def _wanted(obj: Raw, values: Raw) -> bool:
    database = (obj.get("status") or {}).get("database") or {}
    if values["database"] and values["database"] not in (database.get("name"), database.get("identity")):
        return False
    return not values["phase"] or phase_of(obj) in values["phase"]


def _print(found: Sequence[Raw], values: Raw, *, restores: bool) -> None:
    wide = values["output"] == "wide"
    now = datetime.now(UTC)
    make, head = (restore_row, list(RESTORE_HEAD)) if restores else (backup_row, list(BACKUP_HEAD))
    head += (RESTORE_WIDE if restores else BACKUP_WIDE) if wide else ()
    rows = [make(obj, now, wide) for obj in found]
    if values["all_namespaces"]:
        head, rows = with_namespaces(head, rows, found)
    lines = table(head, rows, headers=not values["no_headers"], colour_column=head.index("PHASE"))
    if not values["no_headers"]:
        lines += ["", totals(found, "restore" if restores else "backup")]
    say("\n".join(lines))


BACKUP_HEAD = ("NAME", "PHASE", "DATABASE", "SIZE", "DURATION", "EXPIRES", "AGE")
BACKUP_WIDE = ("STORAGE", "FORMAT", "SCHEDULE", "REASON", "KEY")
RESTORE_HEAD = ("NAME", "PHASE", "SOURCE", "DATABASE", "ROWS", "DURATION", "AGE")
RESTORE_WIDE = ("REASON", "SAFETY BACKUP")


def backup_row(obj: Raw, now: datetime, wide: bool = False) -> list[str]:
    status, spec, metadata = obj.get("status") or {}, obj.get("spec") or {}, obj["metadata"]
    database = (status.get("database") or {}).get("name") or (spec.get("database") or {}).get("name") or NONE
    row = [metadata["name"], phase_of(obj), database, status.get("size") or NONE, status.get("duration") or NONE, status.get("expires") or NONE]
    row.append(age(_started_at(obj), now))
    if wide:
        reason = (status.get("failure") or {}).get("reason") or NONE
        storage, schedule = (spec.get("storageRef") or {}).get("name") or "default", (metadata.get("labels") or {}).get(SCHEDULE) or NONE
        row += [storage, spec.get("format") or NONE, schedule, reason, (status.get("artifact") or {}).get("key") or NONE]
    return row


def restore_row(obj: Raw, now: datetime, wide: bool = False) -> list[str]:
    status = obj.get("status") or {}
    rows = (status.get("restored") or {}).get("rows")
    row = [obj["metadata"]["name"], phase_of(obj), status.get("source") or _source(obj), (status.get("database") or {}).get("name") or NONE]
    row += [NONE if rows is None else str(rows), status.get("duration") or NONE, age(obj["metadata"]["creationTimestamp"], now)]
    if wide:
        row += [(status.get("failure") or {}).get("reason") or NONE, (status.get("safetyBackup") or {}).get("key") or NONE]
    return row


def _source(obj: Raw) -> str:
    source = obj["spec"]["source"]
    reference = source.get("backupRef") or source.get("scheduleRef") or {}
    return str(reference.get("name") or (source.get("artifact") or {}).get("key") or NONE)


def totals(found: Sequence[Raw], what: str) -> str:
    """How many, in which phases, and the size of the artifacts of Completed ones."""
    phases = [phase_of(obj) for obj in found]
    parts = [f"{phases.count(phase)} {phase}" for phase in PHASES if phase in phases]
    stored = sum(obj["status"].get("sizeBytes") or 0 for obj in found if phase_of(obj) == "Completed")
    return f"{count(len(found), what)}: {', '.join(parts)}" + (f"; {size_text(stored)}" if stored else "")


# Artifacts in a bucket


def _stored(ctx: click.Context, values: Raw) -> int:
    from dbbackup.cli.pod_client import open_client  # noqa: PLC0415
    from dbbackup.contract import wire  # noqa: PLC0415

    kube = access(ctx)
    for flag in ("all_namespaces", "restores", "selector", "phase"):
        if values[flag]:
            raise click.UsageError(f"--storage cannot be used with --{flag.replace('_', '-')}: a bucket contains artifacts, not objects")
    storage = kube.get("BackupStorage", values["storage"])
    with open_client(kube, storage, values["image"]) as client:
        lines = client.whole(wire.ARTIFACTS).splitlines()
    known = {key: obj["metadata"]["name"] for obj in kube.objects("DatabaseBackup") if (key := _key(obj))}
    items = sorted((_item(json.loads(line), known) for line in lines), key=lambda item: item["time"] or "", reverse=True)
    if values["schedule"]:
        items = [item for item in items if item["schedule"] == values["schedule"]]
    if values["database"]:
        items = [item for item in items if values["database"] in (item["database"], item["identity"])]
    items = items[: values["limit"]]
    form = values["output"]
    if form in ("json", "yaml"):
        say(document(items, form))
    elif form == "name":
        for item in items:
            say(item["key"])
    elif not items:
        say_err(f"the bucket of BackupStorage {values['storage']} has no artifacts of namespace {kube.namespace}")
    else:
        _print_stored(items, values)
    return CliExit.OK


def _key(obj: Raw) -> str:
    return str(((obj.get("status") or {}).get("artifact") or {}).get("key") or (obj.get("spec") or {}).get("artifactKey") or "")


def _item(line: Raw, known: Raw) -> Raw:
    """One artifact: what the bucket says about it, and the name of its object. `known` maps keys to
    names."""
    manifest = line.get("manifest") or {}
    database = manifest.get("database") or {}
    return {
        "key": line["key"],
        "object": known.get(line["key"]),
        "kind": "safety backup" if manifest.get("safety") else "backup",
        "database": database.get("name"),
        "identity": database.get("identity"),
        "sizeBytes": line["sizeBytes"],
        "time": manifest.get("finishedAt") or line["modified"],
        "expires": manifest.get("expiresAt"),
        "schedule": manifest.get("schedule"),
        "problem": line.get("problem"),
    }


def _print_stored(items: Sequence[Raw], values: Raw) -> None:
    now = datetime.now(UTC)
    head = ["OBJECT", "STATE", "DATABASE", "SIZE", "EXPIRES", "AGE", "KEY"]
    rows = [
        [
            item["object"] or f"({item['kind']})",
            "damaged" if item["problem"] else "known" if item["object"] else "no object",
            item["database"] or NONE,
            size_text(item["sizeBytes"]),
            moment_text(item["expires"])[:10] if item["expires"] else "never",
            _age(item["time"], now),
            item["key"],
        ]
        for item in items
    ]
    lines = table(head, rows, headers=not values["no_headers"])
    if not values["no_headers"]:
        without = sum(item["object"] is None for item in items)
        lines += ["", f"{count(len(items), 'artifact')}, {without} without an object; {size_text(sum(item['sizeBytes'] for item in items))}"]
        lines += [f"{item['key']}: {item['problem']}" for item in items if item["problem"]]
        if any(item["object"] is None and item["kind"] == "backup" and not item["problem"] for item in items):
            lines.append(f"`kubectl dbbackup import {values['storage']}` creates objects for backups that have none.")
    say("\n".join(lines))


def _age(text: str, now: datetime) -> str:
    moment = instant(text)
    return NONE if moment is None else duration_text(max(0.0, (now - moment).total_seconds())).replace(" ", "")
