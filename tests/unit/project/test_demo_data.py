"""The demo data: the same bytes at every call, the sizes that docs and tests count on, and COPY
escapes that lose nothing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data import big, generate, rows

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "v": "\x0b", "\\": "\\"}


def _unescape(field: str) -> str:
    return re.sub(r"\\(.)", lambda m: _ESCAPES[m[1]], field, flags=re.DOTALL)


def test_deterministic() -> None:
    assert generate.render() == generate.render()
    assert generate.render(271) != generate.render(276)


def test_size_is_that_of_the_issue() -> None:
    assert 375_000 < len(generate.render().encode()) < 405_000


@pytest.mark.parametrize("servers", [1, 271, 276])
def test_every_server_has_power_specs_and_unique_names(servers: int) -> None:
    tables = {table.name: table for table in rows.tables(servers)}
    assert len(tables["public.servers"].rows) == len(tables["public.power_specs"].rows) == servers
    assert {row[0] for row in tables["public.servers"].rows} == {row[1] for row in tables["public.power_specs"].rows}
    assert len({rows.hostname(i).lower() for i in range(servers)}) == len({rows.serial(i) for i in range(servers)}) == servers
    assert all(len(row) == len(table.columns) for table in tables.values() for row in table.rows)


def test_fewer_servers_are_a_prefix_of_more() -> None:
    few, many = ({table.name: table.rows for table in rows.tables(count)} for count in (271, 276))
    assert many["public.servers"][:271] == few["public.servers"]


def test_the_tables_are_those_that_the_schema_makes() -> None:
    made = set(re.findall(r"CREATE TABLE (\S+) \(", generate.render(1)))
    assert made == {table.name for table in rows.tables(1)}
    assert set(generate.EXCLUDED_ROWS) <= made


def test_role_prefix() -> None:
    sql = generate.render(1, "t9_")
    assert "@" not in re.sub(r"\S+@[eE]xample", "", "".join(line for line in sql.splitlines() if "inventory_" in line))
    assert set(re.findall(r"\b\w*inventory_(?:owner|readonly|authenticated|service)\b", sql)) == {
        f"t9_inventory_{name}" for name in ("owner", "readonly", "authenticated", "service")
    }
    with pytest.raises(ValueError, match="role prefix"):
        generate.render(1, 'x"; DROP')


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_copy_field_loses_nothing(text: str) -> None:
    field = rows.copy_field(text)
    assert not re.search("[\t\n\r]", field)
    assert field not in {r"\N", r"\."}
    assert _unescape(field) == text


def test_big_scales_with_its_size() -> None:
    def total(sql: str) -> int:
        return sum(int(last) - int(first) + 1 for first, last in re.findall(r"generate_series\((\d+)::bigint, (\d+)::bigint\)", sql))

    assert total(big.render(100)) == pytest.approx(100_000_000 / big.ROW_BYTES, rel=0.001)
    assert total(big.render(100, tables=7)) == pytest.approx(total(big.render(100)), rel=0.001)
