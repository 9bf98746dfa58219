"""`import`: creates objects for artifacts in a bucket that have none."""

from __future__ import annotations

import click

from dbbackup.api.metadata import IMPORT
from dbbackup.cli import flags
from dbbackup.cli.app import access, connection
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.output import clean, count, say_err
from dbbackup.cli.verbs.storage import KIND, ready_of, requested


@click.command("import")
@click.argument("storage", type=flags.STORAGE, default="default")
@click.option("--wait-timeout", type=flags.Seconds(), default="15m", metavar="DURATION", show_default=True, help="How long to wait.")
@connection
@click.pass_context
def import_(ctx: click.Context, /, storage: str, wait_timeout: float) -> int:
    """Create objects for artifacts that have none.

    STORAGE is `default` if it is not given. Each complete artifact without an object gets a
    DatabaseBackup. A second import creates nothing twice.
    """
    kube = access(ctx)
    for seen, token, tried in requested(kube, storage, IMPORT, wait_timeout):
        done = (seen.get("status") or {}).get("lastImport") or {}
        if done.get("token") == token:
            say_err(f"{count(done.get('imported', 0), 'backup')} created, {done.get('skipped', 0)} unusable artifacts skipped")
            return CliExit.OK
        if tried:
            raise CliError(f"{KIND} {storage} cannot be read: {clean(ready_of(seen).get('message', ''))}", CliExit.FAILED)
    raise CliError(
        f"the import has not ended within {wait_timeout:.0f} s; it continues", CliExit.TIMEOUT, "`kubectl dbbackup doctor` shows what may delay it."
    )
