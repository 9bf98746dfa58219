"""Which relations a backup dumps, and which without their rows: each rule of `select_tables`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

import pytest

from dbbackup.contract.errors import Failure
from dbbackup.contract.run import BackupOptions
from dbbackup.dataplane.backup.snapshot import Relation, TableSelection, refuse_unreadable, select_tables

SCHEMAS = ("app", "audit", "public")
_OIDS = count(16384)


def relation(
    name: str,
    kind: str = "r",
    *parents: Relation,
    unlogged: bool = False,
    hidden_rows: bool = False,
    readable: bool = True,
) -> Relation:
    """`name` is `schema.name`. `parents` are those that it inherits from, is a partition of, or, of
    a sequence, is owned by."""
    schema, _, table = name.partition(".")
    return Relation(next(_OIDS), schema, table, kind, unlogged, hidden_rows, readable, 8192, tuple(parent.oid for parent in parents))


def select(relations: Sequence[Relation], *, standby: bool = False, **options: tuple[str, ...]) -> TableSelection:
    return select_tables(relations, SCHEMAS, BackupOptions.model_validate(options), standby=standby)


def names(keys: Iterable[tuple[str, str]]) -> set[str]:
    return {".".join(key) for key in keys}


def dumped(selection: TableSelection) -> set[str]:
    return names(each.key for each in selection.relations)


TABLES = (relation("app.users"), relation("app.orders"), relation("audit.log"), relation("public.t"))


def test_without_options_everything_is_dumped_with_its_rows() -> None:
    selection = select(TABLES)
    assert selection.schemas == SCHEMAS
    assert dumped(selection) == {"app.users", "app.orders", "audit.log", "public.t"}
    assert names(each.key for each in selection.data_tables) == dumped(selection)
    assert (selection.excluded, selection.without_data, selection.unmatched, selection.excluded_oids) == (frozenset(), frozenset(), (), ())


# --- schemas


def test_only_the_chosen_schemas_are_dumped() -> None:
    selection = select(TABLES, schemas=("public", "app"))
    assert dumped(selection) == {"app.users", "app.orders", "public.t"}
    assert selection.schemas == ("app", "public"), "in the database's order"
    assert selection.excluded_oids == (), "what is outside of them is not excluded: it was never listed"


def test_relations_of_a_schema_that_is_not_listed_are_left_out() -> None:
    """Such as those in the schema of an extension."""
    assert dumped(select([*TABLES, relation("extension.settings")])) == dumped(select(TABLES))


def test_missing_schemas_are_refused_by_name() -> None:
    with pytest.raises(Failure) as caught:
        select(TABLES, schemas=("app", "gone", "lost"))
    assert caught.value.reason.name == "InvalidSpec"
    assert "no schema gone, lost" in caught.value.message
    assert "app, audit, public" in caught.value.message


# --- tables left out


@pytest.mark.parametrize("kind", ["r", "p", "f", "m", "v"])
def test_a_table_or_view_is_left_out(kind: str) -> None:
    """With its oid, by which the dump's other objects are searched for needs of it."""
    gone = relation("app.gone", kind)
    selection = select([*TABLES, gone], exclude_tables=("app.gone",))
    assert dumped(selection) == dumped(select(TABLES))
    assert names(selection.excluded) == {"app.gone"}
    assert selection.excluded_oids == (gone.oid,)
    assert selection.unmatched == ()


def test_a_pattern_may_mean_several_tables_of_several_schemas() -> None:
    selection = select([*TABLES, relation("app.log_2025"), relation("public.log")], exclude_tables=("log*", "public.?"))
    assert names(selection.excluded) == {"app.log_2025", "audit.log", "public.log", "public.t"}


def test_a_sequence_is_not_left_out_by_its_name() -> None:
    sequence = relation("app.numbers", "S")
    selection = select([*TABLES, sequence], exclude_tables=("app.numbers",))
    assert "app.numbers" in dumped(selection)
    assert selection.unmatched == ("app.numbers",)


