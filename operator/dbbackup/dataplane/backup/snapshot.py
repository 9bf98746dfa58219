"""The coordinator of a backup: it selects the tables, locks them, and then exports one snapshot
that pg_dump and all row counts share.

The order matters. A snapshot that is taken before its tables are locked misses rows without any
error: a TRUNCATE that commits between the two empties the table for the snapshot too. So: list,
BEGIN, lock (without a query before it, as that would take the snapshot), export, and check that the
list has not changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from dbbackup.contract.errors import Failure
from dbbackup.contract.manifest import Contents, ExtensionEntry, SourceDatabase, TableEntry
from dbbackup.contract.run import BackupOptions
from dbbackup.dataplane.backup import catalog
from dbbackup.dataplane.backup.configuration import NO_CONFIGURATION, Configuration, read_members, select_configuration
from dbbackup.dataplane.backup.objects import Dumped, read_catalog
from dbbackup.dataplane.postgres import table_patterns
from dbbackup.dataplane.postgres.connection import Connection, one, server_version, to_failure, uses_tls
from dbbackup.dataplane.postgres.conninfo import Conninfo
from dbbackup.dataplane.postgres.encoding import encoded, identifier
from dbbackup.dataplane.postgres.lock_holders import naming_holders
from dbbackup.text import listed, presentable

if TYPE_CHECKING:
    from dbbackup.dataplane.context import Stop

LOCK_TIMEOUT = "60s"
ATTEMPTS = 5
_NAMED = 20
_LOCK_BATCH = 500


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, view, foreign table or sequence of the source. `kind` is pg_class.relkind. `size` in
    bytes, by the planner's last figures. `parents` are oids: of the tables that it inherits from or
    is a partition of, or, of a sequence, of the table that owns it. `hidden_rows`: row-level
    security is active for this user."""

    oid: int
    schema: str
    name: str
    kind: str
    unlogged: bool
    hidden_rows: bool
    readable: bool
    size: int
    parents: tuple[int, ...]

    @property
    def key(self) -> tuple[str, str]:
        return self.schema, self.name


@dataclass(frozen=True, slots=True)
class TableSelection:
    """What the options mean in this database: every name is exact, so that pg_dump and the manifest
    can't differ. `relations` are those that are dumped, without plain views. `roots` has the
    topmost table of each partition; `through_roots`: partitions are to be loaded through it."""

    schemas: tuple[str, ...]
    relations: tuple[Relation, ...]
    excluded: frozenset[tuple[str, str]]
    without_data: frozenset[tuple[str, str]]
    unmatched: tuple[str, ...] = ()
    excluded_oids: tuple[int, ...] = ()
    roots: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    excluded_schemas: tuple[str, ...] = ()
    extensions: tuple[ExtensionEntry, ...] = ()
    excluded_extensions: tuple[str, ...] = ()
    configuration: Configuration = NO_CONFIGURATION
    through_roots: bool = False

    @property
    def tables(self) -> list[Relation]:
        return [relation for relation in self.relations if relation.kind in "rp"]

    @property
    def data_tables(self) -> list[Relation]:
        """Tables whose rows must appear in the dump."""
        return [r for r in self.relations if r.kind == "r" and r.key not in self.without_data]

    @property
    def table_identities(self) -> set[tuple[int, str, str]]:
        """The (oid, schema, name) that must not change between listing and snapshot."""
        members = {(member.oid, *member.key) for member in self.configuration.dumped}
        return members | {(relation.oid, *relation.key) for relation in self.tables}

    @property
    def locked(self) -> list[tuple[str, str]]:
        return [table.key for table in self.tables] + [member.key for member in self.configuration.dumped if member.kind == "r"]


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """The source database and the dump's contents, as the snapshot shows them. `catalog` is the
    stored form of the artifact's catalog."""

    database: SourceDatabase
    contents: Contents
    catalog: bytes
    closed_mappings: tuple[str, ...] = ()
    """User mappings whose options this user may not see, so that the dump lacks them."""


