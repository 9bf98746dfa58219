"""`create`: starts a backup now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from dbbackup.api.metadata import PIN
from dbbackup.cli import flags, specs
from dbbackup.cli.app import access, connection
from dbbackup.cli.creating import create_object


@click.command()
@click.argument("name", required=False)
@flags.database
@flags.backup
@click.option("--pin", is_flag=True, help="Keep it beyond its time to live, until the annotation dbbackup.io/pin is removed.")
@flags.labels
@flags.wait
@flags.dry
@connection
@click.pass_context
def create(ctx: click.Context, /, name: str | None, **values: Any) -> int:
    """Back up a database now.

    NAME is the name of the DatabaseBackup. Without it, the name is made of the database's or the
    Secret's name and the time.
    """
    kube = access(ctx)
    spec = specs.backup(values)
    name = name or specs.own_name(values["database"] or values["secret"], datetime.now(UTC))
    annotations = specs.pairs(values["annotation"], "--annotation") | ({PIN: "true"} if values["pin"] else {})
    labels = specs.pairs(values["label"], "--label")
    obj = specs.obj("DatabaseBackup", name, kube.namespace, spec, labels=labels, annotations=annotations)
    return create_object(kube, obj, values)
