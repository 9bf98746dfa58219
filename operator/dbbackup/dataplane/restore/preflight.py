"""Checks the target, before anything is touched, for everything that would make a restore fail, and
reports all problems at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dbbackup.contract.errors import REASONS, Failure, ReasonName
from dbbackup.contract.manifest import Contents, Manifest
from dbbackup.dataplane.postgres.clients import OLDEST_SERVER
from dbbackup.dataplane.postgres.connection import Connection, one
from dbbackup.dataplane.postgres.encoding import server_encoding
from dbbackup.dataplane.restore.closure import Replaced
from dbbackup.dataplane.restore.extensions import ExtensionState, extension_states
from dbbackup.dataplane.restore.requirements import Requirements, Shortfalls, find_shortfalls
from dbbackup.dataplane.sql.encodings import WITHOUT_CODEC, named
from dbbackup.text import listed, presentable

_SLACK = 1.5
"""An idle server with default settings takes about 1.6 times the locks that its settings promise,
out of spare shared memory. Up to this factor a restore is tried, and rolled back where the memory
was not sufficient."""

_ORDER = (
    "TargetReadOnly",
    "VersionMismatch",
    "EncodingMismatch",
    "FormatUnsupported",
    "TargetNotEmpty",
    "DependentObjects",
    "NotOwner",
    "ExtensionMissing",
    "RoleMissing",
    "ObjectMissing",
    "RequiresSuperuser",
    "InsufficientPrivilege",
    "TooManyLocks",
)

_MANAGED = ["rds_superuser", "cloudsqlsuperuser", "alloydbsuperuser", "azure_pg_admin"]
"""Roles to which providers' servers allow some of what PostgreSQL keeps for superusers. What
exactly, only the server knows, so we leave the decision to the server."""

_SERVER = """
SELECT pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('default_transaction_read_only')::bool, r.rolsuper, r.rolsuper OR EXISTS (
         SELECT FROM pg_catalog.pg_roles m WHERE m.rolname = ANY(%s::text[]) AND pg_catalog.pg_has_role(m.oid, 'USAGE')), r.rolname,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
       pg_catalog.current_setting('max_locks_per_transaction')::int,
       (SELECT pg_catalog.sum(setting::int)::int FROM pg_catalog.pg_settings WHERE name IN ('max_connections', 'autovacuum_max_workers',
         'autovacuum_worker_slots', 'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions')
         AND NOT (name = 'autovacuum_max_workers' AND EXISTS (SELECT FROM pg_catalog.pg_settings WHERE name = 'autovacuum_worker_slots')))
FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER
"""
_ROLES = "SELECT w.name FROM unnest(%s::text[]) w(name) WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = w.name)"
_SCHEMAS = """
SELECT w.name, n.oid IS NOT NULL, n.oid IS NOT NULL AND pg_catalog.has_schema_privilege(n.oid, 'CREATE')
FROM unnest(%s::text[]) w(name) LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = w.name
"""
_EXISTING = """
SELECT c.oid::regclass::text FROM unnest(%s::text[], %s::text[]) w(s, n)
JOIN pg_catalog.pg_namespace ns ON ns.nspname = w.s JOIN pg_catalog.pg_class c ON c.relnamespace = ns.oid AND c.relname = w.n ORDER BY 1
"""
_CONVERSIONS = """
SELECT pg_catalog.count(DISTINCT c.conforencoding) FROM pg_catalog.pg_conversion c,
  (VALUES (pg_catalog.pg_char_to_encoding(%s), pg_catalog.pg_char_to_encoding(%s))) e(a, b)
WHERE c.condefault AND ((c.conforencoding = e.a AND c.contoencoding = e.b) OR (c.conforencoding = e.b AND c.contoencoding = e.a))
"""
_MAY_GIVE = """
SELECT r.rolname, pg_catalog.pg_has_role(r.oid, CASE WHEN pg_catalog.current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END)
FROM pg_catalog.pg_roles r WHERE r.rolname = ANY(%s::text[])
"""
# What ALTER ... OWNER TO demands of the new owner, where no superuser runs it.
_MAY_NOT_OWN = """
SELECT o.type || ' ' || o.identity || ' to ' || r.rolname || ', who lacks ' || l.what
FROM ROWS FROM (pg_catalog.unnest(%s::oid[]), pg_catalog.unnest(%s::oid[]), pg_catalog.unnest(%s::text[])) w(c, o, owner)
     JOIN pg_catalog.pg_roles r ON r.rolname = w.owner,
     LATERAL pg_catalog.pg_identify_object(w.c, w.o, 0) o,
     LATERAL (
       SELECT 'CREATE on schema ' || o.schema FROM pg_catalog.pg_namespace n
       WHERE pg_catalog.quote_ident(n.nspname) = o.schema AND NOT pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE')
       UNION ALL SELECT 'CREATE on the database' WHERE o.type = 'publication'
         AND NOT pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CREATE')
       UNION ALL SELECT 'USAGE on foreign-data wrapper ' || pg_catalog.quote_ident(f.fdwname)
       FROM pg_catalog.pg_foreign_server s JOIN pg_catalog.pg_foreign_data_wrapper f ON f.oid = s.srvfdw
       WHERE o.type = 'server' AND s.oid = w.o AND NOT pg_catalog.has_foreign_data_wrapper_privilege(r.oid, f.oid, 'USAGE')) l(what)
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class PreflightProblem:
    reason: ReasonName
    message: str


