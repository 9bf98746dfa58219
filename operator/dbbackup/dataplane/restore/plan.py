"""What a restore takes from its artifact, and the pg_restore command for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dbbackup.contract.catalog import Catalog, CatalogObject
from dbbackup.contract.errors import Failure
from dbbackup.contract.manifest import Contents, Manifest
from dbbackup.contract.run import RestoreOptions
from dbbackup.dataplane.bucket import load_catalog
from dbbackup.dataplane.context import Run
from dbbackup.dataplane.postgres import clients
from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.restore import selection
from dbbackup.dataplane.restore.lacking import lacking_by_key, lacking_by_name
from dbbackup.dataplane.restore.requirements import Requirements, requirements
from dbbackup.dataplane.restore.source import ArtifactSource
from dbbackup.dataplane.sql.archive_toc import TocEntry, TocError, read_toc
from dbbackup.storage.base import Storage
from dbbackup.text import listed

_BODIES = frozenset({"FUNCTION", "PROCEDURE", "COMMENT"})
"""Kinds of entries whose text may name objects that they can be made without."""
_FLAGS = ("--file=-", "--no-owner", "--no-privileges", "--no-tablespaces")
_LEGACY_FLAGS = ("--clean", "--if-exists")
"""For an artifact without a catalog: the DROP statements say what it holds."""


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """`argv` is that of pg_restore, empty for a plain artifact; `contents` is what is restored.
    `partial`: only a selection is restored, and `entries` and `chosen` describe it. `catalog`,
    `requirements` and `made`, the objects that the restored part makes, are None for an artifact
    without a catalog."""

    argv: tuple[str, ...]
    contents: Contents
    partial: bool = False
    entries: tuple[TocEntry, ...] = ()
    chosen: frozenset[int] = frozenset()
    catalog: Catalog | None = None
    requirements: Requirements | None = None
    made: tuple[CatalogObject, ...] | None = None


def make_plan(run: Run, storage: Storage, options: RestoreOptions, manifest: Manifest) -> RestorePlan:
    """The plan as far as the artifact alone determines it; `completed_plan` adds the rest. Failure
    SelectionUnsupported, SelectionEmpty, FormatUnsupported."""
    selective = bool(options.schemas or options.tables)
    if manifest.format == "plain":
        if selective:
            raise Failure("SelectionUnsupported", f"{options.key} is a plain artifact: it is restored whole or not at all")
        argv: tuple[str, ...] = ()
    else:
        argv = (_pg_restore(run, options.key, manifest), *_FLAGS, *(() if manifest.catalog else _LEGACY_FLAGS))
    catalog = load_catalog(storage, options.key, manifest)
    planned = RestorePlan(argv, manifest.contents, catalog=catalog)
    if not selective:
        return planned if catalog is None else replace(planned, requirements=requirements(catalog), made=catalog.objects)
    source = ArtifactSource(storage, options.key, manifest, run.stop)
    try:
        entries = read_toc(source.chunks())
    except TocError as error:
        raise Failure("FormatUnsupported", f"{options.key}: {error}; restore it whole, or with the commands in RESTORE.md") from None
    finally:
        source.close()
    return replace(planned, partial=True, entries=tuple(entries), chosen=frozenset(selection.choose(entries, options.schemas, options.tables)))


def _pg_restore(run: Run, key: str, manifest: Manifest) -> str:
    installed = clients.installed(run.paths.postgresql)
    least = int(manifest.pg_dump_version.partition(".")[0] or 0)
    newest = max(installed, default=0)
    if newest < least:
        raise Failure("FormatUnsupported", f"{key} was made by pg_dump {manifest.pg_dump_version}; the newest pg_restore here is {newest or 'none'}")
    return installed[newest].pg_restore


@contextmanager
def completed_plan(planned: RestorePlan, connection: Connection, run: Run) -> Iterator[RestorePlan]:
    """The plan with the objects that a selection needs and the target lacks. The list for
    pg_restore is a file that is deleted after the block."""
    if not planned.partial:
        yield planned
        return
    lacking = lacking_by_name(connection) if planned.catalog is None else lacking_by_key(connection, planned.catalog.by_address())
    selected = selection.complete(planned.entries, set(planned.chosen), lacking)
    if selected.needed:
        run.reporter.info(f"the selection needs these objects, which the target lacks: {', '.join(selected.needed)}")
    if selected.left_out:
        run.warn(f"foreign keys were left out, as the tables that they refer to are neither selected nor in the target: {listed(selected.left_out)}")
    with closing(tempfile.NamedTemporaryFile("w", dir=run.paths.scratch, prefix="list-")) as file:
        file.write(selected.listing())
        file.flush()
        argv = (*planned.argv, f"--use-list={Path(file.name)}")
        contents = selected.contents(planned.contents)
        if planned.catalog is None:
            yield replace(planned, argv=argv, contents=contents)
            return
        ids = set(selected.ids)
        entries = [entry for entry in planned.entries if entry.id in ids]
        addresses = {entry.address for entry in entries if entry.address}
        definitions = "\n".join(entry.definition for entry in entries if entry.kind not in _BODIES)
        wanted = requirements(planned.catalog, addresses, definitions)
        made = tuple(held for held in planned.catalog.objects if held.address in addresses or held.of in addresses)
        named = {extension.name for extension in contents.extensions} | wanted.extensions
        extensions = tuple(extension for extension in planned.contents.extensions if extension.name in named)
        contents = contents.model_copy(update={"extensions": extensions})
        yield replace(planned, argv=argv, contents=contents, requirements=wanted, made=made)
