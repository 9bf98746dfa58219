"""Random databases and random changes, as lists of SQL statements.

A statement that the server refuses is left out: so a kind of object may be combined with any other
without a model of what PostgreSQL allows. What remains is a script that anybody can run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

import psycopg
from tests.conformance.ways import Format

T = TypeVar("T")

SUPERUSER, OWNER = "postgres", "gen_owner"
_USERS = (SUPERUSER, SUPERUSER, OWNER)
ROLES = (OWNER, 'gen "odd; role', "gen_reader")
_WORDS = (
    "a",
    "order",
    "Mixed Case",
    'quo"te',
    "apo's",
    "dot.ted",
    "grün",
    "new\nline",
    "back\\slash",
    "semi;colon",
    "-- dash",
    "$$",
    "IF NOT EXISTS",
    "on",
    "%I",
    "(par",
    "com,ma",
    "x" * 50,
    "pg_attver",
    "AS SELECT NULL::",
    "begin atomic",
    "público",
)
_PLAIN_TYPES = (
    "integer",
    "text",
    "numeric(10,2)",
    "timestamp with time zone",
    "boolean",
    "bytea",
    "jsonb",
    "integer[]",
    "text",
    "bigint",
    "tsrange",
    "uuid",
)
_VALUES = {
    "integer": ("1", "2", "NULL", "7"),
    "bigint": ("1", "99999999999"),
    "text": ("'x'", r"E'tab\t back\\slash \n\\.\n'", "''", "NULL", "'ü'", r"E'\\N'"),
    "numeric(10,2)": ("1.5", "'NaN'"),
    "timestamp with time zone": ("'2024-02-03 04:05:06+00'", "'infinity'"),
    "boolean": ("true", "NULL"),
    "bytea": (r"'\x00ff5c27'",),
    "jsonb": ("""'{"a": "b\\\\"}'""",),
    "integer[]": ("'{1,NULL,3}'",),
    "tsrange": ("'[2024-01-01,2024-01-02)'", "'empty'"),
    "uuid": ("'00000000-0000-0000-0000-000000000001'",),
}
_EXTENSIONS = ("citext", "hstore", "pg_trgm", "btree_gist", "ltree", "intarray", "unaccent")
_EXTENSION_TYPES = {"citext": "citext", "hstore": "hstore", "ltree": "ltree"}


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    escaped = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{escaped}'"


@dataclass(slots=True)
class Thing:
    """An object that exists. `columns` are (name, type) of a relation or composite type. `extra` is
    what its kind needs: a function's arguments, a table's partition key."""

    kind: str
    name: str
    columns: list[tuple[str, str]] = field(default_factory=list)
    extra: str = ""


class Picks:
    """Choices out of one step's numbers; 0 when they are used up, so that small is simple."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = iter(numbers)

    def number(self, below: int) -> int:
        return next(self._numbers, 0) % below

    def of(self, choices: list[T] | tuple[T, ...]) -> T:
        return choices[self.number(len(choices))]

    def odds(self, of: int) -> bool:
        """True once in `of`; False for small numbers."""
        return self.number(of) == of - 1


Step = tuple[str, list[int]]
Made = tuple[str, Thing | None]


