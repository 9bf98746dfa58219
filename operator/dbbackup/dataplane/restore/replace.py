"""Drops the objects that a restore replaces, within its transaction, and puts back afterwards what
the artifact lacks: owners, privileges, publications, foreign keys of other tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import psycopg
from psycopg.pq import TransactionStatus

from dbbackup.contract.errors import Failure
from dbbackup.dataplane.postgres.connection import Connection
from dbbackup.dataplane.postgres.encoding import encoded, literal
from dbbackup.dataplane.postgres.lock_holders import naming_holders
from dbbackup.dataplane.postgres.one_command import run_command
from dbbackup.dataplane.postgres.own_settings import OwnSettings
from dbbackup.dataplane.restore import grants
from dbbackup.dataplane.restore.closure import ForeignKey, Replaced
from dbbackup.dataplane.restore.dropping import deviations, drop_statements, take_stock
from dbbackup.dataplane.restore.roots import Address, held_objects
from dbbackup.dataplane.restore.statement_errors import statement_failure
from dbbackup.text import listed

_LOCKABLE = """
SELECT c.oid::regclass::text FROM pg_catalog.pg_class c WHERE c.oid = ANY(%s::oid[]) AND c.relkind IN ('r', 'p') ORDER BY c.oid
"""
_PARTS_OF = """
SELECT i.type || ' ' || i.identity FROM (
  SELECT 'pg_class'::regclass::oid, indexrelid, 0 FROM pg_index WHERE indrelid = ANY(%(oids)s::oid[])
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
  UNION ALL SELECT 'pg_trigger'::regclass, oid, 0 FROM pg_trigger WHERE tgrelid = ANY(%(oids)s::oid[]) AND NOT tgisinternal
  UNION ALL SELECT 'pg_policy'::regclass, oid, 0 FROM pg_policy WHERE polrelid = ANY(%(oids)s::oid[])
  UNION ALL SELECT 'pg_rewrite'::regclass, oid, 0 FROM pg_rewrite WHERE ev_class = ANY(%(oids)s::oid[]) AND rulename <> '_RETURN'
  UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, 0 FROM pg_statistic_ext WHERE stxrelid = ANY(%(oids)s::oid[])
  UNION ALL SELECT 'pg_class'::regclass, d.objid, 0 FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY(%(oids)s::oid[]) AND d.deptype IN ('a', 'i')
  UNION ALL SELECT 'pg_constraint'::regclass, oid, 0 FROM pg_constraint WHERE conrelid = ANY(%(oids)s::oid[]) AND contype <> 't'
    AND CASE contype WHEN 'f' THEN conparentid = 0 WHEN 'n' THEN conislocal ELSE true END
  UNION ALL SELECT 'pg_constraint'::regclass, oid, 0 FROM pg_constraint WHERE contypid = ANY(%(domains)s::oid[])
  UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
    WHERE attrelid = ANY(%(oids)s::oid[]) AND attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'f')
) x(classid, objid, subid), LATERAL pg_catalog.pg_identify_object(classid, objid, subid) i
UNION ALL SELECT i.type || ' ' || i.identity FROM pg_publication_rel r,
  LATERAL pg_catalog.pg_identify_object('pg_publication_rel'::regclass, r.oid, 0) i WHERE r.prpubid = ANY(%(publications)s::oid[])
UNION ALL SELECT 'place of ' || inhrelid::regclass || ' among the children of ' || inhparent::regclass FROM pg_inherits
  WHERE inhrelid = ANY(%(oids)s::oid[])
"""
"""Without the foreign keys that PostgreSQL makes for each partition, and without NOT NULLs that are
only inherited (18 and newer): both have names that it chooses anew."""
_KINDS_WITH_PARTS = frozenset({"table", "view", "materialized view", "foreign table"})
_TABLESPACES = """
SELECT i.type || ' ' || i.identity, c.reltablespace::bigint
FROM pg_class c, LATERAL pg_catalog.pg_identify_object('pg_class'::regclass, c.oid, 0) i WHERE c.reltablespace <> 0 AND c.relkind <> 't'
"""
_PUBLISHED_SCHEMAS = """
SELECT i.type || ' ' || i.identity FROM pg_publication_namespace r,
  LATERAL pg_catalog.pg_identify_object('pg_publication_namespace'::regclass, r.oid, 0) i WHERE r.pnpubid = ANY(%s::oid[])
