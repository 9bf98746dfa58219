"""`restore`: shows what would be replaced, asks, and creates a DatabaseRestore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from dbbackup.api.metadata import SCHEDULE
from dbbackup.api.objects import Raw
from dbbackup.api.units import size_text
from dbbackup.cli import flags, pods, specs
from dbbackup.cli.app import access, connection
from dbbackup.cli.creating import create_object
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import Kubectl
from dbbackup.cli.output import age, clean, count, moment_text, paint, say_err
from dbbackup.cli.prompts import ask, confirm

UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Target:
    """The database that a restore goes into, as far as it is known. `state` says what it contains,
    or why that is unknown."""

    name: str | None
    identity: str
    state: str


@click.command()
@click.argument("backup", type=flags.BACKUP, required=False)
@click.option(
    "--schedule", type=flags.SCHEDULE, metavar="NAME", help="Restore the newest good backup of this schedule, instead of a backup by its name."
)
@click.option("--before", metavar="TIME", help="With --schedule: the newest before this time, such as 2026-11-20T14:30:00Z.")
@click.option("--source-database", metavar="NAME", help="With a --schedule of several databases: the one to restore.")
@click.option("--key", metavar="KEY", help="The key of an artifact in the bucket, instead of a backup.")
@click.option("--storage", type=flags.STORAGE, metavar="NAME", help="With --key: the BackupStorage with the artifact.  [default: default]")
@flags.database
@click.option("--name", metavar="NAME", help="Name of the DatabaseRestore. Without it, the target's name and the time.")
@click.option("--replace", is_flag=True, help="Replace what the backup contains. Without it, a target that is not empty is refused.")
@click.option("--create-database", is_flag=True, help="Create the database if it does not exist.")
@click.option("--no-safety-backup", is_flag=True, help="With --replace: do not back up the target first.")
@click.option("--schema", multiple=True, metavar="NAME", help="Only this schema; may be given several times, or with commas. Needs format custom.")
@click.option(
    "--table", multiple=True, metavar="SCHEMA.TABLE", help="Only this table; may be given several times, or with commas. Needs format custom."
)
@click.option("--timeout", metavar="DURATION", help="How long the restore may take, including its safety backup, such as 2h.")
@click.option("--lock-timeout", metavar="DURATION", help="How long to wait for locks on the tables to be replaced.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask. For scripts.")
@click.option("--no-look", is_flag=True, help="Start no short-lived pod that looks at the target before the question.")
@click.option("--image", metavar="IMAGE", help="Image for that pod, instead of the operator's.")
@flags.labels
@flags.wait
@flags.dry
@connection
@click.pass_context
def restore(ctx: click.Context, /, backup: str | None, **values: Any) -> int:
    """Restore a backup into a database.

    Without --secret it goes into the database that was backed up. It shows what would be replaced
    and asks you to type the database's name; the restore then names that database and cannot go
    into another one. The whole restore is one transaction.
    """
    kube = access(ctx)
    source = specs.restore_source(
        backup_name=backup,
        schedule=values["schedule"],
        before=values["before"],
        source_database=values["source_database"],
        key=values["key"],
        storage=values["storage"],
    )
    source_obj = source_backup(kube, source)
    into: Raw = specs.database(values, ((source_obj or {}).get("spec") or {}).get("database"))
    if not (values["yes"] or values["dry_run"]):
        into = _confirmed(kube, source, source_obj, into, values)
        if "scheduleRef" in source and source_obj is not None:  # the one that was shown, even if there is a newer one now
            source = {"backupRef": {"name": source_obj["metadata"]["name"]}}
    name = values["name"] or specs.own_name(f"restore-{into.get('name') or into['secretRef']['name']}", datetime.now(UTC))
    labels, annotations = specs.pairs(values["label"], "--label"), specs.pairs(values["annotation"], "--annotation")
    obj = specs.obj("DatabaseRestore", name, kube.namespace, specs.restore(values, source, into), labels=labels, annotations=annotations)
    return create_object(kube, obj, values)


def source_backup(kube: Kubectl, source: Raw) -> Raw | None:
    """The DatabaseBackup that the restore would take now; None for a key without an object.
    CliError if there is no such backup."""
    if "backupRef" in source:
        found = kube.get("DatabaseBackup", source["backupRef"]["name"])
        phase = (found.get("status") or {}).get("phase") or "Pending"
        if phase not in ("Completed", "Pending", "Running"):
            raise CliError(f"backup {found['metadata']['name']} is {phase}: it has no artifact to restore", CliExit.NOT_FOUND)
        return found
    if "artifact" in source:
        key = source["artifact"]["key"]
        return next((obj for obj in kube.objects("DatabaseBackup") if ((obj.get("status") or {}).get("artifact") or {}).get("key") == key), None)
    wanted = source["scheduleRef"]
    chosen = newest(kube.objects("DatabaseBackup", selector=f"{SCHEDULE}={wanted['name']}"), wanted.get("before"), wanted.get("database"))
    if chosen is None:
        message = f"schedule {wanted['name']} has no good backup" + (f" before {wanted['before']}" if "before" in wanted else "")
        raise CliError(message, CliExit.NOT_FOUND, f"`kubectl dbbackup list --schedule {wanted['name']} -n {kube.namespace}` lists what exists.")
    return chosen


def newest(backups: Sequence[Raw], before: str | None, database: str | None) -> Raw | None:
    """The operator's choice: the newest good backup, of one database."""
    good = [obj for obj in backups if (obj.get("status") or {}).get("phase") == "Completed" and (obj["status"].get("artifact") or {}).get("key")]
    if database is not None:
        good = [obj for obj in good if (obj["status"].get("database") or {}).get("name") == database]
    if before is not None:
        good = [obj for obj in good if _taken(obj) < before]
    databases = sorted({str((obj["status"].get("database") or {}).get("identity") or "") for obj in good})
    if len(databases) > 1 and database is None:
        raise CliError("the schedule backs up several databases", CliExit.USAGE, f"--source-database NAME chooses: {', '.join(databases)}")
    return max(good, key=lambda obj: (_taken(obj), obj["metadata"]["name"]), default=None)