class Maker:
    """Turns steps into statements, and remembers what there is."""

    def __init__(self) -> None:
        self.things: list[Thing] = [Thing("schema", "public")]
        self._made = 0

    # --- what there is --------------------------------------------------------------------------

    def all(self, *kinds: str) -> list[Thing]:
        return [thing for thing in self.things if thing.kind in kinds]

    def one(self, p: Picks, *kinds: str) -> Thing | None:
        """The newer ones first: a small number is what was just made."""
        found = self.all(*kinds)[::-1]
        return p.of(found) if found else None

    def named(self, p: Picks) -> str:
        self._made += 1
        return quote(f"{p.of(_WORDS)}{self._made}")

    def placed(self, p: Picks) -> str:
        """A new name in some schema."""
        schema = self.one(p, "schema")
        assert schema
        return f"{schema.name}.{self.named(p)}"

    def type(self, p: Picks, *, own: bool = True) -> str:
        kinds = ("enum", "domain", "composite", "range", "base", "exttype") + (("table",) if p.odds(8) else ())
        made = self.one(p, *kinds) if own and p.odds(2) else None
        if made is None:
            return p.of(_PLAIN_TYPES)
        return made.name + ("[]" if p.odds(6) else "")

    def value(self, p: Picks, type_: str) -> str:
        if type_ in _VALUES:
            return p.of(_VALUES[type_])
        for thing in self.all("enum"):
            if thing.name == type_:
                return literal(p.of([label for label, _ in thing.columns]))
        for thing in self.all("domain"):
            if thing.name == type_:
                return self.value(p, thing.extra)
        for thing in self.all("base"):
            if thing.name == type_:
                return "'5'"
        return "NULL"

    def relation(self, p: Picks) -> Thing | None:
        return self.one(p, "table", "view", "matview", "foreign")

    # --- one step -------------------------------------------------------------------------------

    def statement(self, step: Step) -> Made | None:
        """SQL, and what there is afterwards if the server takes it."""
        kind, numbers = step
        make: Callable[[Picks], Made | None] = getattr(self, f"_{kind}")
        return make(Picks(numbers))

    def _schema(self, p: Picks) -> Made:
        name = self.named(p)
        owner = f" AUTHORIZATION {quote(p.of(ROLES))}" if p.odds(3) else ""
        return f"CREATE SCHEMA {name}{owner}", Thing("schema", name)

    def _columns(self, p: Picks) -> tuple[list[str], list[tuple[str, str]]]:
        lines: list[str] = []
        columns: list[tuple[str, str]] = []
        for _ in range(p.of((2, 1, 3, 4, 0))):
            name, type_ = self.named(p), self.type(p)
            tail = ""
            match p.number(16):
                case 5:
                    type_, tail = "integer", " GENERATED ALWAYS AS IDENTITY"
                case 6:
                    type_, tail = "bigint", " GENERATED BY DEFAULT AS IDENTITY (START 7 INCREMENT -3 MAXVALUE 10)"
                case 7:
                    tail = " NOT NULL"
                case 8 if columns:
                    first, kind = columns[0]
                    function = self.one(p, "rowfn")
                    expression = f"({first} IS NULL)" if function is None or function.extra != kind else f"{function.name}({first})"
                    type_ = "boolean"
                    tail = f" GENERATED ALWAYS AS ({expression}) STORED"
                case 9:
                    type_, tail = "integer", " DEFAULT 7 CHECK (" + name + " > 0)"
                case 10:
                    type_, tail = "text", " COLLATE \"C\" DEFAULT 'it''s; \\'"
                case 11 if self.all("sequence"):
                    sequence = self.one(p, "sequence")
                    assert sequence
                    type_, tail = "bigint", f" DEFAULT nextval({literal(sequence.name)})"
                case 12 if self.all("fn0"):
                    function = self.one(p, "fn0")
                    assert function
                    type_, tail = "integer", f" DEFAULT {function.name}()"
                case 13 if self.all("domain"):
                    domain = self.one(p, "domain")
                    assert domain
                    type_ = domain.name
                case 14:
                    type_ = "serial"
            lines.append(f"{name} {type_}{tail}")
            columns.append((name, "integer" if type_ == "serial" else type_))
        return lines, columns

    def _table(self, p: Picks) -> Made:
        name = self.placed(p)
        lines, columns = self._columns(p)
        if columns and p.odds(2):
            lines.append(f"PRIMARY KEY ({columns[0][0]})")
        elif columns and p.odds(2):
            lines.append(f"UNIQUE NULLS NOT DISTINCT ({columns[0][0]})")
        parent = self.one(p, "table") if p.odds(7) else None
        tail = f" INHERITS ({parent.name})" if parent else ""
        unlogged = "UNLOGGED " if p.odds(9) else ""
        with_ = " WITH (fillfactor = 70)" if p.odds(9) else ""
        return f"CREATE {unlogged}TABLE {name} ({', '.join(lines)}){tail}{with_}", Thing("table", name, columns + (parent.columns if parent else []))

    def _typed_table(self, p: Picks) -> Made | None:
        made = self.one(p, "composite")
        if made is None:
            return None
        name = self.placed(p)
        return f"CREATE TABLE {name} OF {made.name}", Thing("table", name, list(made.columns))

    def _partitioned(self, p: Picks) -> Made:
        name = self.placed(p)
        lines, columns = self._columns(p)
        enum = self.one(p, "enum")
        key, type_ = self.named(p), enum.name if enum and p.odds(3) else "integer"
        how = p.of(("LIST", "RANGE", "HASH"))
        function = self.one(p, "rowfn")
        expression = f"({function.name}({key}))" if function and function.extra == type_ and p.odds(2) else key
        lines.append(f"{key} {type_} NOT NULL")
        if p.odds(3):
            lines.append(f"PRIMARY KEY ({key})")
        return (
            f"CREATE TABLE {name} ({', '.join(lines)}) PARTITION BY {how} ({expression})",
            Thing("table", name, [*columns, (key, type_)], f"{how}|{type_}"),
        )

    def _bounds(self, p: Picks, parent: Thing) -> str:
        how, _, type_ = parent.extra.partition("|")
        children = sum(thing.extra.endswith(f"^{parent.name}") for thing in self.things)
        if how == "HASH":
            return f"FOR VALUES WITH (MODULUS 3, REMAINDER {children % 3})"
        if p.odds(5):
            return "DEFAULT"
        if type_ == "integer":
            return f"FOR VALUES IN ({children})" if how == "LIST" else f"FOR VALUES FROM ({children * 10}) TO ({children * 10 + 10})"
        labels = [label for thing in self.all("enum") if thing.name == type_ for label, _ in thing.columns] or ["x"]
        if how == "LIST":
            return f"FOR VALUES IN ({literal(labels[children % len(labels)])})"
        return f"FOR VALUES FROM (MINVALUE) TO ({literal(labels[-1])})"

    def _partition(self, p: Picks) -> Made | None:
        parents = [thing for thing in self.all("table") if thing.extra.startswith(("LIST|", "RANGE|", "HASH|"))][::-1]
        if not parents:
            return None
        parent = p.of(parents)
        name = self.placed(p)
        bounds = self._bounds(p, parent)
        if p.odds(6) and self.all("server"):
            server = self.one(p, "server")
            assert server
            foreign = Thing("foreign", name, list(parent.columns), f"^{parent.name}")
            return f"CREATE FOREIGN TABLE {name} PARTITION OF {parent.name} {bounds} SERVER {server.name}", foreign
        below = f" PARTITION BY RANGE ({parent.columns[-1][0]})" if p.odds(6) else ""
        made = Thing("table", name, list(parent.columns), (f"RANGE|{parent.columns[-1][1]}" if below else "") + f"^{parent.name}")
        return f"CREATE TABLE {name} PARTITION OF {parent.name} {bounds}{below}", made

    def _rows(self, p: Picks) -> Made | None:
        table = self.one(p, "table")
        if table is None:
            return None
        if not table.columns:
            return f"INSERT INTO {table.name} DEFAULT VALUES", None
        chosen = [column for column in table.columns if not p.odds(3)] or table.columns[:1]
        rows = [", ".join(self.value(p, type_) for _, type_ in chosen) for _ in range(p.of((1, 2, 3)))]
        names = ", ".join(name for name, _ in chosen)
        values = ", ".join(f"({row})" for row in rows)
        return f"INSERT INTO {table.name} ({names}) VALUES {values}", None

    def _default_rows(self, p: Picks) -> Made | None:
        table = self.one(p, "table")
        return (f"INSERT INTO {table.name} DEFAULT VALUES", None) if table else None

    def _enum(self, p: Picks) -> Made:
        name = self.placed(p)
        labels = ["x", "it's", "a;b", "back\\slash"][: p.of((2, 1, 4, 3))]
        return f"CREATE TYPE {name} AS ENUM ({', '.join(map(literal, labels))})", Thing("enum", name, [(label, "") for label in labels])

    def _composite(self, p: Picks) -> Made:
        name = self.placed(p)
        columns = [(self.named(p), self.type(p)) for _ in range(p.of((2, 1, 0, 3)))]
        return f"CREATE TYPE {name} AS ({', '.join(f'{n} {t}' for n, t in columns)})", Thing("composite", name, columns)

    def _range(self, p: Picks) -> Made:
        name = self.placed(p)
        return f"CREATE TYPE {name} AS RANGE (SUBTYPE = {p.of(('integer', 'text', 'double precision'))})", Thing("range", name)

    def _base(self, p: Picks) -> Made:
        name = self.placed(p)
        schema = name.partition('."')[0]
        reads, writes = f"{schema}.{quote('in' + str(self._made))}", f"{schema}.{quote('out' + str(self._made))}"
        return (
            (
                f"CREATE TYPE {name}; CREATE FUNCTION {reads}(cstring) RETURNS {name} LANGUAGE internal IMMUTABLE STRICT AS 'int4in';"
                f" CREATE FUNCTION {writes}({name}) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';"
                f" CREATE TYPE {name} (INPUT = {reads}, OUTPUT = {writes}, LIKE = integer)"
            ),
            Thing("base", name),
        )

    def _domain(self, p: Picks) -> Made:
        name, type_ = self.placed(p), p.of(("integer", "text", self.type(p)))
        tail = p.of(("", " NOT NULL", " CHECK (VALUE IS NOT NULL OR true)", " DEFAULT NULL"))
        return f"CREATE DOMAIN {name} AS {type_}{tail}", Thing("domain", name, [], type_)

    def _domain_check(self, p: Picks) -> Made | None:
        domain, function = self.one(p, "domain"), self.one(p, "rowfn")
        if domain is None:
            return None
        call = f"{function.name}(VALUE)" if function and function.extra in {domain.name, domain.extra} else "VALUE IS NOT NULL"
        return f"ALTER DOMAIN {domain.name} ADD CONSTRAINT {self.named(p)} CHECK ({call}){' NOT VALID' if p.odds(3) else ''}", None

    def _row_function(self, p: Picks) -> Made:
        """A predicate over a type of the users', such as a table's rows."""
        over = self.one(p, "table", "domain", "composite", "view", "enum", "base")
        type_ = over.name if over and not p.odds(5) else "integer"
        name = self.placed(p)
        body = p.of(
            (
                "LANGUAGE sql IMMUTABLE AS 'SELECT true'",
                "LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN RETURN true; -- COPY x FROM stdin;\nEND $f$",
                "LANGUAGE sql IMMUTABLE RETURN true",
                "LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 7 SET search_path = pg_catalog AS 'SELECT true'",
            )
        )
        return f"CREATE FUNCTION {name}({type_}) RETURNS boolean {body}", Thing("rowfn", name, [], type_)

    def _atomic(self, p: Picks) -> Made:
        relation = self.relation(p)
        name = self.placed(p)
        query = f"SELECT count(*)::integer FROM {relation.name}" if relation else "SELECT CASE WHEN true THEN 1 END AS case"
        return f'CREATE FUNCTION {name}() RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT 2 AS "end;"; {query}; END', Thing("fn0", name)

    def _function(self, p: Picks) -> Made:
        name, relation = self.placed(p), self.relation(p)
        arguments = ", ".join(
            p.of(("{} {}", "{} {} DEFAULT NULL", "INOUT {} {}", "{} {}")).format(self.named(p), self.type(p)) for _ in range(p.of((1, 0, 2)))
        )
        returns = "" if "INOUT" in arguments else f" RETURNS SETOF {relation.name}" if relation and p.odds(2) else " RETURNS void"
        return f"CREATE FUNCTION {name}({arguments}){returns} LANGUAGE plpgsql {p.of(('', 'SECURITY DEFINER', 'LEAKPROOF'))} AS ''", Thing(
            "function", name, [], arguments
        )

    def _procedure(self, p: Picks) -> Made:
        name = self.placed(p)
        arguments = p.of(("", "IN a integer", "OUT a integer, IN b integer", "VARIADIC c text[]"))
        body = "AS 'SELECT 1'" if "OUT" in arguments else "BEGIN ATOMIC END"
        return f"CREATE PROCEDURE {name}({arguments}) LANGUAGE sql {body}", Thing("procedure", name)

    def _trigger_function(self, p: Picks) -> Made:
        name = self.placed(p)
        return f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'", Thing("trigger_function", name)

    def _trigger(self, p: Picks) -> Made | None:
        table, function, row = self.one(p, "table"), self.one(p, "trigger_function"), self.one(p, "rowfn")
        if table is None or function is None:
            return None
        when = f" WHEN ({row.name}(new.*))" if row and row.extra == table.name else ""
        how = p.of(("BEFORE INSERT", "AFTER UPDATE OR DELETE", "CONSTRAINT"))
        name = self.named(p)
        if how == "CONSTRAINT":
            timing = "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
            return f"CREATE CONSTRAINT TRIGGER {name} AFTER INSERT ON {table.name} {timing}{when} EXECUTE FUNCTION {function.name}()", None
        return f"CREATE TRIGGER {name} {how} ON {table.name} FOR EACH ROW{when} EXECUTE FUNCTION {function.name}()", None

    def _disable_trigger(self, p: Picks) -> Made | None:
        table = self.one(p, "table")
        return (f"ALTER TABLE {table.name} {p.of(('DISABLE', 'ENABLE ALWAYS'))} TRIGGER {'ALL' if p.odds(2) else 'USER'}", None) if table else None

    def _view(self, p: Picks) -> Made:
        name, relation, function = self.placed(p), self.relation(p), self.one(p, "rowfn")
        if relation is None:
            return f"CREATE VIEW {name} AS SELECT 1 AS one, 'a;b'::text AS \"x;y\"", Thing("view", name, [("one", "integer"), ('"x;y"', "text")])
        columns = relation.columns[: p.of((2, 1, 3))]
        names = ", ".join(column for column, _ in columns) or "1 AS one"
        if function and function.extra == relation.name and p.odds(2):
            return f"CREATE VIEW {name} AS SELECT {function.name}(z) AS ok FROM {relation.name} z", Thing("view", name, [("ok", "boolean")])
        if relation.columns and p.odds(3):
            query = f"SELECT {names} FROM {relation.name} GROUP BY {relation.columns[0][0]}"
        else:
            query = f"SELECT {names} FROM {relation.name}" + p.of(("", " WHERE true", " z"))
        other = self.relation(p)
        if other and p.odds(4):
            query = f"SELECT l.*, count(*) OVER () AS n FROM {relation.name} l CROSS JOIN {other.name} r"
            columns = [*relation.columns, ("n", "bigint")]
        options = p.of(("", "", " WITH (security_barrier)"))
        return f"CREATE VIEW {name}{options} AS {query}", Thing("view", name, columns or [("one", "integer")])

    def _circle_view(self, p: Picks) -> Made | None:
        """A view becomes another, by way of a function of its own row type."""
        view, function = self.one(p, "view"), self.one(p, "fn0")
        if view is None or function is None:
            return None
        columns = ", ".join(f"NULL::{type_} AS {name}" for name, type_ in view.columns)
        return f"CREATE OR REPLACE VIEW {view.name} AS SELECT {columns}, {function.name}() AS later", None

    def _matview(self, p: Picks) -> Made:
        name, relation = self.placed(p), self.one(p, "table", "view", "matview")
        query = f"SELECT * FROM {relation.name}" if relation else "SELECT 1 AS one"
        made = Thing("matview", name, list(relation.columns) if relation else [("one", "integer")])
        return f"CREATE MATERIALIZED VIEW {name} AS {query}{' WITH NO DATA' if p.odds(3) else ''}", made

    def _rule(self, p: Picks) -> Made | None:
        relation = self.one(p, "table", "view")
        event, action = p.of(("UPDATE", "DELETE", "INSERT")), p.of(("NOTHING", "(SELECT 1; SELECT 2)"))
        return (f"CREATE RULE {self.named(p)} AS ON {event} TO {relation.name} DO INSTEAD {action}", None) if relation else None

    def _policy(self, p: Picks) -> Made | None:
        table, other, function = self.one(p, "table"), self.relation(p), self.one(p, "rowfn")
        if table is None:
            return None
        using = p.of(("true", "EXISTS", "call"))
        if using == "EXISTS":
            using = f"EXISTS (SELECT FROM {other.name})" if other else "false"
        elif using == "call":
            using = (
                f"{function.name}({table.name.rpartition('.')[2]})"
                if function and function.extra == table.name and "." not in table.name[1:-1]
                else "true"
            )
        return f"CREATE POLICY {self.named(p)} ON {table.name} TO {p.of(('PUBLIC', *map(quote, ROLES)))} USING ({using})", None

    def _row_security(self, p: Picks) -> Made | None:
        table = self.one(p, "table")
        return (f"ALTER TABLE {table.name} {p.of(('ENABLE', 'FORCE', 'DISABLE'))} ROW LEVEL SECURITY", None) if table else None

    def _index(self, p: Picks) -> Made | None:
        table, function = self.one(p, "table", "matview"), self.one(p, "rowfn")
        if table is None or not table.columns:
            return None
        column = p.of(table.columns)[0]
        if function and function.extra == table.name:
            own = table.name.partition(".")[2]
            expression = f"({function.name}({own}.*))"
        elif p.odds(3):
            expression = f"(({column})::text IS NULL)"
        else:
            expression = f"{column} {p.of(('', 'DESC', 'NULLS FIRST'))}"
        unique, where = "UNIQUE " if p.odds(5) else "", f" WHERE {column} IS NOT NULL" if p.odds(4) else ""
        return f"CREATE {unique}INDEX {self.named(p)} ON {table.name} ({expression}){where}", None

    def _extension_index(self, p: Picks) -> Made | None:
        table, extension = self.one(p, "table"), self.one(p, "extension")
        if table is None or extension is None:
            return None
        texts = [name for name, type_ in table.columns if type_ == "text"]
        numbers = [name for name, type_ in table.columns if type_ in {"integer", "bigint"}]
        if "pg_trgm" in extension.name and texts:
            return f"CREATE INDEX {self.named(p)} ON {table.name} USING gin ({texts[0]} {extension.extra}.gin_trgm_ops)", None
        if "btree_gist" in extension.name and numbers:
            return f"ALTER TABLE {table.name} ADD CONSTRAINT {self.named(p)} EXCLUDE USING gist ({numbers[0]} WITH =)", None
        return None

    def _check(self, p: Picks) -> Made | None:
        table, function = self.one(p, "table", "foreign"), self.one(p, "rowfn")
        if table is None:
            return None
        own = table.name.partition(".")[2]
        expression = f"{function.name}({own}.*)" if function and function.extra == table.name else "true"
        for name, type_ in table.columns:
            if function and function.extra == type_ and p.odds(2):
                expression = f"{function.name}({name})"
        return f"ALTER TABLE {table.name} ADD CONSTRAINT {self.named(p)} CHECK ({expression}){p.of(('', ' NOT VALID', ' NO INHERIT'))}", None

    def _default(self, p: Picks) -> Made | None:
        table, function = self.one(p, "table", "view", "foreign"), self.one(p, "fn0")
        if table is None or function is None or not table.columns:
            return None
        return f"ALTER TABLE {table.name} ALTER COLUMN {p.of(table.columns)[0]} SET DEFAULT {function.name}()", None

    def _foreign_key(self, p: Picks) -> Made | None:
        one, other = self.one(p, "table"), self.one(p, "table")
        if one is None or other is None or not other.columns:
            return None
        target, type_ = other.columns[0]
        fitting = [name for name, kind in one.columns if kind == type_]
        if not fitting:
            column = self.named(p)
            added = f"ALTER TABLE {one.name} ADD COLUMN {column} {type_} REFERENCES {other.name} ({target})"
            return added + p.of(("", " DEFERRABLE INITIALLY DEFERRED")), None
        tail = p.of(("", " ON DELETE CASCADE", " DEFERRABLE", " NOT VALID", " MATCH FULL ON UPDATE SET DEFAULT"))
        return f"ALTER TABLE {one.name} ADD CONSTRAINT {self.named(p)} FOREIGN KEY ({fitting[-1]}) REFERENCES {other.name} ({target}){tail}", None

    def _add_column(self, p: Picks) -> Made | None:
        table = self.one(p, "table")
        if table is None:
            return None
        name, type_ = self.named(p), self.type(p)
        tail = p.of(("", "", " DEFAULT NULL", f" UNIQUE DEFAULT {self.value(p, type_)}"))
        return f"ALTER TABLE {table.name} ADD COLUMN {name} {type_}{tail}", Thing("column", table.name, [(name, type_)])

    def _drop_column(self, p: Picks) -> Made | None:
        table = self.one(p, "table", "composite")
        if table is None or not table.columns:
            return None
        kind = "TABLE" if table.kind == "table" else "TYPE"
        word = "COLUMN" if kind == "TABLE" else "ATTRIBUTE"
        return f"ALTER {kind} {table.name} DROP {word} {p.of(table.columns)[0]}{' CASCADE' if p.odds(3) else ''}", None

    def _column_setting(self, p: Picks) -> Made | None:
        table = self.one(p, "table")
        if table is None or not table.columns:
            return None
        what = p.of(("SET STATISTICS 7", "SET (n_distinct = 5)", "SET STORAGE EXTERNAL", "SET NOT NULL", "SET COMPRESSION pglz"))
        return f"ALTER TABLE {table.name} ALTER COLUMN {p.of(table.columns)[0]} {what}", None

    def _sequence(self, p: Picks) -> Made:
        name = self.placed(p)
        return f"CREATE SEQUENCE {name} {p.of(('', 'AS smallint INCREMENT -3 MINVALUE -300 MAXVALUE 5 CYCLE', 'START 77'))}", Thing("sequence", name)

    def _sequence_moves(self, p: Picks) -> Made | None:
        sequence, table = self.one(p, "sequence"), self.one(p, "table")
        if sequence is None:
            return None
        if table and table.columns and p.odds(2):
            return f"ALTER SEQUENCE {sequence.name} OWNED BY {table.name}.{table.columns[0][0]}", None
        return f"SELECT nextval({literal(sequence.name)})", None

    def _aggregate(self, p: Picks) -> Made:
        name = self.placed(p)
        made = p.of(
            (
                "(integer) (SFUNC = int4pl, STYPE = integer)",
                "(ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = mode_final)",
            )
        )
        return f"CREATE AGGREGATE {name}{made}", Thing("aggregate", name)

    def _operator(self, p: Picks) -> Made:
        schema, over = self.one(p, "schema"), self.one(p, "composite", "enum", "table", "base")
        assert schema
        type_ = over.name if over else "integer"
        self._made += 1
        symbol = ("=", "<", "===", "<@>", "|", "~~~")[p.number(6)]
        name, function = f"{schema.name}.{symbol}", f"{schema.name}.{quote(f'op{self._made}')}"
        return (
            (
                f"CREATE FUNCTION {function}({type_}, {type_}) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';"
                f" CREATE OPERATOR {name} (LEFTARG = {type_}, RIGHTARG = {type_}, FUNCTION = {function})"
            ),
            Thing("operator", name, [], type_),
        )

    def _operator_class(self, p: Picks) -> Made:
        name, operator = self.placed(p), self.one(p, "operator")
        if operator and p.odds(2):
            family = f"CREATE OPERATOR FAMILY {name} USING hash"
            return family, Thing("family", name)
        return (
            f"CREATE OPERATOR CLASS {name} FOR TYPE integer USING btree AS OPERATOR 1 <, OPERATOR 3 =, FUNCTION 1 btint4cmp(integer, integer)",
            None,
        )

    def _cast(self, p: Picks) -> Made | None:
        made, function = self.one(p, "enum", "composite", "base"), self.one(p, "rowfn")
        if function and p.odds(2):
            return f"CREATE CAST ({function.extra} AS boolean) WITH FUNCTION {function.name}({function.extra}) AS ASSIGNMENT", None
        return (f"CREATE CAST ({made.name} AS text) WITH INOUT", None) if made else None

    def _collation(self, p: Picks) -> Made:
        name = self.placed(p)
        return f"CREATE COLLATION {name} (provider = icu, locale = 'de')" if p.odds(2) else f'CREATE COLLATION {name} FROM "C"', Thing(
            "collation", name
        )

    def _search(self, p: Picks) -> Made:
        name = self.placed(p)
        if p.odds(2):
            return f"CREATE TEXT SEARCH DICTIONARY {name} (TEMPLATE = simple)", Thing("dictionary", name)
        return f"CREATE TEXT SEARCH CONFIGURATION {name} (COPY = english)", Thing("configuration", name)

    def _search_uses(self, p: Picks) -> Made | None:
        configuration, dictionary, table = self.one(p, "configuration"), self.one(p, "dictionary"), self.one(p, "table")
        if configuration and dictionary and not p.odds(3):
            return f"ALTER TEXT SEARCH CONFIGURATION {configuration.name} ALTER MAPPING FOR word WITH {dictionary.name}, simple", None
        if configuration and table:
            generated = f"to_tsvector({literal(configuration.name)}::regconfig, 'x')"
            return f"ALTER TABLE {table.name} ADD COLUMN {self.named(p)} tsvector GENERATED ALWAYS AS ({generated}) STORED", None
        return None

    def _statistics(self, p: Picks) -> Made | None:
        table = self.one(p, "table")
        if table is None or len(table.columns) < 2:
            return None
        return f"CREATE STATISTICS {self.placed(p)} ON {table.columns[0][0]}, {table.columns[1][0]} FROM {table.name}", None

    def _publication(self, p: Picks) -> Made:
        name, table, schema = self.named(p), self.one(p, "table"), self.one(p, "schema")
        what = ""
        if table:
            column = f" ({table.columns[0][0]})" if table.columns and p.odds(2) else ""
            what = p.of(("", f" FOR TABLE {table.name}{column}", f" FOR TABLE {table.name} WHERE (true)", " FOR ALL TABLES"))
        if schema and p.odds(6):
            what = f" FOR TABLES IN SCHEMA {schema.name}"
        return f"CREATE PUBLICATION {name}{what}", Thing("publication", name)

    def _publish(self, p: Picks) -> Made | None:
        publication, table = self.one(p, "publication"), self.one(p, "table")
        return (f"ALTER PUBLICATION {publication.name} ADD TABLE {table.name}", None) if publication and table else None

    def _event_trigger(self, p: Picks) -> Made:
        name, function = self.named(p), self.placed(p)
        event = p.of(("ddl_command_end", "sql_drop", "table_rewrite", "ddl_command_start"))
        return (
            (
                f"CREATE FUNCTION {function}() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END';"
                f" CREATE EVENT TRIGGER {name} ON {event} EXECUTE FUNCTION {function}()"
            ),
            Thing("event_trigger", name),
        )

    def _server(self, p: Picks) -> Made:
        name, wrapper = self.named(p), self.named(p)
        return f"CREATE FOREIGN DATA WRAPPER {wrapper}; CREATE SERVER {name} FOREIGN DATA WRAPPER {wrapper} OPTIONS (host 'x''y')", Thing(
            "server", name
        )

    def _mapping(self, p: Picks) -> Made | None:
        server = self.one(p, "server")
        who = p.of(("PUBLIC", *map(quote, ROLES)))
        return (f"CREATE USER MAPPING FOR {who} SERVER {server.name} OPTIONS (password 'se;cr''et')", None) if server else None

    def _foreign_table(self, p: Picks) -> Made | None:
        server = self.one(p, "server")
        if server is None:
            return None
        name = self.placed(p)
        lines, columns = self._columns(p)
        return f"CREATE FOREIGN TABLE {name} ({', '.join(lines)}) SERVER {server.name}", Thing("foreign", name, columns)

    def _extension(self, p: Picks) -> Made:
        extension, schema = p.of(_EXTENSIONS), self.one(p, "schema")
        assert schema
        if extension in _EXTENSION_TYPES:
            return f"CREATE EXTENSION {extension} SCHEMA {schema.name}", Thing("exttype", f"{schema.name}.{_EXTENSION_TYPES[extension]}")
        return f"CREATE EXTENSION {extension} SCHEMA {schema.name}", Thing("extension", extension, [], schema.name)

    def _large_object(self, p: Picks) -> Made:
        self._made += 1
        return f"SELECT lo_from_bytea({4000 + self._made}, '\\x00ff0a')", Thing("lo", str(4000 + self._made))

    def _comment(self, p: Picks) -> Made | None:
        kinds = {
            "table": "TABLE",
            "view": "VIEW",
            "matview": "MATERIALIZED VIEW",
            "schema": "SCHEMA",
            "enum": "TYPE",
            "composite": "TYPE",
            "domain": "DOMAIN",
            "sequence": "SEQUENCE",
            "fn0": "FUNCTION",
            "publication": "PUBLICATION",
            "server": "SERVER",
            "lo": "LARGE OBJECT",
            "event_trigger": "EVENT TRIGGER",
            "configuration": "TEXT SEARCH CONFIGURATION",
            "collation": "COLLATION",
        }
        thing = self.one(p, *kinds)
        text = p.of(("'it''s'", r"E'a\n\\! echo x\nCOPY t FROM stdin;\n-- Name: x; Type: y'", "NULL", "''"))
        if thing and thing.kind == "table" and thing.columns and p.odds(2):
            return f"COMMENT ON COLUMN {thing.name}.{thing.columns[0][0]} IS {text}", None
        return (f"COMMENT ON {kinds[thing.kind]} {thing.name} IS {text}", None) if thing else None

    def _grant(self, p: Picks) -> Made | None:
        kinds = {
            "table": ("TABLE", ("SELECT", "ALL", "UPDATE, TRIGGER")),
            "view": ("TABLE", ("SELECT", "ALL")),
            "sequence": ("SEQUENCE", ("USAGE", "ALL")),
            "schema": ("SCHEMA", ("USAGE", "ALL")),
            "fn0": ("FUNCTION", ("EXECUTE",)),
            "enum": ("TYPE", ("USAGE",)),
            "server": ("FOREIGN SERVER", ("USAGE",)),
            "lo": ("LARGE OBJECT", ("SELECT",)),
        }
        thing = self.one(p, *kinds)
        if thing is None:
            return None
        word, privileges = kinds[thing.kind]
        privilege, role = p.of(privileges), p.of((*map(quote, ROLES), "PUBLIC"))
        if thing.kind in {"table", "view"} and thing.columns and p.odds(3):
            privilege = f"SELECT ({p.of(thing.columns)[0]})"
        if p.odds(4):
            return f"REVOKE {privilege} ON {word} {thing.name} FROM {p.of(('PUBLIC', 'CURRENT_USER'))}", None
        return f"GRANT {privilege} ON {word} {thing.name} TO {role}{' WITH GRANT OPTION' if role != 'PUBLIC' and p.odds(3) else ''}", None

    def _default_privileges(self, p: Picks) -> Made:
        schema = self.one(p, "schema")
        where = f" IN SCHEMA {schema.name}" if schema and p.odds(2) else ""
        what = p.of(("SELECT ON TABLES", "EXECUTE ON FUNCTIONS", "USAGE ON SEQUENCES", "USAGE ON TYPES"))
        return f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote(p.of(ROLES))}{where} GRANT {what} TO {quote(p.of(ROLES))}", None

    def _owner(self, p: Picks) -> Made | None:
        kinds = {
            "table": "TABLE",
            "view": "VIEW",
            "sequence": "SEQUENCE",
            "enum": "TYPE",
            "domain": "DOMAIN",
            "schema": "SCHEMA",
            "matview": "MATERIALIZED VIEW",
        }
        thing = self.one(p, *kinds)
        return (f"ALTER {kinds[thing.kind]} {thing.name} OWNER TO {quote(p.of(ROLES))}", None) if thing else None

    # --- later changes --------------------------------------------------------------------------

    def _drop(self, p: Picks) -> Made | None:
        kinds = {
            "table": "TABLE",
            "view": "VIEW",
            "matview": "MATERIALIZED VIEW",
            "enum": "TYPE",
            "sequence": "SEQUENCE",
            "fn0": "FUNCTION",
            "rowfn": "FUNCTION",
        }
        kinds |= {"domain": "DOMAIN", "publication": "PUBLICATION", "event_trigger": "EVENT TRIGGER", "foreign": "FOREIGN TABLE", "schema": "SCHEMA"}
        thing = self.one(p, *kinds)
        return (f"DROP {kinds[thing.kind]} {thing.name}{' CASCADE' if p.odds(2) else ''}", None) if thing else None

    def _rename(self, p: Picks) -> Made | None:
        table = self.one(p, "table")
        if table is None:
            return None
        if table.columns and not p.odds(3):
            return f"ALTER TABLE {table.name} RENAME COLUMN {p.of(table.columns)[0]} TO {self.named(p)}", None
        return f"ALTER TABLE {table.name} RENAME TO {self.named(p)}", None

    def _label(self, p: Picks) -> Made | None:
        enum = self.one(p, "enum")
        return (f"ALTER TYPE {enum.name} ADD VALUE {literal(self.named(p))}", None) if enum else None

    def _write(self, p: Picks) -> Made | None:
        table = self.one(p, "table")
        return (
            (p.of((f"DELETE FROM {table.name}", f"TRUNCATE {table.name} CASCADE", f"INSERT INTO {table.name} DEFAULT VALUES")), None)
            if table
            else None
        )

    def _detach(self, p: Picks) -> Made | None:
        children = [thing for thing in self.all("table", "foreign") if "^" in thing.extra][::-1]
        if not children:
            return None
        child = p.of(children)
        return f"ALTER TABLE {child.extra.partition('^')[2]} DETACH PARTITION {child.name}", None

    def _move(self, p: Picks) -> Made | None:
        schema, thing = self.one(p, "schema"), self.one(p, "table", "enum")
        return (f"ALTER {thing.kind.replace('enum', 'type').upper()} {thing.name} SET SCHEMA {schema.name}", None) if schema and thing else None


