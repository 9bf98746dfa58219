"""The catalog of an artifact: it holds what the dump holds, as pg_dump's own table of contents
says it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.integration.conftest import PASSWORD, Job, Postgres
from tests.integration.stock import EVERYTHING

from dbbackup.contract.catalog import Address, Catalog, CatalogObject, unpack_catalog
from dbbackup.contract.errors import Failure
from dbbackup.contract.run import BackupOptions
from dbbackup.dataplane.backup.dump import pg_dump_arguments
from dbbackup.dataplane.backup.snapshot import Snapshot
from dbbackup.dataplane.bucket import load_catalog
from dbbackup.dataplane.context import Stop
from dbbackup.dataplane.postgres import clients
from dbbackup.dataplane.postgres.connection import connect
from dbbackup.dataplane.postgres.conninfo import Conninfo
from dbbackup.dataplane.sql.archive_toc import SYSTEM_CATALOGS, TocEntry, read_toc

NO_OBJECTS = {
    "ACL", "BLOBS", "BLOB COMMENTS", "COMMENT", "DATABASE", "DATABASE PROPERTIES", "ENCODING", "INDEX ATTACH", "MATERIALIZED VIEW DATA",
    "ROW SECURITY", "SEARCHPATH", "SECURITY LABEL", "SEQUENCE OWNED BY", "SEQUENCE SET", "SHELL TYPE", "STDSTRINGS", "TABLE ATTACH", "TABLE DATA",
}  # fmt: skip
"""Entries that say something of an object, or of the archive, and make none."""
PUBLIC = ("pg_namespace", ("public",), ())
"""Every database has it: a dump of a whole one does not make it."""


@dataclass(frozen=True, slots=True)
class Dump:
    """The catalog and the table of contents of one dump, by the code that a backup runs."""

    catalog: Catalog
    outside: tuple[str, ...]
    toc: list[TocEntry]

    def __getitem__(self, identity: str) -> CatalogObject:
        return next(held for held in self.catalog.objects if f"{held.type} {held.identity}" == identity)


def dump(postgres: Postgres, database: str, user: str = "postgres", **options: Any) -> Dump:
    info = Conninfo(postgres.host, postgres.port, database, user, PASSWORD, "prefer", None)
    with closing(connect(info)) as connection:
        snapshot = Snapshot(connection, info, BackupOptions(format="custom", **options), Stop())
        snapshot.take()
        source = snapshot.describe()
        client = clients.choose(snapshot.version_num, clients.installed(postgres.bin.parent.parent))
        extensions = [extension.name for extension in source.contents.extensions]
        argv = pg_dump_arguments(client, snapshot.options, snapshot.selection, extensions, snapshot.identifier, encoding=source.database.encoding)
        done = subprocess.run(argv, env=postgres.environment(database, user), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
    return Dump(unpack_catalog(source.catalog, "catalog"), source.contents.outside, read_toc(iter([done.stdout])))


def assert_same(found: Dump) -> None:
    """Every entry is of an object in the catalog, and every whole object has an entry."""
    made = {identity(entry): entry for entry in found.toc if entry.kind not in NO_OBJECTS and not entry.tag.endswith(" _RETURN")}
    held = {identity for held in found.catalog.objects for identity in identities(held)}
    whole = {identity: held for held in found.catalog.whole for identity in identities(held)}
    assert [entry for identity, entry in made.items() if identity not in held] == []
    assert [held for identity, held in whole.items() if identity not in made and held.key != PUBLIC] == []
    keys = [held.key for held in found.catalog.whole]
    assert len(keys) == len(set(keys))


def identity(entry: TocEntry) -> Address | str:
    """A user mapping has no oid in the table of contents."""
    return entry.tag if entry.kind == "USER MAPPING" else entry.address or f"{entry.kind} without an oid"


def identities(held: CatalogObject) -> Iterator[Address | str]:
    if held.catalog == "pg_user_mapping":
        return iter([f"USER MAPPING {held.names[0]} SERVER {held.args[0]}"])
    return ((held.catalog, oid) for oid in held.oids or (held.oid,))


@pytest.fixture
def owner(postgres: Postgres, database: str) -> Iterator[str]:
    """A role that made what the database holds as a superuser, and is none any more."""
    name = f"{database}_app"
    for role in (name, f"{database}_reader"):
        postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'")
    postgres.execute(f"GRANT CREATE ON DATABASE {database} TO {name}")
    postgres.execute("GRANT CREATE ON SCHEMA public TO PUBLIC", database)
    yield name
    postgres.execute(f"DROP DATABASE {database} WITH (FORCE)")
    postgres.execute(f"DROP ROLE {name}, {database}_reader")


def fill(postgres: Postgres, database: str, owner: str, name: str) -> None:
    script = (Path(__file__).parent / name).read_text().replace("@app@", owner).replace("@reader@", f"{database}_reader")
    postgres.execute(f"ALTER ROLE {owner} SUPERUSER")
    postgres.load(script, database, owner)
    postgres.execute(f"ALTER ROLE {owner} NOSUPERUSER")


@pytest.fixture
def kinds(postgres: Postgres, database: str, owner: str) -> str:
    fill(postgres, database, owner, "kinds.sql")
    return database


OPTIONS: list[dict[str, Any]] = [
    {},
    {"schemas": ("app",)},
    {"schemas": ("public",)},
    {"exclude_schemas": ("other",)},
    {"exclude_tables": ("app.events", "app.users", "app.doc", "app.people", "app.part_1")},
]


@pytest.mark.parametrize("script", ["everything.sql", "kinds.sql", "EVERYTHING"])
def test_it_holds_exactly_what_the_dump_holds(postgres: Postgres, database: str, owner: str, script: str) -> None:
    if script == "EVERYTHING":
        postgres.load(EVERYTHING, database)
    else:
        fill(postgres, database, owner, script)
    for options in OPTIONS:
        assert_same(dump(postgres, database, **options))


def test_names_are_those_of_the_server(postgres: Postgres, kinds: str) -> None:
    with postgres.connect(kinds) as connection:
        connection.execute("SET search_path = ''")
        for held in dump(postgres, kinds).catalog.objects:
            row = connection.execute(
                """SELECT a.type, a.object_names, a.object_args, i.identity
                   FROM pg_identify_object_as_address(%(catalog)s::regclass, %(oid)s::bigint::oid, 0) a,
                        pg_identify_object(%(catalog)s::regclass, %(oid)s::bigint::oid, 0) i""",
                {"catalog": f"pg_catalog.{held.catalog}", "oid": held.oid},
            ).fetchone()
            assert row == (held.type, list(held.names), list(held.args), held.identity)


def test_system_catalogs_have_the_same_oid_everywhere(postgres: Postgres) -> None:
    have = dict(postgres.execute("SELECT oid::bigint, relname FROM pg_catalog.pg_class WHERE relnamespace = 11 AND relkind = 'r'"))
    assert {oid: have[oid] for oid in SYSTEM_CATALOGS if oid in have} == {oid: name for oid, name in SYSTEM_CATALOGS.items() if oid in have}
    assert SYSTEM_CATALOGS.keys() - have.keys() <= {6237}  # before PostgreSQL 15


def test_parts_extensions_columns_and_comments(postgres: Postgres, kinds: str) -> None:
    found = dump(postgres, kinds)
    addresses = found.catalog.by_address()

    def whole_of(identity: str) -> str:
        of = found[identity].of
        assert of
        return addresses[of].identity

    assert whole_of("sequence app.doc_id_seq") == whole_of("sequence app.doc_n_seq") == whole_of("index app.doc_trgm") == "app.doc"
    assert whole_of("statistics object app.doc_stats") == whole_of("policy mine on app.doc") == whole_of("rule nothing on app.doc") == "app.doc"
    assert whole_of("domain constraint mail_check on app.mail") == "app.mail"
    assert whole_of("trigger changed on app.part_1a") == "app.part_1a"
    assert whole_of("publication relation app.doc in publication some_tables") == "some_tables"
    assert found["table app.part_1"].of is found["sequence other.loose"].of is None
    assert found["table app.doc"].columns == ("id", "n", "t", "mail", "many")
    assert found["type app.pair"].columns == ("a", "b")
    assert (found["schema app"].comment, found["extension cube"].comment) == ("the application's", "cubes")
    needs = {f"{held.type} {held.identity}": held.needs for held in found.catalog.objects if held.needs}
    trigrams, citext = ("pg_trgm",), ("citext",)
    assert needs == {
        "table app.doc": ("citext", "pg_trgm"),
        "index app.doc_trgm": trigrams,
        "index app.doc_similar": trigrams,
        "policy mine on app.doc": trigrams,
        "table app.room": ("btree_gist",),
        "index app.room_id_during_excl": ("btree_gist",),
        "table app.typed": citext,
        "table app.checked": trigrams,
        "table constraint checked_a_check on app.checked": trigrams,
        "default value for app.checked.b": trigrams,
        "materialized view app.matview": ("cube",),
        "type app.pair": citext,
        "type app.mail": citext,
        "domain constraint mail_check on app.mail": citext,
        'function app."similar"(pg_catalog.text)': trigrams,
    }


def test_what_the_options_leave_out(postgres: Postgres, kinds: str) -> None:
    def outside(**options: Any) -> set[str]:
        found = dump(postgres, kinds, **options)
        named = {f"{held.type} {held.identity}" for held in found.catalog.objects if held.outside}
        assert {name for name in named if not name.startswith("collation pg_catalog")} == set(found.outside)
        return named

    assert outside() == set()
    assert outside(schemas=("app",)) == {"server elsewhere", "access method other_heap"}
    assert outside(schemas=("other",)) == {"table app.doc", "type app.mood", "function app.plain()"}
    assert outside(exclude_tables=("app.doc",)) == {"table app.doc"}
    functions = {"function app.plain()", "function app.mood_int(app.mood)", "function app.on_ddl()"}
    assert outside(exclude_schemas=("app",)) == {"table app.doc", "type app.mood", "type app.pair", "type app.tiny", *functions}
    assert outside(exclude_extensions=("cube",)) == {"function public.cube(double precision)", "type public.cube"}
    postgres.execute("SET allow_system_table_mods = on; CREATE COLLATION pg_catalog.odd (provider = libc, locale = 'C')", kinds)
    postgres.execute("CREATE TABLE app.odd (a text COLLATE pg_catalog.odd)", kinds)
    assert outside() == {"collation pg_catalog.odd"}


def test_what_only_a_superuser_can_make(postgres: Postgres, kinds: str, owner: str) -> None:
    """Each object that is dropped can be made again by its owner, but for those."""
    found = dump(postgres, kinds)
    entries = {identity(entry): entry for entry in found.toc if entry.drop}
    tried = set()
    with postgres.connect(kinds) as connection:
        for held in found.catalog.whole:
            entry = entries.get(next(identities(held)))
            if entry is None or held.catalog == "pg_largeobject":
                continue
            tried.add(held.catalog)
            drop = entry.drop.strip().removesuffix(";").removesuffix(" CASCADE") + (" CASCADE" if held.catalog != "pg_user_mapping" else "")
            made = True
            with connection.transaction(force_rollback=True):
                connection.execute(drop.encode())
                connection.execute(f"SET LOCAL ROLE {owner}".encode())
                try:
                    with connection.transaction():
                        connection.execute(entry.definition.encode())
                except psycopg.Error:
                    made = False
            assert made != held.superuser, f"{entry.definition} {held}"
    assert len(tried) > 20


def test_user_mappings_that_the_user_may_not_see(postgres: Postgres, database: str, kinds: str, owner: str) -> None:
    def hidden(user: str) -> list[str]:
        info = Conninfo(postgres.host, postgres.port, kinds, user, PASSWORD, "prefer", None)
        with closing(connect(info)) as connection:
            snapshot = Snapshot(connection, info, BackupOptions(), Stop())
            connection.execute("BEGIN")
            catalog = unpack_catalog(snapshot.describe().catalog, "catalog")
            blank = connection.execute("SELECT usename FROM pg_catalog.pg_user_mappings WHERE umoptions IS NULL ORDER BY 1").fetchall()
        found = sorted(held.names[0] for held in catalog.objects if held.hidden)
        assert found == [name for (name,) in blank]
        return found

    reader = f"{database}_reader"
    assert hidden("postgres") == []
    assert hidden(owner) == [reader]
    assert hidden(reader) == sorted([owner, "public"])
    postgres.execute(f"REVOKE USAGE ON FOREIGN SERVER elsewhere FROM {reader}", kinds)
    assert hidden(reader) == sorted([owner, reader, "public"])


COLUMN_PRIVILEGES = ["SELECT", "INSERT", "UPDATE", "REFERENCES"]
ASKED = {
    "sequence": ("sequence", ["SELECT", "USAGE", "UPDATE"]),
    "pg_class": ("table", ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]),
    "pg_namespace": ("schema", ["CREATE", "USAGE"]),
    "pg_proc": ("function", ["EXECUTE"]),
    "pg_type": ("type", ["USAGE"]),
    "pg_foreign_server": ("server", ["USAGE"]),
    "pg_foreign_data_wrapper": ("foreign_data_wrapper", ["USAGE"]),
}


def test_grants_are_the_effective_ones(postgres: Postgres, database: str, kinds: str, owner: str) -> None:
    roles = [owner, f"{database}_reader"]
    asked = 0
    with postgres.connect(kinds) as connection:
        for held in dump(postgres, kinds).catalog.whole:
            function, privileges = ASKED.get(held.type, ASKED.get(held.catalog, ("", [])))
            columns = [("column", privilege, column) for column in held.columns for privilege in COLUMN_PRIVILEGES if function == "table"]
            for role in roles:
                for kind, privilege, column in [(function, privilege, "") for privilege in privileges] + columns:
                    granted = any(g.grantee in ("", role) and g.privilege == privilege and g.column in ("", column) for g in held.grants)
                    query = f"SELECT pg_catalog.has_{kind}_privilege(%s, %s::bigint::oid, {'%s, ' if column else ''}%s)"
                    row = connection.execute(query.encode(), [role, held.oid, *filter(None, [column]), privilege]).fetchone()
                    assert row == (granted,), (held, role, privilege, column)
                    asked += 1
    assert asked > 300


def test_a_backup_stores_it(job: Job, postgres: Postgres, database: str) -> None:
    postgres.load(EVERYTHING, database)
    ended = job.backup()
    assert ended.code == 0, ended.log
    assert ended.report.artifact
    key, manifest = ended.report.artifact.key, job.manifest(ended)
    found = load_catalog(job.storage, key, manifest)
    assert found
    assert found == dump(postgres, database).catalog
    assert load_catalog(job.storage, key, manifest.model_copy(update={"catalog": None})) is None
    for damage, reason in ((b"damaged", "ArtifactCorrupt"), (None, "ArtifactMissing")):
        stored = f"{key}/catalog.jsonl.gz"
        job.storage.delete([stored])
        if damage:
            job.storage.put(stored, damage, "application/gzip")
        with pytest.raises(Failure, match=r"catalog\.jsonl\.gz") as caught:
            load_catalog(job.storage, key, manifest)
        assert caught.value.reason.name == reason
