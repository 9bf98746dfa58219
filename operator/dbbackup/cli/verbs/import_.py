"""`import`: objects for the artifacts in a bucket that have none."""

from __future__ import annotations

import click

from dbbackup.api.metadata import IMPORT
from dbbackup.cli import flags
from dbbackup.cli.app import access, connection
from dbbackup.cli.errors import CliError, ExitCode
from dbbackup.cli.output import clean, count, say_err
from dbbackup.cli.verbs.storage import KIND, asked, ready_of


@click.command("import")
@click.argument("storage", type=flags.STORAGE, default="default")
@click.option("--wait-timeout", type=flags.Seconds(), default="15m", metavar="DURATION", show_default=True, help="How long to wait.")
@connection
@click.pass_context
def import_(ctx: click.Context, /, storage: str, wait_timeout: float) -> int:
    """Make backups known again that lie in a bucket.

    STORAGE is `default` without one. Each sealed artifact without an object gets a DatabaseBackup
    again. Doing so twice makes nothing twice.
    """
    kube = access(ctx)
    for seen, token, tried in asked(kube, storage, IMPORT, wait_timeout):
        told = (seen.get("status") or {}).get("lastImport") or {}
        if told.get("token") == token:
            say_err(f"{count(told.get('imported', 0), 'backup')} made known, {told.get('skipped', 0)} artifacts skipped that cannot be used")
            return ExitCode.OK
        if tried:
            raise CliError(f"{KIND} {storage} cannot be read: {clean(ready_of(seen).get('message', ''))}", ExitCode.FAILED)
    raise CliError(
        f"the import is not done within {wait_timeout:.0f} s; it goes on", ExitCode.TIMEOUT, "`kubectl dbbackup doctor` tells why it may take long."
    )
