"""`create`: a backup now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from dbbackup.api.metadata import PIN
from dbbackup.cli import flags, specs
from dbbackup.cli.app import access, connection
from dbbackup.cli.making import make


@click.command()
@click.argument("name", required=False)
@flags.database
@flags.backup
@click.option("--pin", is_flag=True, help="Keep it beyond its time to live, until somebody removes the annotation dbbackup.io/pin.")
@flags.labels
@flags.wait
@flags.dry
@connection
@click.pass_context
def create(ctx: click.Context, /, name: str | None, **values: Any) -> int:
    """Back up a database now.

    NAME is that of the DatabaseBackup; without it one is made from the database's or the Secret's
    name and the time.
    """
    kube = access(ctx)
    spec = specs.backup(values)
    name = name or specs.own_name(values["database"] or values["secret"], datetime.now(UTC))
    annotations = specs.pairs(values["annotation"], "--annotation") | ({PIN: "true"} if values["pin"] else {})
    labels = specs.pairs(values["label"], "--label")
    obj = specs.obj("DatabaseBackup", name, kube.namespace, spec, labels=labels, annotations=annotations)
    return make(kube, obj, values)