def select_tables(relations: Iterable[Relation], schemas: Sequence[str], options: BackupOptions, *, standby: bool = False) -> TableSelection:
    """Pure: which relations are dumped, and which without rows. `schemas` are the database's.

    Failure InvalidSpec where the options name a schema that the database lacks.
    """
    shown = {presentable(schema): schema for schema in schemas}
    missing = [schema for schema in options.schemas if schema not in shown]
    if missing:
        raise Failure("InvalidSpec", f"the database has no schema {', '.join(missing)}; it has {listed(shown, _NAMED) or 'none'}")
    unmatched = [pattern for pattern in options.exclude_schemas or () if not table_patterns.matching_names(pattern, schemas)]
    gone_schemas = {schema for pattern in options.exclude_schemas or () for schema in table_patterns.matching_names(pattern, schemas)}
    chosen = tuple(schema for schema in schemas if schema not in gone_schemas and (not options.schemas or presentable(schema) in options.schemas))
    if options.schemas and not chosen:
        raise Failure("InvalidSpec", "excludeSchemas leaves out all of `schemas`")
    everything = list(relations)
    inside = [relation for relation in everything if relation.schema in chosen]
    keys = [relation.key for relation in inside if relation.kind not in "Sv"]
    views = [relation.key for relation in inside if relation.kind == "v"]
    excluded: set[tuple[str, str]] = set()
    without_data: set[tuple[str, str]] = set()
    for patterns, found, known in ((options.exclude_tables, excluded, keys + views), (options.exclude_table_data, without_data, keys)):
        for pattern in patterns:
            matched = table_patterns.matching_tables(pattern, known)
            found.update(matched)
            if not matched:
                unmatched.append(pattern)
    excluded |= _descendants(inside, excluded)
    tables = {relation.oid for relation in inside if relation.key in excluded}
    # pg_dump --exclude-table does not exclude the table's own sequences. Restored, they would reset
    # the sequences of a table that stays in the target.
    excluded |= {relation.key for relation in inside if relation.kind == "S" and tables.intersection(relation.parents)}
    without_data |= _descendants(inside, without_data)
    if standby:
        without_data |= {relation.key for relation in inside if relation.unlogged}
    kept = tuple(relation for relation in inside if relation.key not in excluded and relation.kind != "v")
    gone = tuple(relation.oid for relation in inside if relation.key in excluded)
    return TableSelection(
        chosen, kept, frozenset(excluded), frozenset(without_data - excluded), tuple(unmatched), gone, _roots(everything), tuple(sorted(gone_schemas))
    )


def _roots(relations: Sequence[Relation]) -> dict[tuple[str, str], tuple[str, str]]:
    partitioned = {relation.oid: relation for relation in relations if relation.kind == "p"}
    roots: dict[tuple[str, str], tuple[str, str]] = {}
    for relation in relations:
        top = relation
        while parent := next((partitioned[oid] for oid in top.parents if oid in partitioned), None):
            top = parent
        if top is not relation:
            roots[relation.key] = top.key
    return roots


