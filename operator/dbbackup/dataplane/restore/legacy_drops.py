"""What an artifact of version 0.1 replaces. It has no catalog, so the names in its DROP statements
stand for it. Pure.

The statements are read, never run. One that is not understood refuses the artifact: what it drops
would not be known.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dbbackup.contract.catalog import ObjectKey
from dbbackup.contract.errors import Failure
from dbbackup.dataplane.restore.names_in_use import MadeName
from dbbackup.dataplane.restore.roots import HeldObject
from dbbackup.dataplane.restore.statement_errors import describe
from dbbackup.dataplane.sql.splitter import split_qualified_name

_SPACE = re.compile(r'("(?:[^"]|"")*")|\s+')
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_SAFE = re.compile(r"[a-z_][a-z0-9_$]*")
_ARGUMENT = re.compile(r'(?:"(?:[^"]|"")*"|[^",])+')
_MODE_AND_NAME = r'(?:(?:IN|INOUT|VARIADIC) )?(?:(?:"(?:[^"]|"")*"|[^\s",]+) )?'
_BLOCK = re.compile(
    r"DO (\$dbbackup_*\$)\nBEGIN\n(?:IF pg_catalog\.to_regclass\(.*?\) IS NOT NULL THEN\n)?(.*?)(?:\nEXCEPTION WHEN .*|\nEND IF;.*|)\Z", re.DOTALL
)
"""The backup's filter put statements into such blocks."""
_DUMMY_VIEW = re.compile(r"CREATE OR REPLACE VIEW\s.*\bSELECT(?:\s+NULL::|;)", re.IGNORECASE | re.DOTALL)
_PART = re.compile(
    r"ALTER (?:FOREIGN )?TABLE (?:IF EXISTS )?(?:ONLY )?.* DROP (?:CONSTRAINT|DEFAULT)\b"
    r"|ALTER DOMAIN .* DROP CONSTRAINT\b"
    r"|DROP (?:CONSTRAINT|TRIGGER|RULE|POLICY|INDEX|STATISTICS)\s",
    re.DOTALL,
)
_LARGE_OBJECT = re.compile(r"SELECT pg_catalog\.lo_unlink\((?:oid\) FROM pg_catalog\.pg_largeobject_metadata WHERE oid = )?'?(\d+)'?\)?")