"""
_PUBLICATIONS_NOW = "SELECT oid FROM pg_catalog.pg_publication WHERE pg_catalog.quote_ident(pubname) = ANY(%s::text[])"
_TYPES_NOW = "SELECT oid FROM pg_catalog.pg_type WHERE pg_catalog.format_type(oid, NULL) = ANY(%s::text[])"
_RELATIONS_NOW = "SELECT oid FROM pg_catalog.pg_class WHERE oid::regclass::text = ANY(%s::text[])"
_LACKING = frozenset({"42703", "42830", "42804", "42704", "42883", "42P01"})
"""SQLSTATEs of a statement that names a column, a unique constraint, a type, an operator or a role
that is not there."""
_TOGETHER = 100
"""Statements under one savepoint."""
_FORCED = """
SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class c
WHERE c.relforcerowsecurity AND pg_catalog.row_security_active(c.oid) AND pg_catalog.pg_has_role(c.relowner, 'USAGE') AND c.oid IN (
  SELECT pg_catalog.to_regclass(w.name)::oid FROM pg_catalog.unnest(%s::text[]) w(name)
  UNION ALL SELECT p.relid::oid FROM pg_catalog.unnest(%s::text[]) w(name) CROSS JOIN LATERAL
    pg_catalog.pg_partition_tree(pg_catalog.to_regclass(w.name)) p)
