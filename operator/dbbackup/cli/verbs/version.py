"""`version`: of the plugin, and of the operator as the storages of the namespace tell it."""

from __future__ import annotations

import platform
from contextlib import suppress

import click

from dbbackup import __version__
from dbbackup.cli.app import access, connection
from dbbackup.cli.decompress import zstd_decoder
from dbbackup.cli.errors import CliError, ExitCode
from dbbackup.cli.output import say


@click.command()
@click.option("--client", is_flag=True, help="Only the plugin's; asks nothing of the cluster.")
@connection
@click.pass_context
def version(ctx: click.Context, /, client: bool) -> int:
    """Tell the versions of plugin and operator."""
    zstd = "its own" if zstd_decoder() is not None else "the program zstd, or the pod"
    say(f"plugin    {__version__} (Python {platform.python_version()}; zstd: {zstd})")
    if client:
        return ExitCode.OK
    kube = access(ctx)
    told: dict[str, str] = {}
    with suppress(CliError):
        for storage in kube.objects("BackupStorage"):
            status = storage.get("status") or {}
            if status.get("operatorVersion"):
                told[status["operatorVersion"]] = status.get("image", "")
    for number, image in told.items():
        say(f"operator  {number} ({image})")
    if not told:
        say(f"operator  unknown: no BackupStorage in namespace {kube.namespace} tells it")
    return ExitCode.OK
