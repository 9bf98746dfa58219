"""Parses the DROP section of a dump made with --clean: which objects it replaces. Pure.

The DROP statements of a dump are read, never run: they are in the source's order, and a foreign key
or a view that is newer than the backup would make them fail. `replace.py` drops the same objects in
the order that the target's dependencies need.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_IDENTIFIER = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^\s"().,;]+))')
_SPACE = re.compile(r'("(?:[^"]|"")*")|\s+')
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_SAFE = re.compile(r"[a-z_][a-z0-9_$]*")
_ARGUMENT = re.compile(r'(?:"(?:[^"]|"")*"|[^",])+')
_MODE_AND_NAME = r'(?:(?:IN|INOUT|VARIADIC) )?(?:(?:"(?:[^"]|"")*"|[^\s",]+) )?'
_BLOCK = re.compile(
    r"DO (\$dbbackup_*\$)\nBEGIN\n(?:IF pg_catalog\.to_regclass\(.*?\) IS NOT NULL THEN\n)?(.*?)(?:\nEXCEPTION WHEN .*|\nEND IF;.*|)\Z", re.DOTALL
)
"""The backup's filter puts statements into blocks like this one; those of 0.1 begin with IF."""
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
GLOBALS = ("EVENT TRIGGER", "PUBLICATION", "SUBSCRIPTION", "SERVER", "FOREIGN DATA WRAPPER", "PROCEDURAL LANGUAGE", "LANGUAGE", "ACCESS METHOD")
IN_SCHEMA = (
    "COLLATION",
    "CONVERSION",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
)
BY_METHOD = ("OPERATOR CLASS", "OPERATOR FAMILY")
BY_TEXT = ("CAST", "TRANSFORM", "USER MAPPING")
_KINDS = (*RELATIONS, *ROUTINES, *TYPES, *GLOBALS, *IN_SCHEMA, *BY_METHOD, *BY_TEXT, "OPERATOR", "SCHEMA", "EXTENSION")
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
    if kind in BY_TEXT:
        return DroppedObject(kind, "", tail)
    names, rest = split_qualified_name(tail)
    if not names:
        return False
    return DroppedObject(kind, names[-2] if len(names) > 1 else "", names[-1], rest)


def split_qualified_name(text: str) -> tuple[list[str], str]:
    """`app."We.ird"(a int)` -> (["app", "We.ird"], "(a int)")."""
    names: list[str] = []
    at = 0
    while found := _IDENTIFIER.match(text, at):
        names.append(found[1].replace('""', '"') if found[1] is not None else found[2])
        at = found.end()
        if not text.startswith(".", at):
            break
        at += 1
    return names, text[at:].strip()


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