def test_a_tables_own_sequences_go_with_it() -> None:
    """pg_dump would keep them, and a restore would wind back those of a table that stays."""
    gone, stays = relation("app.gone"), relation("app.stays")
    sequences = relation("app.gone_id_seq", "S", gone), relation("app.stays_id_seq", "S", stays), relation("app.free", "S")
    selection = select([gone, stays, *sequences], exclude_tables=("app.gone",))
    assert dumped(selection) == {"app.stays", "app.stays_id_seq", "app.free"}
    assert names(selection.excluded) == {"app.gone", "app.gone_id_seq"}
    assert selection.excluded_oids == (gone.oid, sequences[0].oid)


def test_the_children_of_a_plain_table_do_not_go_with_it() -> None:
    """The children of a table that is not partitioned are tables of their own."""
    parent = relation("app.parent")
    child = relation("app.child", "r", parent)
    assert dumped(select([parent, child], exclude_tables=("app.parent",))) == {"app.child"}


def partitioned() -> list[Relation]:
    """A table with a partition that is partitioned itself, a foreign one, and their sequences."""
    top = relation("app.events", "p")
    year = relation("app.events_2025", "p", top)
    month = relation("app.events_2025_01", "r", year)
    remote = relation("audit.events_old", "f", top)
    return [month, year, remote, top, relation("app.events_2025_01_id_seq", "S", month), relation("app.other")]


def test_partitions_go_with_their_table_at_any_depth() -> None:
    selection = select(partitioned(), exclude_tables=("app.events",))
    assert dumped(selection) == {"app.other"}
    assert names(selection.excluded) == {"app.events", "app.events_2025", "app.events_2025_01", "audit.events_old", "app.events_2025_01_id_seq"}


def test_a_partition_can_be_left_out_alone() -> None:
    selection = select(partitioned(), exclude_tables=("app.events_2025",))
    assert names(selection.excluded) == {"app.events_2025", "app.events_2025_01", "app.events_2025_01_id_seq"}


def test_a_child_of_a_leaf_partition_does_not_go() -> None:
    """Only partitions do: what inherits from one of them in the old way is a table of its own."""
    top = relation("app.events", "p")
    leaf = relation("app.events_1", "r", top)
    heir = relation("app.heir", "r", leaf)
    assert dumped(select([top, leaf, heir], exclude_tables=("app.events",))) == {"app.heir"}


# --- tables whose rows are left out


@pytest.mark.parametrize("kind", ["r", "p", "f", "m"])
def test_the_rows_of_a_table_are_left_out(kind: str) -> None:
    selection = select([*TABLES, relation("app.cache", kind)], exclude_table_data=("app.cache",))
    assert "app.cache" in dumped(selection)
    assert names(selection.without_data) == {"app.cache"}
    assert "app.cache" not in names(each.key for each in selection.data_tables)
    assert selection.excluded == frozenset()


@pytest.mark.parametrize("kind", ["v", "S"])
def test_views_and_sequences_have_no_rows_to_leave_out(kind: str) -> None:
    selection = select([*TABLES, relation("app.cache", kind)], exclude_table_data=("app.cache",))
    assert selection.without_data == frozenset()
    assert selection.unmatched == ("app.cache",)


def test_partitions_lose_their_rows_with_their_table() -> None:
    """Otherwise the table's rows would be dumped through them."""
    selection = select(partitioned(), exclude_table_data=("app.events",))
    assert names(selection.without_data) == {"app.events", "app.events_2025", "app.events_2025_01", "audit.events_old"}
    assert dumped(selection) == names(each.key for each in partitioned())


def test_the_children_of_a_plain_table_keep_their_rows() -> None:
    parent = relation("app.parent")
    child = relation("app.child", "r", parent)
    assert names(select([parent, child], exclude_table_data=("app.parent",)).without_data) == {"app.parent"}


def test_a_table_that_is_left_out_is_not_named_for_its_rows_too() -> None:
    selection = select(TABLES, exclude_tables=("app.users",), exclude_table_data=("app.*",))
    assert names(selection.excluded) == {"app.users"}
    assert names(selection.without_data) == {"app.orders"}