ORDER BY 1
"""


class Replacement:
    """The replacement of the target's objects, over a connection in a transaction. Call in this
    order: `lock`, `drop`, then run the dump, `check_made_again`, `put_back`."""

    def __init__(self, connection: Connection, settings: OwnSettings, who: str) -> None:
        self._connection = connection
        self._settings = settings
        self._who = who
        self._replaced = Replaced()
        self._before = grants.GrantInventory()
        self._parts_before: set[str] = set()
        self._placed: set[tuple[str, int]] = set()
        self._left_out: list[str] = []

    def lock(self, replaced: Replaced) -> None:
        """Locks exclusively all tables that are dropped, and those that stay and have a foreign key
        onto them. Failure LockTimeout names who holds their locks.

        Foreign keys are put back under the same locks, so no row slips in between.
        """
        oids = [*replaced.relations, *{key.table_oid for key in replaced.foreign_keys}]
        tables = [name for (name,) in self._connection.execute(_LOCKABLE, (oids,))]
        if not tables:
            return
        try:
            with naming_holders(self._connection, f"{self._who}: the tables to be replaced could not be locked in time"):
                self._connection.execute(encoded(self._connection, f"LOCK TABLE ONLY {', ONLY '.join(tables)} IN ACCESS EXCLUSIVE MODE"))
        except psycopg.Error as error:
            raise statement_failure(error, "LOCK TABLE", self._who) from None

    def drop(self, replaced: Replaced) -> None:
        """Captures everything that `put_back` needs, then drops. Failure where PostgreSQL dropped
        anything else than was foreseen."""
        self._replaced = replaced
        self._before = grants.capture(self._connection)
        wholes = [root.address[1] for root in replaced.roots if root.type in _KINDS_WITH_PARTS]
        domains = [root.address[1] for root in replaced.roots if root.type == "type"]
        self._parts_before = self._parts(wholes, [root.address[1] for root in replaced.roots if root.type == "publication"], domains)
        self._placed = set(self._connection.execute(_TABLESPACES + "AND c.oid = ANY(%s::oid[])", (list(replaced.relations),)))
        inventory = take_stock(self._connection)
        with naming_holders(self._connection, self._who):  # of views, types and the like, which LOCK TABLE does not lock
            for statement in drop_statements(replaced.roots):
                self._run(statement)
        self._settings.pin()
        if wrong := deviations(self._connection, inventory, replaced.gone):
            raise Failure("InternalError", f"{self._who}: the server did not drop exactly what was foreseen: {listed(wrong)}")

    def check_made_again(self) -> None:
        """Failure where the artifact did not make an object again that was dropped for it."""
        self._settings.pin()
        now = {found.key for found in held_objects(self._connection)}
        if missing := [root.text for root in self._replaced.roots if root.key not in now]:
            raise Failure("RestoreFailed", f"{self._who}: the artifact did not make again what was dropped for it: {listed(missing)}")

    def put_back(self) -> list[str]:
        """Puts back owners, privileges, publications, and foreign keys of tables that stay. Returns
        warnings about what could not be put back."""
        self._put_back_owners()
        after = self._capture()
        others = set()
        for role, granted in groupby(grants.grant_statements(self._before, after, self._again), lambda grant: grant[1]):
            if not role:
                self._put_all([(statement, statement) for statement, _ in granted])
            elif [statement for statement, _ in granted if not self._grant(role, statement)]:
                others.add(role)
        lost = grants.lost_publications(self._before, after, self._again)
        self._put_all([(publication.statement(), publication.text) for publication in lost])
        self._put_back_foreign_keys()
        grantors = ", ".join(sorted(others))
        regranted = [f"grants that {grantors} had made are now the owner's, as this user may not act as that role"] if others else []
        left_out = [f"not put back, as the artifact lacks what it needs: {listed(self._left_out)}"] if self._left_out else []
        return [*self._lost(), *regranted, *left_out]

    def _comment(self, key: ForeignKey) -> None:
        if key.comment is not None:
            self._run(f"COMMENT ON CONSTRAINT {key.name} ON {key.table} IS {literal(key.comment)}")

    def _put_back_foreign_keys(self) -> None:
        """Row-level security that holds for owners would hide rows from the check of a key, so it
        is lifted meanwhile; the tables are locked."""
        keys = self._replaced.foreign_keys
        tables = sorted({name for key in keys for name in (key.table, key.onto)})
        self._settings.pin()
        forced = [name for (name,) in self._connection.execute(_FORCED, (tables, tables))]
        for table in forced:
            self._run(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        for key in keys:
            if self._put(f"ALTER TABLE {key.table} ADD CONSTRAINT {key.name} {key.definition}", f"foreign key {key.name} of table {key.table}"):
                self._comment(key)
        for table in forced:
            self._run(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")

    def put_back_late_owners(self) -> None:
        """Owners of what the artifact makes after `put_back`: its event triggers."""
        self._put_back_owners()

    def _put_back_owners(self) -> None:
        for statement in list(grants.owner_statements(self._before, self._capture(), self._again)):
            self._run(statement)

    def _capture(self) -> grants.GrantInventory:
        self._settings.pin()
        return grants.capture(self._connection)

    @property
    def _again(self) -> set[Address]:
        return {root.address for root in self._replaced.roots if root.type == "large object"}

    def _grant(self, role: str, statement: str) -> bool:
        """Runs the statement as that role where possible, else as this user. Returns whether it
        could."""
        self._settings.pin()
        try:
            with self._connection.transaction():
                self._connection.execute(encoded(self._connection, f"SET LOCAL ROLE {role}"))
                run_command(self._connection, statement)
                self._connection.execute("RESET ROLE")
        except psycopg.Error:
            return not self._put(statement, statement)
        return True

    def _put_all(self, statements: Sequence[tuple[str, str]]) -> None:
        """`_put` for each statement and its text, with few savepoints, which are dear in a large
        transaction."""
        for at in range(0, len(statements), _TOGETHER):
            together = statements[at : at + _TOGETHER]
            try:
                with self._connection.transaction():
                    for statement, _ in together:
                        self._settings.pin()
                        run_command(self._connection, statement)
            except psycopg.Error:
                for statement, text in together:
                    self._put(statement, text)

    def _put(self, statement: str, text: str) -> bool:
        """Runs the statement; one that needs what the artifact lacks is left out, to be told as
        `text`. Returns whether it was run."""
        self._settings.pin()
        try:
            with self._connection.transaction():
                run_command(self._connection, statement)
        except psycopg.Error as error:
            if error.sqlstate not in _LACKING:
                raise statement_failure(error, statement, self._who) from None
            self._left_out.append(f"{text} ({error.diag.message_primary})")
            return False
        return True

    def _parts(self, relations: Sequence[int], publications: Sequence[int], domains: Sequence[int]) -> set[str]:
        wholes = {"oids": list(relations), "publications": list(publications), "domains": list(domains)}
        found = {text for (text,) in self._connection.execute(_PARTS_OF, wholes)}
        if self._connection.info.server_version >= 150000:
            found |= {text for (text,) in self._connection.execute(_PUBLISHED_SCHEMAS, (list(publications),))}
        return found

    def _lost(self) -> list[str]:
        self._settings.pin()
        names = [root.identity for root in self._replaced.roots if root.type in _KINDS_WITH_PARTS]
        publications = [root.identity for root in self._replaced.roots if root.type == "publication"]
        now = [oid for (oid,) in self._connection.execute(_RELATIONS_NOW, (names,))]
        published = [oid for (oid,) in self._connection.execute(_PUBLICATIONS_NOW, (publications,))]
        types = [root.identity for root in self._replaced.roots if root.type == "type"]
        domains = [oid for (oid,) in self._connection.execute(_TYPES_NOW, (types,))]
        lost = self._parts_before - self._parts(now, published, domains)
        moved = {name for name, _ in self._placed - set(self._connection.execute(_TABLESPACES))} - lost
        warnings = {
            "not in the artifact, so dropped with the objects that were replaced": lost,
            "in the database's own tablespace now, as tablespaces are not in an artifact": moved,
        }
        return [f"{text}: {listed(sorted(names))}" for text, names in warnings.items() if names]

    def _run(self, statement: str) -> None:
        self._settings.pin()
        try:
            run_command(self._connection, statement)
        except psycopg.Error as error:
            raise statement_failure(error, statement, self._who) from None
        if self._connection.pgconn.transaction_status != TransactionStatus.INTRANS:
            raise Failure("InternalError", f"{statement} ended the transaction")