def _taken(obj: Raw) -> str:
    return str(obj["status"].get("completionTime") or obj["metadata"]["creationTimestamp"])


# What would be replaced, and the question


def _confirmed(kube: Kubectl, source: Raw, source_obj: Raw | None, into: Raw, values: Raw) -> Raw:
    """spec.database with the name that was typed."""
    target = _target(kube, source, source_obj, into, values)
    for line in restore_text(source, source_obj, target, into, values, datetime.now(UTC)):
        say_err(line)
    if target.name:
        confirm("Type the name of the target database to continue", target.name)
        return {**into, "name": target.name}
    typed = ask("Type the name of the target database; the restore cannot go into any other")
    if not typed:
        raise CliError("no name was typed: nothing was done", CliExit.REFUSED)
    return {**into, "name": typed}


def restore_text(source: Raw, source_obj: Raw | None, target: Target, into: Raw, values: Raw, now: datetime) -> list[str]:
    """What the person must know before they confirm."""
    lines = [paint("This restore", bold=True, err=True)]
    status = (source_obj or {}).get("status") or {}
    database = status.get("database") or {}
    what = f"backup {source_obj['metadata']['name']}" if source_obj else f"artifact {source['artifact']['key']}"
    if database:
        rows = f", {count(database['rows'], 'row')}" if database.get("rows") is not None else ""
        what += f" of {database.get('identity')}: {count(database.get('tables', 0), 'table')}{rows}, {status.get('size')}"
    lines.append(f"  restores    {clean(what)}")
    if status.get("completionTime"):
        lines.append(f"  taken       {moment_text(status['completionTime'])}, {age(status['completionTime'], now)} ago")
    lines.append(f"  into        {paint(clean(target.identity), 'yellow', bold=True, err=True)} (Secret {into['secretRef']['name']})")
    lines.append(f"  which now   {clean(target.state)}")
    part = specs.names(values["schema"]) or specs.names(values["table"])
    chosen = f"{', '.join(part)} of the backup" if part else "what the backup contains"
    if values["replace"]:
        lines.append(
            f"  and         {paint('replaces', 'red', bold=True, err=True)} {chosen}: rows written since the backup are lost; everything else stays"
        )
        safety = "no safety backup is taken: there is no way back" if values["no_safety_backup"] else "the whole target is backed up first"
        lines.append(f"  before that {paint(safety, 'red' if values['no_safety_backup'] else None, err=True)}")
    else:
        lines.append("  and         is refused if the target is not empty (--replace replaces)")
    return lines


def _target(kube: Kubectl, source: Raw, source_obj: Raw | None, into: Raw, values: Raw) -> Target:
    if not values["no_look"]:
        try:
            return _looked_at(kube, _storage(kube, source, source_obj), into, values["image"])
        except CliError as error:
            why = f"is unknown: {error.message}"
            # The failure names a database that is missing or unreachable. One that the person may
            # not look at may be known from earlier runs.
            return _known(kube, into, why)
    return _known(kube, into, "is unknown (--no-look)")


def _storage(kube: Kubectl, source: Raw, source_obj: Raw | None) -> Raw:
    artifact = ((source_obj or {}).get("status") or {}).get("artifact") or {}
    named = (source.get("artifact") or {}).get("storageRef") or ((source_obj or {}).get("spec") or {}).get("storageRef") or {}
    return kube.get("BackupStorage", artifact.get("storage") or named.get("name") or "default")


def _looked_at(kube: Kubectl, storage: Raw, into: Raw, image: str | None) -> Target:
    say_err("looking at the target with a short-lived pod (--no-look skips this) ...")
    report = pods.reach(kube, storage, into, image)
    database = report.get("database")
    if database is None:
        raise pods.failure_of(report.get("failure") or {})
    state = f"contains {count(database['tables'], 'table')}, {size_text(database['sizeBytes'])}; PostgreSQL {database['serverVersion']}"
    return Target(database["name"], database["identity"], state)


def _known(kube: Kubectl, into: Raw, why: str) -> Target:
    """The target as an earlier run with the same connection found it."""
    for kind in ("DatabaseBackup", "DatabaseRestore"):
        for obj in kube.objects(kind):
            database = (obj.get("status") or {}).get("database") or {}
            if database.get("name") and specs.same_target((obj.get("spec") or {}).get("database") or {}, into):
                return Target(database["name"], database["identity"], why)
    name = into.get("name")
    host = into.get("host") or UNKNOWN
    return Target(name, f"{host}:{into.get('port', 5432)}/{name or UNKNOWN}", why)
