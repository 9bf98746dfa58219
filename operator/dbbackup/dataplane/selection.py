"""Which part of an artifact is restored: all of it, or some schemas and tables of a custom archive with all that belongs to them."""

from __future__ import annotations

from dataclasses import dataclass

from dbbackup.artifact import Contents, Manifest
from dbbackup.dataplane import clients
from dbbackup.dataplane.context import Run
from dbbackup.errors import Failure
from dbbackup.run import RestoreOptions
from dbbackup.storage.base import Storage


@dataclass(frozen=True, slots=True)
class Plan:
    """`argv` is that of pg_restore, empty for a plain artifact; `contents` is what is restored; `relations` estimates what it makes."""

    argv: tuple[str, ...]
    contents: Contents
    partial: bool
    relations: int


def plan(run: Run, _storage: Storage, options: RestoreOptions, manifest: Manifest) -> Plan:
    """Failure SelectionUnsupported, SelectionEmpty."""
    selective = bool(options.schemas or options.tables)
    if manifest.format == "plain":
        if selective:
            raise Failure("SelectionUnsupported", f"{options.key} is a plain artifact: it is restored whole or not at all")
        return Plan((), manifest.contents, partial=False, relations=manifest.contents.relations)
    client = clients.installed(run.paths.postgresql)
    least = int(manifest.pg_dump_version.partition(".")[0] or 0)
    fitting = [client[major] for major in sorted(client) if major >= least]
    if not fitting:
        raise Failure(
            "FormatUnsupported",
            f"{options.key} was made by pg_dump {manifest.pg_dump_version}; the newest pg_restore here is {max(client, default=0)}",
        )
    argv = (fitting[-1].pg_restore, "--file=-", "--no-owner", "--no-privileges", "--no-tablespaces", "--clean", "--if-exists")
    return Plan(argv, manifest.contents, partial=False, relations=manifest.contents.relations)