RELATIONS = ("FOREIGN TABLE", "MATERIALIZED VIEW", "TABLE", "VIEW", "SEQUENCE")
ROUTINES = ("FUNCTION", "PROCEDURE", "AGGREGATE", "ROUTINE")
TYPES = ("TYPE", "DOMAIN")
_GLOBALS = ("EVENT TRIGGER", "PUBLICATION", "SUBSCRIPTION", "SERVER", "FOREIGN DATA WRAPPER", "PROCEDURAL LANGUAGE", "LANGUAGE", "ACCESS METHOD")
_IN_SCHEMA = (
    "COLLATION",
    "CONVERSION",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
)
_BY_METHOD = ("OPERATOR CLASS", "OPERATOR FAMILY")
_BY_TEXT = ("CAST", "TRANSFORM", "USER MAPPING")
_KINDS = (*RELATIONS, *ROUTINES, *TYPES, *_GLOBALS, *_IN_SCHEMA, *_BY_METHOD, *_BY_TEXT, "OPERATOR", "SCHEMA", "EXTENSION")
_DROP = re.compile(rf"DROP ({'|'.join(sorted(_KINDS, key=len, reverse=True))})\s+(?:IF EXISTS\s+)?(.*?);?\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DroppedObject:
    """One object that the dump replaces. `schema` is empty for kinds without one; `rest` is the
    text after the name: arguments, `USING btree`."""

    kind: str
    schema: str
    name: str
    rest: str = ""


def parse_drop_statement(statement: str) -> DroppedObject | bool:
    """The object that a statement of the DROP section drops; True where it drops only a part of an
    object; False where it does not belong to the DROP section."""
    if block := _BLOCK.match(statement):
        return parse_drop_statement(block[2])
    if found := _LARGE_OBJECT.match(statement):
        return DroppedObject("LARGE OBJECT", "", found[1])
    if _PART.match(statement) or _DUMMY_VIEW.match(statement):
        return True
    found = _DROP.match(statement)
    if not found:
        return False
    kind, tail = found[1], found[2].strip()
    if kind in ("SCHEMA", "EXTENSION"):
        return True
    if kind in _BY_TEXT:
        return DroppedObject(kind, "", tail)
    names, rest = split_qualified_name(tail)
    if not names:
        return False
    return DroppedObject(kind, names[-2] if len(names) > 1 else "", names[-1], rest)


def normalized(text: str) -> str:
    """One spelling for all ways to write the same text: white space outside of quotes becomes one
    blank, and only names that need quotes keep them."""
    return _QUOTED.sub(lambda found: found[1] if _SAFE.fullmatch(found[1]) else found[0], _SPACE.sub(lambda found: found[1] or " ", text)).strip()


def argument_list(rest: str) -> str:
    """The text between the outer parentheses; empty for `*`, an aggregate without arguments."""
    inner = rest.strip()
    inner = inner[1:-1] if inner.startswith("(") and inner.endswith(")") else inner
    return "" if inner.strip() == "*" else _SPACE.sub(lambda found: found[1] or " ", inner).strip()


def takes_types(arguments: str, types: Sequence[str]) -> bool:
    """Whether a routine's arguments, `a integer, VARIADIC b text[], OUT c text`, take exactly these
    types, `["integer", "text[]"]`, as the server writes them.
    """
    parameters = [argument for found in _ARGUMENT.findall(arguments) if not (argument := found.strip()).startswith("OUT ")]
    return len(parameters) == len(types) and all(
        re.fullmatch(_MODE_AND_NAME + re.escape(kind), argument) for argument, kind in zip(parameters, types, strict=True)
    )


_CATALOGS: dict[str, str] = {
    **dict.fromkeys(RELATIONS, "pg_class"),
    **dict.fromkeys(ROUTINES, "pg_proc"),
    **dict.fromkeys(TYPES, "pg_type"),
    "COLLATION": "pg_collation",
    "CONVERSION": "pg_conversion",
    "TEXT SEARCH CONFIGURATION": "pg_ts_config",
    "TEXT SEARCH DICTIONARY": "pg_ts_dict",
    "TEXT SEARCH PARSER": "pg_ts_parser",
    "TEXT SEARCH TEMPLATE": "pg_ts_template",
    "OPERATOR CLASS": "pg_opclass",
    "OPERATOR FAMILY": "pg_opfamily",
    "OPERATOR": "pg_operator",
    "EVENT TRIGGER": "pg_event_trigger",
    "PUBLICATION": "pg_publication",
    "SERVER": "pg_foreign_server",
    "FOREIGN DATA WRAPPER": "pg_foreign_data_wrapper",
    "LANGUAGE": "pg_language",
    "PROCEDURAL LANGUAGE": "pg_language",
    "ACCESS METHOD": "pg_am",
    "CAST": "pg_cast",
    "TRANSFORM": "pg_transform",
    "USER MAPPING": "pg_user_mapping",
    "LARGE OBJECT": "pg_largeobject",
}
_EXACT_TYPES = frozenset({*RELATIONS, "FUNCTION", "PROCEDURE", "AGGREGATE"})
"""Kinds that share their names with other kinds."""


def parse_drop_section(statements: Iterable[bytes]) -> list[DroppedObject]:
    """Failure FormatUnsupported names a statement that is not understood."""
    found: list[DroppedObject] = []
    for statement in statements:
        parsed = parse_drop_statement(statement.decode("utf-8", "surrogateescape"))
        if parsed is False:
            raise Failure(
                "FormatUnsupported",
                f"the artifact's DROP section contains {describe(statement)}, so what it replaces is not known; nothing was touched",
                "Restore the artifact into an empty database, or make a new backup and replace by that.",
            )
        if isinstance(parsed, DroppedObject):
            found.append(parsed)
    return found


def find_named(held: Iterable[HeldObject], drops: Iterable[DroppedObject]) -> Iterator[tuple[DroppedObject, HeldObject]]:
    """The objects of the target that the statements name; those of another kind too."""
    named: dict[tuple[str, tuple[str, ...]], list[HeldObject]] = defaultdict(list)
    for found in held:
        named[found.catalog, _name(found)].append(found)
    for drop in drops:
        catalog = _CATALOGS.get(drop.kind, "")
        name = (drop.schema, drop.name) if drop.schema else (drop.name,)
        if drop.kind in _BY_TEXT:
            name = (normalized(drop.name),)
        yield from ((drop, found) for found in named[catalog, name] if _same(drop, found))


def wanted_by_name(held: Sequence[HeldObject], drops: Iterable[DroppedObject]) -> Mapping[ObjectKey, str]:
    """As `roots.wanted_keys`, of the objects that the target holds."""
    return {found.key: drop.kind.lower() if drop.kind in _EXACT_TYPES else found.type for drop, found in find_named(held, drops)}


def made_names(drops: Iterable[DroppedObject]) -> Iterator[MadeName]:
    """The names of relations and types that the artifact makes."""
    for drop in drops:
        if drop.kind in RELATIONS or drop.kind in TYPES:
            yield MadeName(drop.schema, drop.name, drop.kind.lower())


def _name(found: HeldObject) -> tuple[str, ...]:
    match found.catalog:
        case "pg_type":
            return tuple(split_qualified_name(found.names[0])[0])
        case "pg_opclass" | "pg_opfamily":
            return found.names[1:]
        case "pg_cast":
            return (normalized(f"({_plain(found.names[0])} AS {_plain(found.args[0])})"),)
        case "pg_transform":
            return (normalized(f"FOR {_plain(found.names[0])} LANGUAGE {found.args[0]}"),)
        case "pg_user_mapping":
            return (normalized(found.drop.replace("FOR PUBLIC ", "FOR public ", 1)),)
        case _:
            return found.names


def _same(drop: DroppedObject, found: HeldObject) -> bool:
    types = [_plain(kind) for kind in found.args]
    match found.catalog:
        case "pg_proc":
            wanted = argument_list(drop.rest)
            own = argument_list(split_qualified_name(found.drop)[1])
            return wanted == own or takes_types(wanted, types)
        case "pg_operator":
            return ", ".join(types) == argument_list(drop.rest).removeprefix("NONE, ").removesuffix(", NONE")
        case "pg_opclass" | "pg_opfamily":
            return normalized(drop.rest) == normalized(f"USING {found.names[0]}")
        case _:
            return True


def _plain(kind: str) -> str:
    """A type as pg_dump writes it, with an empty search_path."""
    return kind.removeprefix("pg_catalog.")