def _descendants(relations: Sequence[Relation], keys: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Partitions of the partitioned tables among `keys`, at any depth. If they were not excluded
    too, the table's rows would still be dumped."""
    oids = {relation.oid for relation in relations if relation.key in keys and relation.kind == "p"}
    result: set[tuple[str, str]] = set()
    while found := [r for r in relations if r.key not in result and oids.intersection(r.parents)]:
        result |= {relation.key for relation in found}
        oids = {relation.oid for relation in found if relation.kind == "p"}
    return result


def refuse_unreadable(selection: TableSelection, large_objects: Sequence[tuple[int, str, int]], who: str) -> None:
    """Failure RowSecurity or InsufficientPrivilege that names everything of which this user can't
    read the rows, or only some. `large_objects`: (oid, owner, how many there are in all)."""
    members = selection.configuration.dumped
    hidden = [".".join(r.key) for r in selection.relations if r.hidden_rows and r.kind in "rp" and r.key not in selection.without_data]
    hidden += [".".join(member.key) for member in members if member.hidden_rows]
    unreadable = [".".join(r.key) for r in selection.relations if not r.readable and r.kind in "rpS"]
    unreadable += [".".join(member.key) for member in members if not member.readable]
    texts = [f"row-level security would hide rows of {listed(hidden, _NAMED)}"] if hidden else []
    texts += [f"no SELECT on (or no USAGE on the schema of) {listed(unreadable, _NAMED)}"] if unreadable else []
    if large_objects:
        names = listed((f"{oid} (of {owner})" for oid, owner, _ in large_objects), _NAMED, total=large_objects[0][2])
        cure = f"have them granted to it (GRANT SELECT ON LARGE OBJECT {large_objects[0][0]} TO ...), or back up as their owner or a superuser"
        texts.append(f"no SELECT on the large objects {names}: {cure}")
    if closed := sorted({member.extension for member in members if member.hidden_rows or not member.readable}):
        texts.append(f"leave out the tables of the extensions by excludeTables, or the extensions {listed(closed, _NAMED)} by excludeExtensions")
    if hidden or unreadable or large_objects:
        raise Failure("RowSecurity" if hidden else "InsufficientPrivilege", f"{who}: {'; '.join(texts)}")


class Snapshot:
    """Holds the connection's transaction, and with it the snapshot, until `release`. `take` may be
    called again after a failure."""

    def __init__(self, connection: Connection, info: Conninfo, options: BackupOptions, stop: Stop) -> None:
        self.connection = connection
        self.info = info
        self.options = options
        self._stop = stop
        self.identifier = ""
        self.selection = TableSelection((), (), frozenset(), frozenset())
        self.version_num, self.version = server_version(connection)
        self.standby = False

    def take(self) -> None:
        """Failure RowSecurity, InsufficientPrivilege, LockTimeout, InvalidSpec, ..."""
        doing = "listing the tables"
        try:
            with self._stop.calling(self.connection.cancel_safe):
                self._stop.check()
                for _ in range(ATTEMPTS):
                    self.release()
                    self.connection.execute("SET row_security = on")
                    self.standby = bool(one(self.connection, "SELECT pg_catalog.pg_is_in_recovery()")[0])
                    listed = self._select()
                    refuse_unreadable(listed, self.connection.execute(catalog.CLOSED_LARGE_OBJECTS).fetchall(), self.info.who)
                    doing = "locking the tables"
                    if not self._lock(listed):
                        continue
                    doing = "exporting the snapshot"
                    self.identifier = str(one(self.connection, "SELECT pg_catalog.pg_export_snapshot()")[0])
                    self.selection = self._select()
                    if self.selection.table_identities <= listed.table_identities:
                        return
        except psycopg.Error as error:
            self._stop.check()
            raise to_failure(error, self.info, doing, "DumpFailed") from None
        raise Failure("LockTimeout", f"{self.info.who}: tables were created or dropped while they were being locked, {ATTEMPTS} times in a row")

    def _lock(self, listed: TableSelection) -> bool:
        """Whether all tables could be locked; False where one was dropped meanwhile."""
        self.connection.execute("SET row_security = off")
        self.connection.execute("SELECT pg_catalog.set_config('lock_timeout', %s, false)", (LOCK_TIMEOUT,))
        tables = listed.locked
        try:
            with naming_holders(self.connection, f"{self.info.who}: the tables could not be locked within {LOCK_TIMEOUT}"):
                self.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                for i in range(0, len(tables), _LOCK_BATCH):
                    batch = ", ".join(f"ONLY {identifier(*key)}" for key in tables[i : i + _LOCK_BATCH])
                    self.connection.execute(encoded(self.connection, f"LOCK TABLE {batch} IN ACCESS SHARE MODE"))
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.WrongObjectType):
            return False
        return True

    def _select(self) -> TableSelection:
        schemas = [str(row[0]) for row in self.connection.execute(catalog.SCHEMAS).fetchall()]
        relations = [_relation(row) for row in self.connection.execute(catalog.RELATIONS).fetchall()]
        selection = select_tables(relations, schemas, self.options, standby=self.standby)
        parameters = {"all": not self.options.schemas, "namespaces": self._namespaces(selection)}
        found = [ExtensionEntry(name=n, schema_=s, version=v) for n, s, v in self._rows(catalog.EXTENSIONS, parameters)]
        patterns = self.options.exclude_extensions or ()
        excluded = {name for pattern in patterns for name in table_patterns.matching_names(pattern, (e.name for e in found))}
        extensions = tuple(extension for extension in found if extension.name not in excluded)
        configuration = select_configuration(read_members(self.connection), {e.name for e in extensions}, self.options)
        unmatched = [pattern for pattern in selection.unmatched if pattern not in configuration.matched]
        unmatched += [pattern for pattern in patterns if not table_patterns.matching_names(pattern, excluded)]
        return replace(
            selection,
            extensions=extensions,
            excluded_extensions=tuple(sorted(excluded)),
            configuration=configuration,
            unmatched=tuple(unmatched),
            through_roots=bool(one(self.connection, catalog.MOVING_HASHES)[0]),
        )

    def _namespaces(self, selection: TableSelection) -> list[int]:
        return [row[0] for row in self.connection.execute(catalog.NAMESPACES, (list(selection.schemas),)).fetchall()]

    def _dumped_namespaces(self) -> list[int]:
        if self.options.schemas:
            return self._namespaces(self.selection)
        return [row[0] for row in self.connection.execute(catalog.OTHER_NAMESPACES.encode(), (list(self.selection.excluded_schemas),)).fetchall()]

    def describe(self) -> SourceDescription:
        """What the dump of this snapshot holds and needs. Failure DumpFailed, ConnectionLost,
        ..."""
        try:
            with self._stop.calling(self.connection.cancel_safe):
                return self._describe()
        except psycopg.Error as error:
            self._stop.check()
            raise to_failure(error, self.info, "reading the catalogs", "DumpFailed") from None

    def _describe(self) -> SourceDescription:
        every = not self.options.schemas
        parameters: dict[str, Any] = {
            "all": every,
            "namespaces": self._namespaces(self.selection),
            "tables": [relation.oid for relation in self.selection.tables],
            "excluded": list(self.selection.excluded_oids),
        }
        extensions = self.selection.extensions
        configuration = tuple(member.entry() for member in self.selection.configuration.dumped)
        large_objects, relations, routines = self._rows(catalog.FIGURES, parameters)[0]
        publications = catalog.PUBLICATIONS_15 if self.version_num >= 150000 else catalog.PUBLICATIONS
        dumped = Dumped(every, self._dumped_namespaces(), self.selection.excluded_oids, [extension.name for extension in extensions])
        found = read_catalog(self.connection, self.version_num, dumped)
        contents = Contents(
            schemas=tuple(map(presentable, self.selection.schemas)),
            tables=tuple(self._entry(relation) for relation in self.selection.relations if relation.kind != "S"),
            extensions=extensions,
            roles=tuple(row[0] for row in self._rows(catalog.ROLES, parameters)),
            event_triggers=tuple(row[0] for row in self._rows(catalog.EVENT_TRIGGERS)) if every else (),
            superuser_publications=tuple(row[0] for row in self._rows(publications)) if every else (),
            large_objects=large_objects,
            relations=relations,
            routines=routines,
            outside=found.outside,
            configuration=configuration or None,
        )
        closed = tuple(row[0] for row in self._rows(catalog.CLOSED_MAPPINGS)) if every else ()
        return SourceDescription(self._database(), contents, found.packed, closed)

    def _rows(self, query: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """What the query finds, in texts that a manifest can hold."""
        found = self.connection.execute(query.encode(), parameters).fetchall()
        return [tuple(presentable(value) if isinstance(value, str) else value for value in row) for row in found]

    def _entry(self, relation: Relation) -> TableEntry:
        kind = "unlogged" if relation.unlogged and relation.kind == "r" else _KINDS[relation.kind]
        schema, name = map(presentable, relation.key)
        return TableEntry.model_validate({"schema": schema, "name": name, "kind": kind, "dataExcluded": relation.key in self.selection.without_data})

    def _database(self) -> SourceDatabase:
        text, encoding, size, search_path = one(self.connection, catalog.DATABASE)
        row = json.loads(presentable(text))
        return SourceDatabase(
            identity=self.info.identity,
            host=self.info.host,
            port=self.info.port,
            name=self.info.name,
            server_version=self.version,
            server_version_num=self.version_num,
            size_bytes=size,
            encoding=encoding,
            collate=row["datcollate"],
            ctype=row["datctype"],
            locale_provider=row.get("datlocprovider", "c"),
            icu_locale=row.get("datlocale") or row.get("daticulocale"),
            icu_rules=row.get("daticurules"),
            tls=uses_tls(self.connection),
            search_path=search_path if search_path.isascii() else None,
        )

    def begin_counting(self) -> None:
        """Call it before `count`: a count that fails must not end the transaction, which holds the
        locks and the snapshot."""
        self._keep("SAVEPOINT counts")

    def count(self, relation: Relation) -> int | None:
        """Rows of one table, in the snapshot; None where they cannot be counted."""
        query = encoded(self.connection, f"SELECT pg_catalog.count(*) FROM ONLY {identifier(*relation.key)}")  # noqa: S608 - quoted
        with suppress(psycopg.Error):
            return int(one(self.connection, query)[0])
        self._stop.check()
        self._keep("ROLLBACK TO SAVEPOINT counts")
        return None

    def _keep(self, statement: LiteralString) -> None:
        try:
            self.connection.execute(statement)
        except psycopg.Error as error:
            self._stop.check()
            raise to_failure(error, self.info, "counting rows", "ConnectionLost") from None

    def release(self) -> None:
        """Releases the snapshot and the locks; the session stays open."""
        self.identifier = ""
        self.connection.rollback()


_KINDS = {"r": "table", "p": "partitioned", "f": "foreign", "m": "materialized"}


def _relation(row: tuple[Any, ...]) -> Relation:
    oid, schema, name, kind, persistence, hidden, select_, usage, size, parents = row
    return Relation(oid, schema, name, kind, persistence == "u", hidden, select_ and usage, size, tuple(parents or ()))