def test_a_standby_has_no_rows_of_unlogged_tables() -> None:
    tables = [*TABLES, relation("app.fast", unlogged=True)]
    assert names(select(tables, standby=True).without_data) == {"app.fast"}
    assert select(tables).without_data == frozenset()


# --- patterns that match nothing


def test_patterns_that_match_nothing_are_reported_in_their_order() -> None:
    selection = select(TABLES, exclude_tables=("app.z", "app.users", "a.b"), exclude_table_data=("none", "audit.log"))
    assert selection.unmatched == ("app.z", "a.b", "none")


def test_a_pattern_for_a_schema_that_is_not_chosen_matches_nothing() -> None:
    selection = select(TABLES, schemas=("app",), exclude_tables=("audit.log",), exclude_table_data=("public.t",))
    assert selection.unmatched == ("audit.log", "public.t")
    assert selection.excluded == selection.without_data == frozenset()


# --- what the selection says


def test_views_are_no_relations_of_the_manifest() -> None:
    assert dumped(select([*TABLES, relation("app.view", "v"), relation("app.materialized", "m")])) == dumped(select(TABLES)) | {"app.materialized"}


def test_tables_to_lock_and_tables_whose_rows_must_appear() -> None:
    found = [
        relation("app.plain"),
        relation("app.partitioned", "p"),
        relation("app.foreign", "f"),
        relation("app.materialized", "m"),
        relation("app.sequence", "S"),
        relation("app.cache"),
    ]
    selection = select(found, exclude_table_data=("app.cache",))
    assert names(each.key for each in selection.tables) == {"app.plain", "app.partitioned", "app.cache"}
    assert names(each.key for each in selection.data_tables) == {"app.plain"}
    assert selection.table_identities == {(each.oid, *each.key) for each in found if each.kind in "rp"}


# --- what the user may not read


def refused(*relations: Relation) -> Failure:
    with pytest.raises(Failure, match=": db as user u: ") as caught:
        refuse_unreadable(select(relations), (), "db as user u")
    return caught.value


@pytest.mark.parametrize("kind", ["r", "p"])
def test_rows_that_row_security_hides_are_refused(kind: str) -> None:
    failure = refused(relation("app.secret", kind, hidden_rows=True), relation("app.open"))
    assert failure.reason.name == "RowSecurity"
    assert "rows of app.secret" in failure.message
    assert "app.open" not in failure.message


@pytest.mark.parametrize("kind", ["r", "p", "S"])
def test_what_the_user_may_not_read_is_refused(kind: str) -> None:
    failure = refused(relation("app.closed", kind, readable=False), relation("app.open"))
    assert failure.reason.name == "InsufficientPrivilege"
    assert "app.closed" in failure.message
    assert "app.open" not in failure.message


def test_both_are_named_at_once() -> None:
    failure = refused(relation("app.secret", hidden_rows=True), relation("app.closed", readable=False))
    assert failure.reason.name == "RowSecurity"
    assert "app.secret" in failure.message
    assert "app.closed" in failure.message


def test_large_objects_are_named_with_the_rest_and_counted() -> None:
    with pytest.raises(Failure) as caught:
        refuse_unreadable(select([relation("app.closed", readable=False)]), [(6001, "postgres", 30), (6002, "other", 30)], "db")
    assert caught.value.reason.name == "InsufficientPrivilege"
    for word in ("app.closed", "6001 (of postgres), 6002 (of other) and 28 more", "GRANT SELECT ON LARGE OBJECT 6001"):
        assert word in caught.value.message


def test_hidden_rows_that_are_left_out_anyway_are_not_refused() -> None:
    refuse_unreadable(select([relation("app.secret", hidden_rows=True)], exclude_table_data=("app.secret",)), (), "db")
    refuse_unreadable(select([relation("app.secret", hidden_rows=True)], exclude_tables=("app.secret",)), (), "db")


@pytest.mark.parametrize("kind", ["f", "m"])
def test_relations_without_rows_in_the_dump_need_no_privilege(kind: str) -> None:
    refuse_unreadable(select([relation("app.other", kind, readable=False, hidden_rows=True)]), (), "db")
