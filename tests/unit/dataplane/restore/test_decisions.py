"""What a restore decides without a server: drops, problems of the preflight, grants,
refusals, CREATE DATABASE, a selection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from dbbackup.contract.catalog import CatalogObject, ObjectKey
from dbbackup.contract.errors import Failure
from dbbackup.contract.manifest import Contents, ExtensionEntry, Manifest, Part, SourceDatabase, StoredObject, TableEntry
from dbbackup.contract.run import Owner
from dbbackup.dataplane.restore import grants, preflight, selection
from dbbackup.dataplane.restore.closure import Dependant, ForeignKey, Need, Replaced, choose_needs
from dbbackup.dataplane.restore.databases import create_statement
from dbbackup.dataplane.restore.dropping import drop_statements
from dbbackup.dataplane.restore.extensions import ExtensionState, extension_order
from dbbackup.dataplane.restore.grants import GrantInventory, ObjectGrants, PublishedTable
from dbbackup.dataplane.restore.preflight import ArtifactNeeds, TargetFacts, TargetServer
from dbbackup.dataplane.restore.requirements import Requirements, Shortfalls
from dbbackup.dataplane.restore.roots import HeldObject, choose_roots, wanted_keys
from dbbackup.dataplane.restore.statement_errors import describe, statement_failure
from dbbackup.dataplane.sql.archive_toc import TocEntry, TocError, read_toc

SOURCE = SourceDatabase(
    identity="db:5432/app", host="db", port=5432, name="app", server_version="15.4", server_version_num=150004, size_bytes=1, encoding="UTF8",
    collate="de_DE.UTF-8", ctype="C",
)  # fmt: skip
MANIFEST = Manifest(
    operator_version="1",
    owner=Owner(kind="DatabaseBackup", namespace="n", name="b", uid="u", created_at=datetime(2026, 1, 1, tzinfo=UTC)),
    database=SOURCE,
    format="plain",
    compression="zstd",
    pg_dump_version="15.4",
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    finished_at=datetime(2026, 1, 1, tzinfo=UTC),
    objects=(StoredObject(name="dump.sql.zst", size=1, sha256="0" * 64, parts=(Part(size=1, sha256="0" * 64),)),),
    contents=Contents(),
    dump_bytes=1,
)
SERVER = TargetServer(150004, "15.4", False, False, False, False, "app", True, 64, 100)


# drops


def held(kind: str, identity: str, catalog: str = "pg_class", oid: int = 1, **more: Any) -> HeldObject:
    fields: dict[str, Any] = {"names": ("a", identity.rpartition(".")[2]), "args": (), "drop": identity, "owner": "app", "owned": True}
    return HeldObject(address=(1259, oid), catalog=catalog, type=kind, identity=identity, **(fields | more))


def test_objects_of_a_kind_are_dropped_together_and_may_be_gone_already() -> None:
    roots = [
        held("access method", "m"),
        held("large object", "17"),
        held("function", "a.f(integer)"),
        held("cast", "(a.x AS text)"),
        held("function", "a.g(text)"),
        held("foreign-data wrapper", "w"),
        held("operator class", "a.o USING hash"),
        held("operator class", "a.p USING hash"),
    ]
    assert list(drop_statements(roots)) == [
        "DROP CAST IF EXISTS (a.x AS text) CASCADE",
        "DROP FOREIGN DATA WRAPPER IF EXISTS w CASCADE",
        "DROP FUNCTION IF EXISTS a.f(integer), a.g(text) CASCADE",
        "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata WHERE oid IN (17)",
        "DROP OPERATOR CLASS IF EXISTS a.o USING hash CASCADE",
        "DROP OPERATOR CLASS IF EXISTS a.p USING hash CASCADE",
        "DROP ACCESS METHOD IF EXISTS m CASCADE",
    ]


def test_only_what_has_the_same_key_and_kind_is_replaced() -> None:
    wanted: dict[ObjectKey, str] = {("pg_class", ("a", name), ()): "table" for name in ("t", "v", "member", "inner")}
    found = [held("table", "a.t"), held("table", "a.other"), held("view", "a.v", oid=2), held("table", "a.member", oid=3, belongs="e")]
    roots = choose_roots([*found, held("table", "a.inner", oid=4, belongs="i")], wanted)
    assert [root.identity for root in roots.objects] == ["a.t"]
    assert roots.misfits == {
        (1259, 2): "view a.v has the same name as a table in the artifact, but is of another kind",
        (1259, 3): "table a.member has the same name as a table in the artifact, but belongs to an extension",
    }


def test_sequences_are_replaced_also_where_a_table_of_the_source_owns_them() -> None:
    objects = [
        CatalogObject("pg_class", 1, "table", ("a", "t")),
        CatalogObject("pg_class", 2, "sequence", ("a", "t_id_seq"), of=("pg_class", 1)),
        CatalogObject("pg_class", 3, "index", ("a", "t_pkey"), of=("pg_class", 1)),
        CatalogObject("pg_namespace", 4, "schema", ("a",)),
        CatalogObject("pg_class", 5, "table", ("b", "t"), outside=True),
        CatalogObject("pg_largeobject", 6, "large object", ("6",), oids=(6, 7)),
    ]
    assert wanted_keys(objects) == {
        ("pg_class", ("a", "t"), ()): "table",
        ("pg_class", ("a", "t_id_seq"), ()): "sequence",
        ("pg_largeobject", ("6",), ()): "large object",
        ("pg_largeobject", ("7",), ()): "large object",
    }


def test_each_object_outside_is_named_once_with_its_plainest_need() -> None:
    gone = {1259: frozenset({1}), 1247: frozenset({2})}
    view, rule, table, column, default, second = (1259, 10, 0), (2618, 11, 0), (1259, 20, 0), (1259, 30, 2), (2604, 31, 0), (1259, 40, 0)
    needs = [
        Need(rule, (1259, 1), part=False, view=10), Need(rule, (1247, 2), part=False, view=10), Need(rule, view[:2], part=True, view=10),
        Need(view, (2615, 9), part=False, view=0),
        Need(table, (1247, 2), part=False, view=0), Need((1247, 21, 0), table[:2], part=True, view=0),
        Need(column, (1247, 2), part=False, view=0), Need(default, (1259, 30), part=True, view=0),
        Need((2618, 41, 0), view[:2], part=False, view=40),
    ]  # fmt: skip
    assert choose_needs(needs, gone, 1259) == {
        view: ((1259, 1), False),
        table: ((1247, 2), False),
        column: ((1247, 2), False),
        second: ((1259, 10), True),
    }


# preflight


def judge(facts: TargetFacts, contents: Contents | None = None, replaced: Replaced | None = None) -> dict[str, str]:
    problems = preflight.judge(facts, ArtifactNeeds(MANIFEST, contents or Contents()), replaced or Replaced())
    return {problem.reason: problem.message for problem in problems}


def changed(**fields: object) -> TargetServer:
    values = {name: getattr(SERVER, name) for name in TargetServer.__dataclass_fields__} | fields
    return TargetServer(**values)


def test_a_suitable_target_has_no_problem() -> None:
    assert judge(TargetFacts(SERVER)) == {}


@pytest.mark.parametrize(
    ("facts", "contents", "reason", "expected"),
    [
        (TargetFacts(changed(standby=True)), Contents(), "TargetReadOnly", "standby"),
        (TargetFacts(changed(read_only=True)), Contents(), "TargetReadOnly", "default_transaction_read_only"),
        (TargetFacts(changed(version_num=140009, version="14.9")), Contents(), "VersionMismatch", "14.9"),
        (TargetFacts(SERVER, missing_roles=("gone",)), Contents(), "RoleMissing", "gone"),
        (TargetFacts(SERVER), Contents(event_triggers=("et",)), "RequiresSuperuser", "event trigger et"),
        (TargetFacts(SERVER), Contents(superuser_publications=("all",)), "RequiresSuperuser", "publication all"),
        (TargetFacts(SERVER, schemas={"a": (True, False)}), Contents(), "InsufficientPrivilege", "CREATE on the schemas a"),
        (TargetFacts(changed(may_create=False), schemas={"a": (False, False)}), Contents(), "InsufficientPrivilege", "create the schemas a"),
        (TargetFacts(SERVER), Contents(relations=9000, routines=700), "TooManyLocks", "set max_locks_per_transaction to 97 or more (now 64)"),
    ],
)
def test_each_problem_has_its_reason(facts: TargetFacts, contents: Contents, reason: str, expected: str) -> None:
    found = judge(facts, contents)
    assert list(found) == [reason]
    assert expected in found[reason]


WANTED = Requirements(superuser=("function a.neg(integer)", "event trigger et"), filled=frozenset({"a"}), publishes=True)


@pytest.mark.parametrize(
    ("facts", "reason", "expected"),
    [
        (TargetFacts(SERVER), "RequiresSuperuser", "can create function a.neg(integer), event trigger et, and app is not one"),
        (TargetFacts(changed(privileged=True)), "", ""),
        (TargetFacts(changed(privileged=True), schemas={"a": (True, False)}), "InsufficientPrivilege", "app lacks CREATE on the schemas a"),
        (TargetFacts(changed(privileged=True), schemas={"empty": (True, False)}), "", ""),
        (TargetFacts(changed(privileged=True, may_create=False)), "InsufficientPrivilege", "may not create publications"),
        (
            TargetFacts(changed(privileged=True), shortfalls=Shortfalls(missing=("collation pg_catalog.xx",))),
            "ObjectMissing",
            "refers to these objects and does not hold them: collation pg_catalog.xx",
        ),
        (
            TargetFacts(changed(privileged=True), shortfalls=Shortfalls(closed=("foreign-data wrapper w",))),
            "InsufficientPrivilege",
            "app lacks USAGE on foreign-data wrapper w",
        ),
        (
            TargetFacts(changed(privileged=True), may_not_own=("table a.t to o, who lacks CREATE on schema a",)),
            "InsufficientPrivilege",
            "could not be given back to their owners: table a.t to o, who lacks CREATE on schema a",
        ),
    ],
)
def test_what_the_catalog_requires(facts: TargetFacts, reason: str, expected: str) -> None:
    needs = ArtifactNeeds(MANIFEST, Contents(event_triggers=("et",)), WANTED)
    problems = preflight.judge(facts, needs, Replaced())
    assert [problem.reason for problem in problems] == ([reason] if reason else [])
    assert expected in "".join(problem.message for problem in problems)


def test_a_newer_minor_of_the_source_is_no_problem() -> None:
    assert judge(TargetFacts(changed(version_num=150001))) == {}
    assert judge(TargetFacts(changed(version_num=180000))) == {}


@pytest.mark.parametrize(
    ("state", "server", "expected"),
    [
        (ExtensionState("e", False, None, True, False, ()), SERVER, "not installed on the server"),
        (ExtensionState("e", True, None, True, False, ()), SERVER, "only by a superuser"),
        (ExtensionState("e", True, None, True, True, ()), changed(may_create=False), "only by a superuser"),
        (ExtensionState("e", True, "other", True, False, ()), SERVER, "in schema other, the artifact has it in public"),
        (ExtensionState("e", True, None, True, True, ()), SERVER, None),
        (ExtensionState("e", True, None, True, False, ()), changed(privileged=True), None),
        (ExtensionState("e", True, "public", True, False, ()), SERVER, None),
    ],
)
def test_extensions(state: ExtensionState, server: TargetServer, expected: str | None) -> None:
    found = judge(TargetFacts(server, (state,)), Contents(extensions=(ExtensionEntry(name="e", schema_="public", version="1"),)))
    assert (expected is None) == (found == {})
    assert expected is None or expected in found["ExtensionMissing"]


def test_extensions_that_others_require_come_first() -> None:
    wanted = [ExtensionEntry(name=n, schema_="public", version="1") for n in ("earthdistance", "cube", "a")]
    states = [ExtensionState("earthdistance", True, None, False, False, ("cube", "elsewhere"))]
    assert [e.name for e in extension_order(wanted, states)] == ["cube", "earthdistance", "a"]


def test_owners_dependants_and_partitions() -> None:
    replaced = Replaced(
        roots=(
            held("table", "a.mine"),
            held("table", "a.theirs", owner="boss", owned=False),
            held("table", "a.ours", owner="team"),
            held("access method", "m", owner=None, owned=False),
        ),
        misfits=("view a.w has the same name as a table",),
        outside=(Dependant("view a.v", "table a.mine"), Dependant("view a.above", "view a.v", indirect=True)),
        partitions=("a.p2",),
        closed_mappings=("user mapping for b on server s",),
        emptied_mappings=("user mapping c on server s",),
        foreign_keys=(ForeignKey("b.t", "k", "FOREIGN KEY ...", None, "other", False, 7),),
    )
    found = preflight.judge(TargetFacts(SERVER), ArtifactNeeds(MANIFEST, Contents()), replaced)
    expected = "\n".join(f"{problem.reason}: {problem.message}" for problem in found)
    assert "NotOwner: app does not own table a.theirs (boss), access method m (a superuser)\n" in expected
    assert "NotOwner: app does not own table b.t (other), whose foreign keys" in expected
    assert "NotOwner: app cannot give replaced objects back to their owners team" in expected
    assert "DependentObjects: view a.w has the same name as a table" in expected
    assert "DependentObjects: view a.v is not in the artifact and depends on table a.mine, which would be replaced," in expected
    assert "view a.above is not in the artifact and depends on view a.v, which is not either\n" in expected
    assert "DependentObjects: partitions that the artifact lacks would be dropped with their tables: a.p2" in expected
    assert "InsufficientPrivilege: the artifact lacks the options of user mapping c on server s" in expected
    assert "InsufficientPrivilege: app may not see the options of user mapping for b on server s" in expected
    assert "a.mine (app)" not in expected


def test_all_problems_are_reported_under_the_most_important_reason() -> None:
    problems = [
        preflight.PreflightProblem("TooManyLocks", "locks"),
        preflight.PreflightProblem("NotOwner", "theirs"),
        preflight.PreflightProblem("RoleMissing", "gone"),
    ]
    with pytest.raises(Failure) as caught:
        preflight.refuse(problems, "db")
    assert caught.value.reason.name == "NotOwner"
    assert caught.value.message == (
        "db: the restore would fail for 3 reasons, nothing was touched: 1. NotOwner: theirs; 2. RoleMissing: gone; 3. TooManyLocks: locks"
    )
    assert caught.value.hint.count(".") >= 3


# grants


def inventory(grant: Sequence[grants.Grant], oid: int, owner: str = "app", **more: object) -> GrantInventory:
    return GrantInventory({("table", "a.t"): ObjectGrants((1259, oid), owner, True, tuple(grant), "a.t")}, **more)  # type: ignore[arg-type]


OWN = ("app", "SELECT", False, "")


def test_grants_come_back_in_their_order_and_others_go() -> None:
    before = inventory([OWN, ("z", "SELECT", False, ""), ("z", "UPDATE", True, ""), ("PUBLIC", "SELECT", False, "")], 1)
    after = inventory([OWN, ("leaked", "SELECT", False, "")], 2)
    assert list(grants.grant_statements(before, after, ())) == [
        ("REVOKE ALL ON TABLE a.t FROM leaked", ""),
        ("GRANT SELECT ON TABLE a.t TO z", ""),
        ("GRANT UPDATE ON TABLE a.t TO z WITH GRANT OPTION", ""),
        ("GRANT SELECT ON TABLE a.t TO PUBLIC", ""),
    ]


def test_grants_of_others_come_after_what_allows_them() -> None:
    before = inventory([OWN, ("c", "SELECT", False, "b"), ("b", "SELECT", True, "a"), ("d", "SELECT", False, ""), ("a", "SELECT", True, "")], 1)
    assert list(grants.grant_statements(before, inventory([OWN], 2), ())) == [
        ("GRANT SELECT ON TABLE a.t TO d", ""),
        ("GRANT SELECT ON TABLE a.t TO a WITH GRANT OPTION", ""),
        ("GRANT SELECT ON TABLE a.t TO b WITH GRANT OPTION", "a"),
        ("GRANT SELECT ON TABLE a.t TO c", "b"),
    ]


def test_what_was_not_replaced_is_not_touched() -> None:
    before = inventory([OWN, ("z", "SELECT", False, "")], 1)
    after = inventory([OWN, ("granted meanwhile", "SELECT", False, "")], 1, "other")
    assert list(grants.grant_statements(before, after, ())) == []
    assert list(grants.owner_statements(before, after, ())) == []


def test_owners_come_back() -> None:
    assert list(grants.owner_statements(inventory([], 1, '"The Boss"'), inventory([], 2, "app"), ())) == ['ALTER TABLE a.t OWNER TO "The Boss"']


def test_columns_and_publications_come_back() -> None:
    publication = PublishedTable("p", 9, "a.t", 1, True, "id, b", "((id > 5))")
    before = inventory([OWN], 1, columns={("a.t", '"B"'): (("z", "SELECT", False, ""),)}, publications=(publication,))
    pub_after = PublishedTable("p", 9, "a.other", 3, True, None, None)
    after = inventory([OWN], 2, publications=(pub_after,))
    assert list(grants.grant_statements(before, after, ())) == [
        ('GRANT SELECT ("B") ON TABLE a.t TO z', ""),
    ]
    lost = list(grants.lost_publications(before, after, ()))
    assert [found.statement() for found in lost] == ["ALTER PUBLICATION p ADD TABLE ONLY a.t (id, b) WHERE ((id > 5))"]
    assert [found.text for found in lost] == ["table a.t (id, b) in publication p"]
    assert list(grants.lost_publications(before, inventory([OWN], 2, publications=(publication,)), ())) == []


# refusals


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("ALTER TABLE ONLY a.s\n    ADD CONSTRAINT k FOREIGN KEY (u) REFERENCES a.users(id);", "ALTER TABLE ONLY a.s ADD CONSTRAINT k FOREIGN KEY"),
        ("CREATE FUNCTION app.f(a text DEFAULT 'hunter2') RETURNS int", "CREATE FUNCTION app.f"),
        ("COMMENT ON TABLE a.b IS 'hunter2';", "COMMENT ON TABLE a.b"),
        ("SELECT pg_catalog.lowrite(0, '\\x6a6b');", "large object data"),
        ("SELECT pg_catalog.lo_create('16762');", "large object 16762"),
        ("CREATE VIEW a.v AS SELECT 'hunter2';", "CREATE VIEW a.v"),
        ("CREATE SERVER s FOREIGN DATA WRAPPER f OPTIONS (password 'hunter2');", "CREATE SERVER s FOREIGN DATA WRAPPER f OPTIONS"),
    ],
)  # fmt: skip
def test_a_statement_is_named_without_values(statement: str, expected: str) -> None:
    assert describe(statement) == expected
    assert describe(statement.encode()) == expected


def test_a_broken_connection_has_its_own_reason() -> None:
    failure = statement_failure(psycopg.OperationalError("server closed the connection unexpectedly"), "COPY a.b FROM stdin;", "db")
    assert failure.reason.name == "ConnectionLost"


# CREATE DATABASE

# CREATE DATABASE


@pytest.mark.parametrize(
    ("like", "version", "expected"),
    [
        ({}, 130000, "TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'de_DE.UTF-8' LC_CTYPE 'C'"),
        ({}, 150000, "LC_CTYPE 'C' LOCALE_PROVIDER 'libc'"),
        ({"locale_provider": "i", "icu_locale": "de", "icu_rules": "&a < b"}, 160000, "LOCALE_PROVIDER 'icu' ICU_LOCALE 'de' ICU_RULES '&a < b'"),
        ({"locale_provider": "i", "icu_locale": "de", "icu_rules": "&a < b"}, 150000, "LOCALE_PROVIDER 'icu' ICU_LOCALE 'de'"),
        ({"locale_provider": "b", "icu_locale": "C.UTF-8"}, 170000, "LOCALE_PROVIDER 'builtin' BUILTIN_LOCALE 'C.UTF-8'"),
    ],
)
def test_create_database_follows_the_source_as_far_as_the_server_knows_it(like: dict[str, str], version: int, expected: str) -> None:
    statement = create_statement('a"b', SOURCE.model_copy(update=like), version)
    assert statement.startswith('CREATE DATABASE "a""b" TEMPLATE template0 ')
    assert statement.endswith(expected)


# selections

ENTRIES = [
    TocEntry(1, "SCHEMA", "", "a", "", "DROP SCHEMA a;", ()),
    TocEntry(2, "EXTENSION", "", "citext", "", "DROP EXTENSION citext;", ()),
    TocEntry(3, "TYPE", "a", "mood", "", "DROP TYPE a.mood;", (1,)),
    TocEntry(4, "FUNCTION", "a", "tf()", "", "DROP FUNCTION a.tf();", (1,)),
    TocEntry(5, "TABLE", "a", "t", "", "DROP TABLE a.t;", (1, 2, 3), tableoid=1259, oid=16401),
    TocEntry(6, "SEQUENCE", "a", "t_id_seq", "", "DROP SEQUENCE a.t_id_seq;", (1, 5)),
    TocEntry(7, "SEQUENCE OWNED BY", "a", "t_id_seq", "", "", (6,)),
    TocEntry(8, "DEFAULT", "a", "t id", "", "ALTER TABLE a.t ALTER COLUMN id DROP DEFAULT;", (6, 5)),
    TocEntry(9, "TABLE", "a", "t more", "", 'DROP TABLE a."t more";', (1,)),
    TocEntry(10, "TABLE DATA", "a", "t", "", "", (5,), "COPY a.t (id) FROM stdin;\n", oid=16401),
    TocEntry(11, "TABLE DATA", "a", "t more", "", "", (9,)),
    TocEntry(12, "SEQUENCE SET", "a", "t_id_seq", "", "", (6,)),
    TocEntry(13, "CONSTRAINT", "a", "t t_pkey", "", "ALTER TABLE ONLY a.t DROP CONSTRAINT t_pkey;", (5,)),
    TocEntry(14, "CONSTRAINT", "a", "t more pkey", "", "", (9, 5)),
    TocEntry(15, "FK CONSTRAINT", "a", "t t_fkey", "", "", (5, 9, 14)),
    TocEntry(16, "TRIGGER", "a", "t tg", "", "", (5, 4)),
    TocEntry(17, "POLICY", "a", "t mine", "CREATE POLICY mine ON a.t TO reader", "", (5, 9)),
    TocEntry(18, "VIEW", "a", "v", "", "DROP VIEW a.v;", (5,)),
    TocEntry(19, "COMMENT", "a", "TABLE t", "", "", (5,)),
    TocEntry(20, "ACL", "a", "TABLE t", "", "", (5,)),
    TocEntry(21, "TABLE", "a", "p", "", "DROP TABLE a.p;", (1,)),
    TocEntry(22, "TABLE", "a", "p1", "", "DROP TABLE a.p1;", (1, 21)),
    TocEntry(23, "TABLE ATTACH", "a", "p1", "", "", (22, 21)),
    TocEntry(24, "TABLE DATA", "a", "p1", "", "", (22,)),
    TocEntry(25, "EVENT TRIGGER", "", "et", "", "DROP EVENT TRIGGER et;", (4,)),
]


def everything(entries: Sequence[TocEntry]) -> set[int]:
    """What a target lacks that has it all."""
    return set()


def nothing(entries: Sequence[TocEntry]) -> set[int]:
    """What an empty target lacks."""
    return {entry.id for entry in entries if entry.drop and entry.kind != "EXTENSION"}


def test_a_table_is_selected_with_its_parts_only() -> None:
    chosen = selection.choose(ENTRIES, [], ["a.t"])
    selected = selection.complete(ENTRIES, chosen, everything)
    assert selected.ids == (5, 6, 7, 8, 10, 12, 13, 15, 16, 17, 19)
    assert selected.tables == {("a", "t")}
    assert selected.extensions == {"citext"}
    assert selected.needed == ()
    assert selected.listing().startswith("5;\n6;\n")


def test_missing_objects_are_added_and_foreign_keys_left_out() -> None:
    selected = selection.complete(ENTRIES, selection.choose(ENTRIES, [], ["a.t"]), lambda entries: {n for n in nothing(entries) if n != 9})
    assert selected.ids == (1, 3, 4, 5, 6, 7, 8, 10, 12, 13, 15, 16, 17, 19)
    assert set(selected.needed) == {"schema a", "type a.mood", "function a.tf()"}
    with pytest.raises(Failure, match=r"a\.t more") as caught:
        selection.complete(ENTRIES, selection.choose(ENTRIES, [], ["a.t"]), nothing)
    assert caught.value.reason.name == "InvalidSpec"


def test_a_dangling_foreign_key_is_left_out() -> None:
    entries = [entry for entry in ENTRIES if entry.id != 17]
    selected = selection.complete(entries, selection.choose(entries, [], ["a.t"]), nothing)
    assert 15 not in selected.ids
    assert selected.left_out == ("a.t t_fkey",)


def test_partitions_belong_to_their_table() -> None:
    assert selection.complete(ENTRIES, selection.choose(ENTRIES, [], ["a.p"]), everything).ids == (21, 22, 23, 24)


def test_a_schema_is_selected_with_everything_that_can_be() -> None:
    chosen = selection.choose(ENTRIES, ["a"], [])
    assert chosen == {entry.id for entry in ENTRIES} - {2, 20, 25}


def test_contents_of_a_selection() -> None:
    whole = Contents(
        tables=(TableEntry(schema_="a", name="t", rows=3), TableEntry(schema_="a", name="p", rows=4)),
        extensions=(ExtensionEntry(name="citext", schema_="public", version="1"), ExtensionEntry(name="other", schema_="public", version="1")),
        roles=("reader", "somebody"),
        event_triggers=("et",),
        large_objects=5,
    )
    part = selection.complete(ENTRIES, selection.choose(ENTRIES, [], ["a.t"]), everything).contents(whole)
    assert [table.name for table in part.tables] == ["t"]
    assert [extension.name for extension in part.extensions] == ["citext"]
    assert part.roles == ("reader",)
    assert part.event_triggers == ()
    assert part.large_objects == 0


def test_names_are_exact() -> None:
    for pattern in ("a.*", "a.?", "*.t"):
        with pytest.raises(Failure, match=re.escape(f"contains no table {pattern}")):
            selection.choose(ENTRIES, [], [pattern])
    entries = [*ENTRIES, TocEntry(99, "TABLE", "a", "t*", "", "", ())]
    assert 99 in selection.choose(entries, [], ["a.t*"])
    assert 5 not in selection.choose(entries, [], ["a.t*"])
    assert selection.choose(ENTRIES, [], ['"a"."t"']) == selection.choose(ENTRIES, [], ["a.t"]) == selection.choose(ENTRIES, [], ["t"])
    with pytest.raises(Failure) as caught:
        selection.choose(ENTRIES, [], ["a.b.c"])
    assert caught.value.reason.name == "InvalidSpec"


def test_missing_names_are_reported_together() -> None:
    with pytest.raises(Failure) as caught:
        selection.choose(ENTRIES, ["b"], ["a.t", "a.x", "b.t"])
    assert caught.value.reason.name == "SelectionEmpty"
    assert "schema b, table a.x, table b.t" in caught.value.message


# the archive's table of contents


def integer(value: int) -> bytes:
    return (b"\1" if value < 0 else b"\0") + abs(value).to_bytes(4, "little")


def text(value: str | None) -> bytes:
    return integer(-1) if value is None else integer(len(value.encode())) + value.encode()


def archive(version: tuple[int, int], entries: Sequence[TocEntry]) -> bytes:
    head = b"PGDMP" + bytes([*version, 0, 4, 8, 1])
    head += b"\0" if version >= (1, 15) else integer(0)
    head += b"".join(integer(1) for _ in range(7)) + text("db") + text("15.4") + text("17.2") + integer(len(entries))
    for e in entries:
        head += integer(e.id) + integer(1) + text(str(e.tableoid)) + text(str(e.oid)) + text(e.tag) + text(e.kind) + integer(3)
        head += text(e.definition) + text(e.drop) + text(e.copy) + text(e.schema) + text(None)
        head += text("heap") if version >= (1, 14) else b""
        head += integer(114) if version >= (1, 16) else b""
        head += text("owner") + text("false") + b"".join(text(str(need)) for need in e.needs) + text(None) + b"\2" + bytes(8)
    return head + b"data follows" * 100


@pytest.mark.parametrize("version", [(1, 12), (1, 13), (1, 14), (1, 15), (1, 16)])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_the_table_of_contents_of_every_version_is_read_whatever_the_chunks(version: tuple[int, int], size: int) -> None:
    data = archive(version, ENTRIES)
    assert read_toc(iter(data[i : i + size] for i in range(0, len(data), size))) == ENTRIES


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"SELECT 1;" * 20, "not an archive"),
        (archive((1, 17), ENTRIES), "version 1.17"),
        (archive((1, 14), ENTRIES)[:500], "ends within"),
        (archive((1, 14), []).replace(b"PGDMP\1\x0e\0\4\x08\1", b"PGDMP\1\x0e\0\4\x08\3"), "custom"),
        (b"", "ends within"),
    ],
)
def test_other_files_are_refused_as_archives(data: bytes, expected: str) -> None:
    with pytest.raises(TocError, match=expected):
        read_toc(iter([data]))
