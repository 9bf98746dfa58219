"""The inputs of tests/data/cases, and how each way with them ends.

`NAME.sql` fills the source, by psql as superuser; `NAME.after.sql` is what happens in the target
between the backup and a Replace.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.generator import literal, quote
from tests.conformance.ways import Format, Into, Outcome, Source, Way, World
from tests.integration.conftest import PASSWORD
from tests.root import ROOT

DIRECTORY = ROOT / "tests/data/cases"
ICU = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'"


def encoded(encoding: str) -> str:
    return f"TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"


def _of(ends: dict[str, str], way: Way) -> str:
    """The end of the part that says most about this way."""
    fitting = [part for part in ends if part == "all" or set(part.split("-")) <= set(str(way).split("-"))]
    return ends[max(fitting, key=lambda part: (part != "all", part.count("-")))] if fitting else ""


@dataclass(frozen=True, slots=True)
class Case:
    """`owner` is the role that backs up and restores in its own name, beside the superuser.
    `extensions` are those that PostgreSQL does not bring along; with them a case is too heavy for
    `make test`. `ends` has the ways that do not end equal, by the name of the way or of parts of
    it; the most exact one counts, `all` is every way. `refused` may be for any reason and at the
    backup, `equal|refused` is either."""

    name: str
    options: str = ""
    owner: str = ""
    extensions: tuple[str, ...] = ()
    target_sql: str = ""
    undo: str = ""
    lock_timeout: int = 60
    ends: dict[str, str] = field(default_factory=dict)

    def expected(self, way: Way) -> str:
        """`equal`, or how else this way ends."""
        return _of(self.ends, way) or "equal"

    def right(self, way: Way, outcome: Outcome) -> bool:
        """Whether it ended as the table says."""
        return any(end in {str(outcome), outcome.verdict} for end in self.expected(way).split("|"))

    def ways(self, *, every: bool = False) -> list[Way]:
        """Both formats, every way in, both users; or some of them where `every` takes too long."""
        chosen: list[tuple[Format, Into]] = [("plain", "new"), ("custom", "create"), ("custom", "replace"), ("plain", "replace")]
        owners: list[tuple[Format, Into]] = [("plain", "replace"), ("custom", "new")]
        if every:
            chosen = owners = [(form, into) for form in ("plain", "custom") for into in ("new", "create", "replace")]
        return [Way(*each) for each in chosen] + [Way(*each, self.owner) for each in owners if self.owner]


CASES = [
    Case("adminpack"),
    Case("cnpg_pooler", owner="bugs_app", ends={"replace-owner": "refused"}),
    Case("comments", owner="bugs_app", ends={"owner": "equal|refused"}),
    Case("computed_index"),
    Case("computed_tsvector", owner="bugs_app"),
    Case("depends_ext"),
    Case("domain_self"),
    Case("earthdistance"),
    Case("event_audit", owner="bugs_app", ends={"owner": "refused"}),
    Case("extension_in_pg_catalog", extensions=("plperl",)),
    Case("extension_own_schema", owner="bugs_app", ends={"owner": "refused"}),
    Case("extension_schema_exists", owner="bugs_app"),
    Case("fdw_matview", ends={"all": "refused|stock"}),
    Case("force_rls", owner="bugs_app", ends={"owner": "refused"}),
    Case("foreign_partition"),
    Case("generated_inline"),
    Case("icu_db", options=ICU),
    Case("large_object_other", owner="bugs_app", ends={"owner": "refused"}),
    Case("late_privilege", owner="bugs_app", ends={"owner": "refused"}),
    Case("mini_extension"),
    Case("mini_policy"),
    Case("misled_by_name", options=encoded("WIN1252")),
    Case("mule", options=encoded("MULE_INTERNAL")),
    Case("no_collation", ends={"new": "refused|stock", "create": "refused|stock"}),
    Case("no_columns_min"),
    Case("not_valid"),
    Case("not_valid_owner", owner="bugs_app"),
    Case("odd_names", owner="bugs-o'wner@ex.org"),
    Case("operators"),
    Case("owner_lacks_create", owner="bugs_deploy", ends={"replace-owner": "refused"}),
    Case("partitions_views"),
    Case("partitions_views_owner", owner="bugs_app"),
    Case("partman", owner="bugs_app", extensions=("pg_partman",)),
    Case("partman_closed", owner="bugs_app", extensions=("pg_partman",)),
    Case("periods", extensions=("periods",)),
    Case("pg_cron", owner="bugs_app", extensions=("pg_cron",)),
    Case("pgvector", extensions=("vector",)),
    Case("postgis", extensions=("postgis",)),
    Case("postgis_app", owner="bugs_app", extensions=("postgis",)),
    Case("prepared", undo="ROLLBACK PREPARED 'conformance'", lock_timeout=1, ends={"replace": "refused|late: LockTimeout"}),
    Case("quoted_circle"),
    Case("regclass", ends={"all": "refused|stock"}),
    Case("settings", owner="bugs_login", ends={"new-owner": "refused"}),
    Case("statements_schema", extensions=("hypopg", "pg_repack")),
    Case("staying_keys"),
    Case("supabase", owner="sb_postgres", ends={"owner": "refused"}),
    Case("trgm_index"),
    Case("undo_column_grant"),
    Case("undo_key"),
    Case("undo_publication_columns"),
    Case("undo_rename", ends={"replace": "equal|refused"}),
    Case("user_mapping", owner="bugs_app", ends={"new-owner": "refused", "create-owner": "refused", "replace-owner": "equal|refused"}),
    Case("win1252", options=encoded("WIN1252")),
    Case("AB_both"),
    Case("A_view_without_columns"),
    Case("B_domain_not_valid"),
    Case("C3_generated_only"),
    Case("C_rows_without_columns"),
    Case("E0_control_newer_partition", ends={"replace": "refused: DependentObjects"}),
    Case("E1_foreign_not_valid_check", ends={"replace": "refused: DependentObjects"}),
    Case("G10_view_default_function"),
    Case("G11_view_rule_function"),
    Case("G13_domain_check_function_of_domain"),
    Case("G15_generated"),
    Case("G17_hash_default_partition_key_function"),
    Case("G1_policy_view_circle"),
    Case("G3_default_atomic_function"),
    Case("G4_check_of_row_function"),
    Case("G6_trigger_when"),
    Case("G8_base_type"),
    Case("H_procedures_out"),
    Case("I3_extension_in_information_schema_or_pg_temp"),
    Case("I_extension_in_pg_catalog"),
    Case("J1_foreign_serial"),
    Case("J2_foreign_not_valid_check"),
    Case("K_hash_partitions_by_enum"),
    Case("M1_mixed_kinds_same_operator_names"),
    Case("N1_nasty_quoting"),
    Case("N2_nasty_quoting_strings_off"),
    Case("P1_latin1", options=encoded("LATIN1")),
    Case("P2_win1252_undefined_bytes", options=encoded("WIN1252")),
    Case("P4_sql_ascii_invalid_data", options=encoded("SQL_ASCII")),
    Case("P5_sql_ascii_invalid_name", options=encoded("SQL_ASCII")),
    Case("P6_sql_ascii_utf8_name", options=encoded("SQL_ASCII")),
    Case("P7_sql_ascii_invalid_function", options=encoded("SQL_ASCII")),
    Case("P8_euc_jp_two_codes_of_one_character", options=encoded("EUC_JP")),
    Case(
        "Q_strings_off_pg_schema",
        target_sql="DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = off', current_database()); END $$",
    ),
    Case("R1_column_named_begin_in_atomic_body"),
    Case("R2_table_begin_alias_atomic"),
    Case("T1_names_like_rules"),
    Case("T2_two_halved_views"),
]


@contextmanager
def filled(world: World, case: Case) -> Iterator[Source]:
    """The case's source; every role that it makes may log in as the tests do."""
    with world.database(case.options) as name:
        world.postgres.load((DIRECTORY / f"{case.name}.sql").read_bytes(), name)
        if case.owner:
            password = PASSWORD.replace("'", "''")
            if not world.postgres.execute(f"SELECT 1 FROM pg_roles WHERE rolname = {literal(case.owner)}"):
                world.postgres.execute(f"CREATE ROLE {quote(case.owner)}")
            world.postgres.execute(f"ALTER ROLE {quote(case.owner)} LOGIN PASSWORD '{password}'")
        after = DIRECTORY / f"{case.name}.after.sql"
        change = (lambda target: world.postgres.load(after.read_bytes(), target)) if after.exists() else None
        yield Source(name, case.options, case.target_sql, change, case.undo, case.lock_timeout)


def install_extensions(sharedir: Path) -> None:
    """The three small extensions that some inputs are about."""
    for path in [*DIRECTORY.glob("mini_*.control"), *DIRECTORY.glob("mini_*--*.sql")]:
        whole = sharedir / "extension" / f"{path.name}.{os.getpid()}"
        shutil.copy(path, whole)
        whole.replace(sharedir / "extension" / path.name)  # others may be reading it
