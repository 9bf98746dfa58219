"""`version`: of the plugin, and of the operator, from the status of the namespace's storages."""

from __future__ import annotations

import platform
from contextlib import suppress

import click

from dbbackup import __version__
from dbbackup.cli.app import access, connection
from dbbackup.cli.decompress import zstd_decoder
from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.output import say


@click.command()
@click.option("--client", is_flag=True, help="Only the plugin's version; no request to the cluster.")
@connection
@click.pass_context
def version(ctx: click.Context, /, client: bool) -> int:
    """Show the versions of plugin and operator."""
    zstd = "built in" if zstd_decoder() is not None else "the program zstd, or the pod"
    say(f"plugin    {__version__} (Python {platform.python_version()}; zstd: {zstd})")
    if client:
        return CliExit.OK
    kube = access(ctx)
    versions: dict[str, str] = {}
    with suppress(CliError):
        for storage in kube.objects("BackupStorage"):
            status = storage.get("status") or {}
            if status.get("operatorVersion"):
                versions[status["operatorVersion"]] = status.get("image", "")
    for number, image in versions.items():
        say(f"operator  {number} ({image})")
    if not versions:
        say(f"operator  unknown: no BackupStorage in namespace {kube.namespace} names it")
    return CliExit.OK
