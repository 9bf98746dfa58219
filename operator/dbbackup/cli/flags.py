"""Flags that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from dbbackup.api.units import parse_duration

F = TypeVar("F", bound=Callable[..., Any])

_SSL = click.Choice(["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])


class Seconds(click.ParamType[float]):
    """A duration such as 90s or 1h30m, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return float(parse_duration(str(value)))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ObjectName(click.ParamType[str]):
    """The name of an object; the shell completes it from the cluster."""

    name = "name"

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        from dbbackup.cli.app import access  # noqa: PLC0415
        from dbbackup.cli.errors import CliError  # noqa: PLC0415

        try:
            found = [item["metadata"]["name"] for kind in self.kinds for item in access(ctx).objects(kind)]
        except CliError:
            return []
        return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


BACKUP, SCHEDULE, STORAGE = ObjectName("DatabaseBackup"), ObjectName("DatabaseBackupSchedule"), ObjectName("BackupStorage")
RUN = ObjectName("DatabaseBackup", "DatabaseRestore")


def stacked(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


database = stacked(
    click.option("--secret", metavar="NAME", help="Secret with the connection, in the same namespace."),
    click.option("--database", metavar="NAME", help="Name of the database, if the Secret has another or none."),
    click.option("--host", metavar="HOST", help="Host of the server, if the Secret has another or none."),
    click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="Port of the server, if the Secret has another or none."),
    click.option("--user", metavar="NAME", help="User, if the Secret has another or none."),
    click.option("--ssl-mode", type=_SSL, help="How TLS is used: libpq's sslmode."),
    click.option(
        "--ca-secret", metavar="NAME[:KEY]", help="Secret with the CA of the server's certificate, under the key ca.crt unless another is given."
    ),
)

backup = stacked(
    click.option("--storage", type=STORAGE, metavar="NAME", help="BackupStorage that takes the artifact.  [default: default]"),
    click.option("--format", type=click.Choice(["plain", "custom"]), help="plain is SQL; custom is pg_dump's archive, restorable in parts."),
    click.option("--schema", multiple=True, metavar="NAME", help="Back up only this schema; may be given several times, or with commas."),
    click.option("--exclude-schema", multiple=True, metavar="PATTERN", help="Leave out these schemas, with * and ?."),
    click.option("--exclude-extension", multiple=True, metavar="PATTERN", help="Leave out these extensions and the rows of their tables."),
    click.option("--exclude-table", multiple=True, metavar="PATTERN", help="Leave out these tables: schema.table, with * and ?."),
    click.option("--exclude-table-data", multiple=True, metavar="PATTERN", help="Leave out the rows of these tables."),
    click.option("--compression", metavar="ALGORITHM[:LEVEL]", help="zstd, gzip or none, with a level such as zstd:9."),
    click.option("--no-clean", is_flag=True, help="No DROP statements in a plain artifact."),
    click.option("--no-row-counts", is_flag=True, help="Do not count rows."),
    click.option("--ttl", metavar="DURATION", help="How long to keep the artifact, such as 30d, or never."),
    click.option("--deletion-policy", type=click.Choice(["Retain", "Delete"]), help="What happens to the artifact when the object is deleted."),
    click.option("--timeout", metavar="DURATION", help="How long one attempt may take, such as 2h."),
    click.option("--retries", type=click.IntRange(0, 10), metavar="N", help="How often a failed attempt is repeated."),
)

labels = stacked(
    click.option("--label", "-l", multiple=True, metavar="KEY=VALUE", help="A label for the object; may be given several times."),
    click.option("--annotation", multiple=True, metavar="KEY=VALUE", help="An annotation for the object; may be given several times."),
)

dry = stacked(
    click.option("--dry-run", is_flag=True, help="Create nothing; let the API server check the object and print it, for Git."),
    click.option("-o", "--output", type=click.Choice(["yaml", "json", "name"]), help="Print the object instead of a line about it."),
)

wait = stacked(
    click.option("--wait", "-w", is_flag=True, help="Wait for the end and show progress. ^C ends the waiting, not the run."),
    click.option("--wait-timeout", type=Seconds(), default="24h", metavar="DURATION", show_default=True, help="How long to wait."),
)