@dataclass(frozen=True, slots=True)
class TargetServer:
    version_num: int
    version: str
    standby: bool
    read_only: bool
    superuser: bool
    privileged: bool
    """A superuser, or the most privileged role that a provider offers."""
    user: str
    may_create: bool
    locks_per_transaction: int
    lock_holders: int
    """The factor of max_locks_per_transaction: sessions, background processes, prepared
    transactions."""

    @property
    def lock_capacity(self) -> int:
        """Locks that the settings promise."""
        return self.locks_per_transaction * self.lock_holders

    def locks_wanted(self, estimate: int) -> str:
        """Text: the setting that suffices for so many locks."""
        value = -(-estimate // self.lock_holders)
        return f"set max_locks_per_transaction to {value} or more (now {self.locks_per_transaction}), and restart the server"


@dataclass(frozen=True, slots=True)
class ArtifactNeeds:
    """The manifest, and the contents and requirements of the part of the artifact that is restored.
    An artifact without a catalog does not say what it requires."""

    manifest: Manifest
    contents: Contents
    requirements: Requirements | None = None


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """Everything about the target that `judge` decides on, from its catalogs."""

    server: TargetServer
    extensions: tuple[ExtensionState, ...] = ()
    missing_roles: tuple[str, ...] = ()
    schemas: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    """Schema -> (exists, the user may create in it)."""
    members_of: frozenset[str] = frozenset()
    may_not_own: tuple[str, ...] = ()
    """Replaced objects that cannot be given back to their owners, and why."""
    shortfalls: Shortfalls = field(default_factory=Shortfalls)


def gather_facts(connection: Connection, needs: ArtifactNeeds, replaced: Replaced) -> TargetFacts:
    row = connection.execute(_SERVER, (_MANAGED,)).fetchone()
    if row is None:
        raise Failure("RestoreFailed", "the server returned no row for the current user")
    server = TargetServer(*row)
    encoding = server_encoding(connection)
    owners = sorted({key.owner for key in replaced.foreign_keys} | {root.owner_again for root in replaced.roots if root.owner_again})
    return TargetFacts(
        server=server,
        extensions=extension_states(connection, needs.contents.extensions),
        missing_roles=tuple(name for (name,) in connection.execute(_ROLES, ([named(role, encoding) for role in needs.contents.roles],))),
        schemas={
            presentable(name): (exists, create)
            for name, exists, create in connection.execute(_SCHEMAS, ([named(schema, encoding) for schema in _schemas(needs)],))
        },
        members_of=frozenset(name for name, member in connection.execute(_MAY_GIVE, (owners,)) if member),
        may_not_own=() if server.superuser else _may_not_own(connection, replaced, server.user),
        shortfalls=find_shortfalls(connection, needs.requirements) if needs.requirements else Shortfalls(),
    )


def _may_not_own(connection: Connection, replaced: Replaced, user: str) -> tuple[str, ...]:
    given = [root for root in replaced.roots if root.owner_again and root.owner != user]
    addresses = [root.address[0] for root in given], [root.address[1] for root in given]
    return tuple(text for (text,) in connection.execute(_MAY_NOT_OWN, (*addresses, [root.owner for root in given])))


def _schemas(needs: ArtifactNeeds) -> list[str]:
    if needs.requirements:
        return sorted(needs.requirements.made | needs.requirements.filled)
    configuration = {(table.schema_, table.name) for table in needs.contents.configuration or ()}
    used = {table.schema_ for table in needs.contents.tables if (table.schema_, table.name) not in configuration}
    return sorted(used | set(needs.contents.schemas))


def refuse_old_server(server_version_num: int) -> None:
    """Failure ServerTooOld."""
    if server_version_num < OLDEST_SERVER * 10000:
        raise Failure("ServerTooOld", f"the target is PostgreSQL {server_version_num // 10000}; the oldest supported is {OLDEST_SERVER}")


def cannot_replace(connection: Connection, needs: ArtifactNeeds) -> list[PreflightProblem]:
    """An artifact without a catalog that was made with `clean: false` contains no DROP statements,
    so none of its tables may exist."""
    tables = needs.contents.tables
    names = ([table.schema_ for table in tables], [table.name for table in tables])
    existing = [name for (name,) in connection.execute(_EXISTING, names)]
    if not existing:
        return []
    return [PreflightProblem("TargetNotEmpty", f"the artifact was made with `clean: false`, so it cannot replace what exists: {listed(existing)}")]


def cannot_convert(connection: Connection, encoding: str) -> list[PreflightProblem]:
    """`encoding` is the dump's."""
    own = server_encoding(connection)
    if encoding == own or "SQL_ASCII" in {encoding, own}:
        return []  # nothing is converted
    if encoding not in WITHOUT_CODEC and one(connection, _CONVERSIONS, (encoding, own))[0] == 2:
        return []
    text = f"the artifact's encoding is {encoding}, the target's {own}, and the server cannot convert the one into the other"
    return [PreflightProblem("EncodingMismatch", text)]


def judge(facts: TargetFacts, needs: ArtifactNeeds, replaced: Replaced) -> list[PreflightProblem]:
    """Pure: all problems, unordered."""
    return [
        *_server(facts.server, needs.manifest),
        *_extensions(facts, needs),
        *_roles(facts),
        *_superuser(facts.server, needs),
        *_privileges(facts, needs.requirements),
        *_outside(facts),
        *_ownership(facts, replaced),
        *_dependants(replaced),
        *_locks(facts.server, needs, replaced),
    ]


def _server(server: TargetServer, manifest: Manifest) -> Iterable[PreflightProblem]:
    if server.standby or server.read_only:
        yield PreflightProblem("TargetReadOnly", "the target is a standby" if server.standby else "the target's default_transaction_read_only is on")
    source = manifest.database
    if server.version_num // 10000 < source.server_version_num // 10000:
        yield PreflightProblem("VersionMismatch", f"the target is PostgreSQL {server.version}, the artifact is of the newer {source.server_version}")


def _extensions(facts: TargetFacts, needs: ArtifactNeeds) -> Iterable[PreflightProblem]:
    wanted = {extension.name: extension for extension in needs.contents.extensions}
    for state in facts.extensions:
        schema = wanted[state.name].schema_
        if state.schema is not None:
            if state.schema != schema:
                yield PreflightProblem("ExtensionMissing", f"extension {state.name} is in schema {state.schema}, the artifact has it in {schema}")
        elif not state.available:
            yield PreflightProblem("ExtensionMissing", f"extension {state.name} is not installed on the server")
        elif not state.may_create(privileged=facts.server.privileged, create_on_database=facts.server.may_create):
            yield PreflightProblem(
                "ExtensionMissing", f"extension {state.name} can be created only by a superuser, and {facts.server.user} is not one"
            )


def _roles(facts: TargetFacts) -> Iterable[PreflightProblem]:
    if facts.missing_roles:
        yield PreflightProblem("RoleMissing", f"policies or user mappings name these roles: {listed(facts.missing_roles)}")


def _superuser(server: TargetServer, needs: ArtifactNeeds) -> Iterable[PreflightProblem]:
    if server.privileged:
        return
    contents = needs.contents
    held = (needs.requirements.superuser if needs.requirements else ()) or (
        *(f"event trigger {name}" for name in contents.event_triggers),
        *(f"publication {name}" for name in contents.superuser_publications),
    )
    if held:
        yield PreflightProblem("RequiresSuperuser", f"only a superuser can create {listed(held)}, and {server.user} is not one")


def _privileges(facts: TargetFacts, wanted: Requirements | None) -> Iterable[PreflightProblem]:
    user = facts.server.user
    missing = sorted(name for name, (exists, _) in facts.schemas.items() if not exists)
    if missing and not facts.server.may_create:
        yield PreflightProblem("InsufficientPrivilege", f"{user} may not create the schemas {listed(missing)}: it lacks CREATE on the database")
    filled = wanted.filled if wanted else facts.schemas.keys()
    closed = sorted(name for name, (exists, create) in facts.schemas.items() if exists and not create and name in filled)
    if closed:
        yield PreflightProblem("InsufficientPrivilege", f"{user} lacks CREATE on the schemas {listed(closed)}")
    if wanted and wanted.publishes and not facts.server.may_create:
        yield PreflightProblem("InsufficientPrivilege", f"{user} may not create publications: it lacks CREATE on the database")
    if facts.shortfalls.closed:
        yield PreflightProblem("InsufficientPrivilege", f"{user} lacks USAGE on {listed(facts.shortfalls.closed)}")
    if facts.may_not_own:
        yield PreflightProblem("InsufficientPrivilege", f"replaced objects could not be given back to their owners: {listed(facts.may_not_own)}")


def _outside(facts: TargetFacts) -> Iterable[PreflightProblem]:
    if facts.shortfalls.missing:
        yield PreflightProblem("ObjectMissing", f"the artifact refers to these objects and does not hold them: {listed(facts.shortfalls.missing)}")


def _ownership(facts: TargetFacts, replaced: Replaced) -> Iterable[PreflightProblem]:
    foreign = [f"{root.text} ({root.owner or 'a superuser'})" for root in replaced.roots if not root.owned]
    if foreign:
        yield PreflightProblem("NotOwner", f"{facts.server.user} does not own {listed(foreign)}")
    keys = sorted({f"table {key.table} ({key.owner})" for key in replaced.foreign_keys if not key.owned})
    if keys:
        yield PreflightProblem("NotOwner", f"{facts.server.user} does not own {listed(keys)}, whose foreign keys must be dropped and created again")
    if replaced.publications:
        message = (
            f"{facts.server.user} does not own the publications {listed(replaced.publications)}, and could not add replaced tables to them again"
        )
        yield PreflightProblem("NotOwner", message)
    if replaced.closed_mappings:
        message = f"{facts.server.user} may not see the options of {listed(replaced.closed_mappings)}, so they could not be saved"
        yield PreflightProblem("InsufficientPrivilege", message)
    if replaced.emptied_mappings:
        names = listed(replaced.emptied_mappings)
        message = f"the artifact lacks the options of {names}, which its backup's user might not see: a Replace would empty them"
        yield PreflightProblem("InsufficientPrivilege", message)
    foreign_owners = {root.owner_again for root in replaced.roots if root.owner_again and root.owned} - facts.members_of - {facts.server.user}
    if foreign_owners and not facts.server.superuser:
        yield PreflightProblem("NotOwner", f"{facts.server.user} cannot give replaced objects back to their owners {listed(sorted(foreign_owners))}")


def _dependants(replaced: Replaced) -> Iterable[PreflightProblem]:
    if replaced.misfits:
        yield PreflightProblem("DependentObjects", listed(replaced.misfits))
    if replaced.outside:
        yield PreflightProblem(
            "DependentObjects",
            listed(
                [
                    f"{d.description} is not in the artifact and depends on {d.needs}, which {'is not either' if d.indirect else 'would be replaced'}"
                    for d in replaced.outside
                ]
            ),
        )
    if replaced.partitions:
        yield PreflightProblem(
            "DependentObjects", f"partitions that the artifact lacks would be dropped with their tables: {listed(replaced.partitions)}"
        )
    if replaced.subscriptions:
        cure = "take the tables out of the publication and refresh the subscription, or drop the subscription; then restore"
        yield PreflightProblem("DependentObjects", f"replication into replaced tables would end: {listed(replaced.subscriptions)}: {cure}")


def _locks(server: TargetServer, needs: ArtifactNeeds, replaced: Replaced) -> Iterable[PreflightProblem]:
    wanted = estimate_locks(needs, replaced)
    if wanted > server.lock_capacity * _SLACK:
        room = f"the restore takes about {wanted} locks, the server has room for {server.lock_capacity}"
        yield PreflightProblem("TooManyLocks", f"{room}: {server.locks_wanted(wanted)}")


def estimate_locks(needs: ArtifactNeeds, replaced: Replaced) -> int:
    """Locks of one transaction, as measured.

    One for each object that is dropped, with all its parts (types, defaults and constraints among
    them); one for each relation, with its TOAST table and indexes, each routine and each large
    object that is created.
    """
    contents = needs.contents
    return replaced.size + contents.relations + contents.routines + contents.large_objects


def refuse(problems: Sequence[PreflightProblem], who: str) -> None:
    """One Failure that reports all problems, with the reason that comes first in _ORDER."""
    if not problems:
        return
    ordered = sorted(problems, key=lambda problem: _ORDER.index(problem.reason) if problem.reason in _ORDER else len(_ORDER))
    first = ordered[0].reason
    if len(ordered) == 1:
        raise Failure(first, f"{who}: {ordered[0].message}; nothing was touched")
    numbered = "; ".join(f"{number}. {problem.reason}: {problem.message}" for number, problem in enumerate(ordered, 1))
    hints = " ".join(dict.fromkeys(REASONS[problem.reason].hint for problem in ordered))
    raise Failure(first, f"{who}: the restore would fail for {len(ordered)} reasons, nothing was touched: {numbered}", hints)
