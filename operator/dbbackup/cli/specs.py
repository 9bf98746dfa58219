"""From flags to objects. Pure: no request to the cluster, no clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dbbackup.api.objects import Draft, Raw
from dbbackup.cli.errors import CliError, CliExit

API_VERSION = "dbbackup.io/v1"
NAME_LIMIT = 63
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


def obj(kind: str, name: str, namespace: str, spec: Draft, **metadata: Any) -> Draft:
    """An object as it is applied; empty metadata is left out."""
    more = {key: value for key, value in metadata.items() if value}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": namespace, **more}, "spec": spec}


def given(**fields: Any) -> Draft:
    """The fields that have a value. False and 0 are values."""
    return {key: value for key, value in fields.items() if value is not None and value not in ((), [], {}, "")}


def own_name(base: str, now: datetime) -> str:
    """A name for a run without one: from the name of its database, and the time."""
    slug = _NOT_IN_NAMES.sub("-", base.lower()).strip("-")[: NAME_LIMIT - 16].strip("-") or "run"
    return f"{slug}-{now.astimezone(UTC):%Y%m%d-%H%M%S}"


def pairs(values: Sequence[str], flag: str) -> dict[str, str]:
    """From texts `key=value`."""
    found = {}
    for text in values:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise CliError(f"{flag} {text}: write it as key=value", CliExit.USAGE)
        found[key] = value
    return found


def names(values: Sequence[str]) -> list[str]:
    """The values of a flag that is given several times, or once with commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def database(flags: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> Draft:
    """spec.database. `known` is that of another object, used if no Secret is given."""
    fields = given(host=flags["host"], port=flags["port"], name=flags["database"], user=flags["user"], sslMode=flags["ssl_mode"])
    if flags["ca_secret"]:
        name, _, key = flags["ca_secret"].partition(":")
        fields["caSecretRef"] = given(name=name, key=key)
    if flags["secret"]:
        return {"secretRef": {"name": flags["secret"]}, **fields}
    if known:
        return {**known, **fields}
    raise CliError(
        "which database?", CliExit.USAGE, "--secret NAME names the Secret with its connection, such as the one that the database's operator created."
    )


def backup(flags: Mapping[str, Any]) -> Draft:
    """spec of a DatabaseBackup. Without a flag, the API's default applies."""
    spec: Draft = {"database": database(flags)}
    if flags["storage"]:
        spec["storageRef"] = {"name": flags["storage"]}
    compression = None
    if flags["compression"]:
        algorithm, _, level = flags["compression"].partition(":")
        if level and not level.isdigit():
            raise CliError(f"--compression {flags['compression']}: the level is a number, as in zstd:9", CliExit.USAGE)
        compression = given(algorithm=algorithm, level=int(level) if level else None)
    return spec | given(
        format=flags["format"],
        schemas=names(flags["schema"]),
        excludeSchemas=names(flags["exclude_schema"]),
        excludeExtensions=names(flags["exclude_extension"]),
        excludeTables=names(flags["exclude_table"]),
        excludeTableData=names(flags["exclude_table_data"]),
        clean=False if flags["no_clean"] else None,
        rowCounts="Off" if flags["no_row_counts"] else None,
        compression=compression,
        ttl=flags["ttl"],
        deletionPolicy=flags["deletion_policy"],
        timeout=flags["timeout"],
        retries=flags["retries"],
    )


def restore_source(
    *, backup_name: str | None, schedule: str | None, before: str | None, source_database: str | None, key: str | None, storage: str | None
) -> Draft:
    """spec.source: exactly one of a backup, a schedule and a key."""
    if sum(source is not None for source in (backup_name, schedule, key)) != 1:
        raise CliError(
            "it is not clear what to restore", CliExit.USAGE, "Name a backup, or --schedule NAME for its newest one, or --key KEY of the bucket."
        )
    if (before or source_database) and schedule is None:
        raise CliError("--before and --source-database need --schedule", CliExit.USAGE)
    if backup_name is not None:
        return {"backupRef": {"name": backup_name}}
    if schedule is not None:
        return {"scheduleRef": {"name": schedule, **given(before=when(before) if before else None, database=source_database)}}
    return {"artifact": {**({"storageRef": {"name": storage}} if storage else {}), "key": str(key).strip("/")}}


def when(text: str) -> str:
    """A time in the API's format; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CliError(f"--before {text}: not a time such as 2026-11-20 or 2026-11-20T14:30:00Z", CliExit.USAGE) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def restore(flags: Mapping[str, Any], source: Raw, target: Raw) -> Draft:
    return {"source": source, "database": target} | given(
        onExisting="Replace" if flags["replace"] else None,
        createDatabase=True if flags["create_database"] else None,
        safetyBackup=False if flags["no_safety_backup"] else None,
        schemas=names(flags["schema"]),
        tables=names(flags["table"]),
        timeout=flags["timeout"],
        lockTimeout=flags["lock_timeout"],
    )


KEEP = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def schedule(flags: Mapping[str, Any]) -> Draft:
    """spec of a DatabaseBackupSchedule."""
    retention = given(**{f"keep{period.capitalize()}": flags[f"keep_{period}"] for period in KEEP}, minKeep=flags["min_keep"])
    databases = given(include=names(flags["include"]), exclude=names(flags["exclude"]))
    return {"schedule": flags["cron"]} | given(
        timeZone=flags["time_zone"],
        jitter=flags["jitter"],
        immediate=True if flags["immediate"] else None,
        concurrencyPolicy=flags["concurrency"],
        startingDeadline=flags["starting_deadline"],
        databases=databases,
        retention=retention,
        template={"spec": backup(flags)},
    )


def same_target(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two `spec.database` name the same database, judged by their text alone."""
    fields = ("secretRef", "host", "port", "name", "keys")
    return all(one.get(field) == other.get(field) for field in fields)