_MAKES = (
    *("table",) * 5,
    *("rows",) * 5,
    *("view",) * 3,
    *("row_function",) * 3,
    *("partition",) * 3,
    *("partitioned", "index", "foreign_key", "check", "grant", "atomic", "default", "policy", "matview", "schema", "comment") * 2,
    *("typed_table", "default_rows", "enum", "composite", "range", "base", "domain", "domain_check", "function", "procedure", "trigger_function"),
    *("trigger", "disable_trigger", "circle_view", "rule", "row_security", "extension", "extension_index", "add_column", "drop_column"),
    *("column_setting", "sequence", "sequence_moves", "aggregate", "operator", "operator_class", "cast", "collation", "search", "search_uses"),
    *("statistics", "publication", "publish", "event_trigger", "server", "mapping", "foreign_table", "large_object", "default_privileges", "owner"),
)
_CHANGES = (
    *("write", "add_column", "drop_column", "rename", "drop", "rows", "index", "table") * 2,
    *("label", "detach", "move", "partition", "foreign_key", "check", "view", "policy", "grant", "publish", "row_security", "trigger", "owner"),
    *("default", "comment", "function", "enum", "domain_check", "statistics", "rule", "column_setting"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is drawn. `form` and `safety` are how the Replace goes; `user` makes it all."""

    makes: list[Step]
    changes: list[Step]
    form: Format
    safety: bool
    user: str


def draw(seed: int, index: int) -> Plan:
    """The plan number `index` of a seed: the same everywhere and always."""
    dice = Random(f"{seed}/{index}")

    def steps(kinds: tuple[str, ...], least: int, most: int) -> list[Step]:
        return [(dice.choice(kinds), [dice.randrange(240) for _ in range(24)]) for _ in range(dice.randint(least, most))]

    return Plan(steps(_MAKES, 12, 60), steps(_CHANGES, 0, 6), dice.choice(("plain", "custom")), dice.random() < 0.5, dice.choice(_USERS))


def carry_out(connection: psycopg.Connection[tuple[object, ...]], maker: Maker, steps: Iterable[Step]) -> list[str]:
    """Runs the steps one by one; the statements that the server took."""
    taken = []
    for step in steps:
        made = maker.statement(step)
        if made is None:
            continue
        text, thing = made
        try:
            connection.execute(text.encode())
        except psycopg.Error:
            continue
        taken.append(text)
        if thing and thing.kind == "column":
            for table in maker.all("table"):
                if table.name == thing.name:
                    table.columns.extend(thing.columns)
        elif thing:
            maker.things.append(thing)
    return taken
